"""Whole evaluations with further looks, a base beside the checkpoint, and conversations."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluations import GROUNDING, command, evaluated, rows, settings

from vcr1.errors import UserError
from vcr1.evaluation import Answering
from vcr1.policy import VideoPolicy, load_policy

TALKS = 3
RESULTS = ("metrics.json", "forgetting.json", "base/metrics.json")


@pytest.fixture(scope="module")
def unsure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with all logits halved: its best answers are the same, but it is less sure."""
    folder = tmp_path_factory.mktemp("models") / "unsure"
    policy = load_policy("builtin:tiny", dtype="float32")
    with torch.no_grad():
        policy.model.model.language_model.norm.weight.mul_(0.5)
    policy.save(folder)
    return folder


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    texts = ["red", "a blue circle", "12.5 to 17.8"]
    lines = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": text}] for text in texts]
    file.write_text("".join(json.dumps({"messages": line}) + "\n" for line in lines))
    return file


@pytest.fixture(scope="module")
def asked(world: Path, unsure: Path, talks: Path) -> list[str]:
    """The command: 7 questions in groups of 5, a second look at each, and three conversations."""
    more = ["evaluation.limit=7", "clues.rounds=1", "clues.first=0.5", f"conversations={talks}"]
    return settings(world, *GROUNDING, *more, f"checkpoint={unsure}", "base=builtin:tiny")


