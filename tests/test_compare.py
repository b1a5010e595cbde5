"""Runs side by side."""

import json
from pathlib import Path

import pytest

from vcr1.compare import compare_runs, main
from vcr1.errors import UserError
from vcr1.evaluation import AnswerRecord, Likelihood, write_likelihoods
from vcr1.evaluation.output import write_results

HALF = {"mIoU": 0.5, "R@0.5": 1.0}
NONE = {"mIoU": 0.0, "R@0.5": 0.0}


def evaluation(folder: Path, scores: list[dict[str, float]], name: str = "b") -> Path:
    answers = [
        AnswerRecord(name, f"s{number}", 0, "When?", "", None, None, own, None, "ab"[number % 2], 0.0)
        for number, own in enumerate(scores)
    ]
    write_results(folder, answers)
    return folder


def training(folder: Path, value: float, scores: list[dict[str, float]] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    if scores is not None:
        evaluation(folder, scores, "grounding")
        (folder / "samples.jsonl").rename(folder / "held_out.jsonl")
    (folder / "report.json").write_text(json.dumps({"after": {"grounding": {"mIoU": value}}}))
    (folder / "metrics.csv").write_text(f"step,train/reward\n0,0.5\n1,{value}\n")
    return folder


def test_evaluations_are_held_against_the_first(tmp_path: Path) -> None:
    first = evaluation(tmp_path / "one", [HALF, HALF, NONE, NONE])
    second = evaluation(tmp_path / "two", [HALF, NONE, HALF, HALF])
    text = compare_runs([first, second], tmp_path / "out")
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    found = content["others"]["two"]["b"]
    assert found["metrics"]["R@0.5"]["difference"] == 0.25
    assert found["categories"]["a"]["metrics"]["R@0.5"]["difference"] == 0.5  # s0 stays, s2 is gained
    assert found["flips"] == {"metric": "R@0.5", "gained": ["s2", "s3"], "lost": ["s1"]}
    assert "| R@0.5 | 0.500 | 0.750 | +0.250 |" in text
    assert (tmp_path / "out" / "compare.md").read_text() == text
    assert (tmp_path / "out" / "recall_b.png").read_bytes().startswith(b"\x89PNG")


def asked(folder: Path, template: str, questions: list[str], truths: list[object]) -> Path:
    """An evaluation of some questions, by a template of its run."""
    pairs = enumerate(zip(questions, truths, strict=True))
    answers = [
        AnswerRecord("b", f"val-{n}", 0, template % q, "", None, truth, HALF, None, None, 0.0)
        for n, (q, truth) in pairs
    ]
    write_results(folder, answers)
    return folder


def test_equal_ids_of_different_questions_are_not_paired(tmp_path: Path) -> None:
    questions, truths = ["the door opens", "a dog barks"], [[1.0, 2.0], [3.0, 4.0]]
    first = asked(tmp_path / "one", "When? %s.", questions, truths)
    others = {
        "other question": (
            ["the door opens", "a cat sleeps"],
            truths,
            "'a dog bark' in one run and 'a cat sleep'",
        ),
        "other truth": (questions, [[1.0, 2.0], [3.0, 5.0]], "has the truth .3.0, 4.0. in one run"),
        "other order": (questions[::-1], truths, "cannot be paired"),
    }
    for name, (own, known, says) in others.items():
        with pytest.raises(UserError, match=rf"b: the question val-\d .*{says}"):
            compare_runs([first, asked(tmp_path / name, "When? %s.", own, known)], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # The same questions in other words around them, more of them, and one whose truth was lost, are paired.
    worded = asked(tmp_path / "worded", "Think. At which second: %s?", questions, truths)
    more = asked(tmp_path / "more", "When? %s.", [*questions, "it rains"], [None, truths[1], [5.0, 6.0]])
    for other in (worded, more):
        assert "2 common samples" in compare_runs([first, other], tmp_path / "out")


def test_conversations_are_compared_where_both_have_read_them(tmp_path: Path) -> None:
    folders = [evaluation(tmp_path / name, [HALF]) for name in ("one", "two")]
    for folder, nats in zip(folders, (2.0, 3.0), strict=True):
        assert "conversations" not in compare_runs(folders, tmp_path / "out")  # not as long as one alone has
        write_likelihoods(folder, [Likelihood(1, 1, 4, 4 * nats, 0.0)])
    assert "| nll | 2.000 | 3.000 | +1.000 | +1.000 to +1.000 |" in compare_runs(folders, tmp_path / "out")


def test_training_runs_have_their_curves_in_one_picture(tmp_path: Path) -> None:
    folders = [training(tmp_path / "one", 0.5), training(tmp_path / "two", 0.75)]
    text = compare_runs(folders, tmp_path / "out")
    assert "| grounding/mIoU | 0.500 | 0.750 (+0.250) |" in text
    assert "No significance: no held_out.jsonl in one, two" in text
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["others"] is None
    assert (tmp_path / "out" / "train_reward.png").is_file()
    assert not (tmp_path / "out" / "train_loss.png").exists()  # no run has the column


def test_training_runs_that_keep_their_answers_are_held_against_the_first(tmp_path: Path) -> None:
    first = training(tmp_path / "one", 0.25, [HALF, HALF, NONE, NONE])
    second = training(tmp_path / "two", 0.375, [HALF, NONE, HALF, HALF])
    text = compare_runs([first, second], tmp_path / "out")
    found = json.loads((tmp_path / "out" / "compare.json").read_text())["others"]["two"]["grounding"]
    assert found["metrics"]["mIoU"]["difference"] == 0.125
    assert found["categories"]["b"]["metrics"]["mIoU"]["difference"] == 0.0  # s1 is lost, s3 gained
    assert found["flips"] == {"metric": "R@0.5", "gained": ["s2", "s3"], "lost": ["s1"]}
    assert "for these very runs; runs of another seed may differ by more." in text
    assert "| mIoU | 0.250 | 0.375 | +0.125 |" in text
    assert "No significance" not in text
    assert (tmp_path / "out" / "train_reward.png").is_file()


def test_what_cannot_be_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = evaluation(tmp_path / "one", [HALF]), evaluation(tmp_path / "c", [HALF], name="c")
    trained, empty = training(tmp_path / "trained", 0.5), tmp_path / "empty"
    for folders, message in (
        ([one, one], "each once"),
        ([one, other], "no benchmark in common"),
        ([one, trained], "trained (report.json)"),
        ([one, empty], "empty (no results)"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*map(str, folders), "--out", str(tmp_path / "out")])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