@pytest.fixture(scope="module")
def whole(asked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    evaluated(folder, asked)
    return folder


def content(path: Path) -> Any:
    return json.loads(path.read_text())


def test_every_answer_keeps_its_looks(whole: Path) -> None:
    answers = rows(whole)
    assert len(answers) == 7
    for answer in answers:
        first, *more = answer["trace"]["looks"]
        (start, seconds), frames = first["part"], first["frames"]
        assert (start, frames) == (0, 2 * (seconds // 2))  # one a second, two to a token
        assert first["vision_tokens"] == frames / 2
        assert len(more) <= 1
        decided = answer["trace"]["looks"][answer["trace"]["decided"]]
        assert answer["completion"] == decided["text"]
        assert answer["value"] == decided["intervals"][0]  # in times of the video
    assert any(answer["trace"]["decided"] for answer in answers)
    found = content(whole / "metrics.json")["synthetic_grounding"]
    gain = found["looks"]["metrics"]["mIoU"]
    for side, scores in (
        ("first", [answer["trace"]["first_scores"]["mIoU"] for answer in answers]),
        ("second", [answer["scores"]["mIoU"] for answer in answers]),
    ):
        assert gain[side] == pytest.approx(sum(scores) / 7)
    assert gain["second"] == pytest.approx(found["metrics"]["mIoU"]["value"])
    assert sum(found["looks"]["stopped"].values()) == 7
    assert content(whole / "manifest.json")["clues"]["rounds"] == 1


def test_base_and_checkpoint_are_side_by_side(whole: Path) -> None:
    found = content(whole / "forgetting.json")
    metrics = found["benchmarks"]["synthetic_grounding"]["metrics"]
    assert {one["difference"] for one in metrics.values()} == {0.0}  # halved logits choose the same
    own, base = (content(whole / place / "metrics.json")["conversations"] for place in (".", "base"))
    assert own["samples"] == base["samples"] == TALKS
    gap = found["conversations"]["metrics"]["nll"]
    assert (gap["first"], gap["second"]) == (base["metrics"]["nll"]["value"], own["metrics"]["nll"]["value"])
    assert gap["difference"] == pytest.approx(gap["second"] - gap["first"])
    assert abs(gap["difference"]) > 0.5
    text = (whole / "report.md").read_text()
    assert text.index("Checkpoint against base") < text.index("synthetic_grounding: 7 samples\n\n### Metrics")
    for part in ("| nll |", "| perplexity |", "First look and last: "):
        assert part in text
    assert "Checkpoint against base" in (whole / "report.html").read_text()


def test_an_interrupted_comparison_goes_on(
    whole: Path, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the base's second group; neither are conversations read, nor is the checkpoint asked."""
    for place in (".", "base"):
        (tmp_path / place / "parts").mkdir(parents=True)
        shutil.copy(whole / place / "manifest.json", tmp_path / place)
    lines = (whole / "base" / "parts" / "rank00000.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "base" / "parts" / "rank00000.jsonl").write_text("".join(lines[:6]) + lines[6][:40])
    answered = []
    answer = Answering._answer

    def counted(self: Answering, group: Any, questions: Any) -> None:
        answered.append(len(group.places))
        answer(self, group, questions)

    monkeypatch.setattr(Answering, "_answer", counted)
    evaluated(tmp_path, [*asked, "evaluation.examples=0"])  # pictures do not matter
    assert answered == [2, 5, 2]
    for name in RESULTS:
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_a_further_look_without_memory_is_a_failure_that_is_tried_again(
    whole: Path, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, alone_at = Answering.generate, []

    def short_of_memory(self: Answering, questions: Any) -> Any:
        alone_at.append(len(questions.samples) == 1)
        if alone_at.count(True) == 2 and alone_at[-1]:  # of the looks that come alone the second
            raise RuntimeError("out of memory")
        return generate(self, questions)

    alone = [
        *(one for one in asked if not one.startswith(("base=", "conversations="))),
        "evaluation.examples=0",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(Answering, "generate", short_of_memory)
        found = evaluated(tmp_path, alone)["synthetic_grounding"]
    assert found["samples"] == 7
    assert (found["failures"]["not_generated"], sum(found["looks"]["stopped"].values())) == (1, 6)
    evaluated(tmp_path, alone)
    assert content(tmp_path / "metrics.json") == {
        "synthetic_grounding": content(whole / "metrics.json")["synthetic_grounding"]
    }


def test_another_plan_base_or_conversation_wants_another_folder(
    whole: Path, asked: list[str], talks: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(talks.read_text().splitlines()[0])
    for changed, place in (
        ("clues.margin=1.0", "clues.margin"),
        ("base=null", "base"),
        (f"conversations={other}", "conversations.count"),
    ):
        with pytest.raises(UserError, match=rf"holds answers of another evaluation: .*{place}.* differ"):
            evaluated(whole, [*asked, changed])


def test_what_cannot_be_is_said_before_a_model_is_loaded(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VideoPolicy, "__init__", None)  # whoever loads one fails otherwise
    qa = ["benchmark=[synthetic_grounding,synthetic_qa]", "clues.rounds=1"]
    for overrides, message in (
        (qa, r"clues=1: the answers of synthetic_qa \(qa\) name no times"),
        ([*GROUNDING, f"base={tmp_path / 'none'}"], r"base=.*none: .*no model found"),
        ([*GROUNDING, "conversations=none.jsonl"], r"conversations=none\.jsonl: there is no such file"),
    ):
        with pytest.raises(UserError, match=message) as error:
            evaluated(tmp_path, settings(world, *overrides))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "manifest.json").exists()


def test_in_half_precision_all_of_it_runs(asked: list[str], tmp_path: Path) -> None:
    more = ["trainer.precision=bf16-true", "base=null", "evaluation.limit=2", "evaluation.examples=0"]
    found = evaluated(tmp_path, [*asked, *more])
    assert found["synthetic_grounding"]["looks"]["per_question"] > 1
    assert found["conversations"]["unscored"] == 0


@pytest.mark.slow
def test_two_ranks_write_the_same_results_to_the_byte(whole: Path, asked: list[str], tmp_path: Path) -> None:
    written = [one.replace("clues.rounds=1", "clues=1") for one in asked]
    more = ["trainer.devices=2", "hydra.run.dir=run", "evaluation.examples=0"]
    done = command(tmp_path, *written, *more)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = sorted(path.name for path in (tmp_path / "run" / "parts").iterdir())
    ranks = ("00000", "00001")
    assert parts == [f"{kind}{rank}.jsonl" for kind in ("conversations", "rank") for rank in ranks]
    for name in RESULTS:
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
    assert "Checkpoint" in (tmp_path / "run" / "report.md").read_text()
