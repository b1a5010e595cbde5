"""metrics.json from answers, the journal, and the record itself."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from vcr1.errors import UserError
from vcr1.evaluation import AnswerRecord, add_answers, answer_of, metrics_of, read_answers, read_parts
from vcr1.evaluation.comparison import compare
from vcr1.evaluation.output import write_results
from vcr1.records import (
    Box,
    Completion,
    EventScores,
    GroundedAnswer,
    Interval,
    JudgedCaption,
    Judgement,
    ParseFailure,
    Sample,
)
from vcr1.tasks import CaptioningTask, GroundedQATask, GroundingTask, QATask, QualityTask, Task, TrackingTask


def answer(id_: str, scores: dict[str, float], draw: int = 0, **more: str | None) -> AnswerRecord:
    plain = {"failure": None, "category": None} | more
    return AnswerRecord("b", id_, draw, "When?", "text", [1, 2], [1, 2], scores, seconds=0.5, **plain)  # type: ignore[arg-type]


def test_metrics_are_means_over_all_samples_failures_included() -> None:
    answers = [
        answer("x", {"mIoU": 0.8, "R@0.5": 1.0}, category="short"),
        answer("y", {"mIoU": 0.4, "R@0.5": 0.0}, category="long"),
        answer("z", {"mIoU": 0.0, "R@0.5": 0.0}, category="long", failure="missing_video"),
    ]
    found = metrics_of(answers)
    assert found["samples"] == 3
    assert found["metrics"]["mIoU"]["value"] == pytest.approx(0.4)
    assert found["metrics"]["R@0.5"]["value"] == pytest.approx(1 / 3)
    assert found["categories"]["long"]["samples"] == 2
    assert found["categories"]["long"]["metrics"]["mIoU"]["value"] == pytest.approx(0.2)
    assert found["failures"] == {"missing_video": 1}


def test_several_draws_give_avg_pass_and_best() -> None:
    answers = [
        answer("x", {"mIoU": 0.2, "R@0.5": 0.0}),
        answer("x", {"mIoU": 0.6, "R@0.5": 1.0}, draw=1),
        answer("z", {"mIoU": 0.0, "R@0.5": 0.0}, failure="missing_video"),  # one answer for both draws
    ]
    values = {name: one["value"] for name, one in metrics_of(answers, draws=2)["metrics"].items()}
    expected = {"mIoU avg@2": 0.2, "mIoU best@2": 0.3, "R@0.5 avg@2": 0.25, "R@0.5 pass@2": 0.5}
    assert values == pytest.approx(expected)


SPAN, OTHER = Interval(1.0, 3.0), Interval(2.0, 3.0)
BOXES = tuple(Box(0.1 * step, 0.1, 0.1 * step + 0.3, 0.5) for step in range(2))
CASES: list[tuple[Task, Sample, Sequence[str]]] = [
    (
        GroundingTask(think=False),
        Sample("s", "v", "it", SPAN),
        ["<answer>1.0 to 3.0</answer>", "<answer>2.0 to 3.0</answer>", "never"],
    ),
    (
        TrackingTask(boxes=2, think=False),
        Sample("s", "v", "it", BOXES),
        ["<answer>[[0.0, 0.1, 0.3, 0.5], [0.1, 0.1, 0.4, 0.5]]</answer>", "nowhere"],
    ),
    (
        GroundedQATask(think=False),
        Sample("s", "v", "it", GroundedAnswer("A", (SPAN,)), options=("one", "two")),
        ["<answer>A</answer><glue>[(2.0, 3.0)]</glue>", "<answer>B</answer><glue>[(1.0, 3.0)]</glue>", "?"],
    ),
    (
        QATask(think=False),
        Sample("s", "v", "it", "A", options=("one", "two"), extra={"category": "c"}),
        ["<answer>A</answer>", "<answer>B</answer>", "?"],
    ),
    (
        QualityTask(think=False),
        Sample("s", "v", "it", "one", options=("one", "two")),
        ["<answer>one</answer>", "<answer>two</answer>", "?"],
    ),
    (
        CaptioningTask(think=False),
        Sample("s", "v", "it", "a red circle appears."),
        ["<answer>a red circle appears.</answer>", "<answer>nothing at all.</answer>", "?"],
    ),
]


@pytest.mark.parametrize(("task", "sample", "texts"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_every_tasks_metrics_are_means_of_what_single_samples_score(
    task: Task, sample: Sample, texts: Sequence[str]
) -> None:
    samples = [replace(sample, id=f"s{number}") for number in range(len(texts))]
    judgements = task.judge(texts, samples).result()
    pairs = zip(judgements, samples, strict=True)
    found = metrics_of([answer_of("b", task, judgement, own) for judgement, own in pairs])
    whole = {name: value for name, value in task.summarise(judgements).items() if "/" not in name}
    assert {name: one["value"] for name, one in found["metrics"].items()} == pytest.approx(whole)
    assert len(set(whole.values()) - {0.0, 1.0}) > 0  # something is neither all nor nothing


def test_values_are_written_as_json() -> None:
    task, sample = GroundedQATask(think=False), CASES[2][1]
    (judgement,) = task.judge(["<answer>B</answer>"], [sample]).result()
    found = json.loads(answer_of("b", task, judgement, sample, seconds=1.23456).line())
    assert found["value"] == {"letter": "B", "intervals": {"failure": "no_glue"}}
    assert found["target"] == {"letter": "A", "intervals": [[1.0, 3.0]]}
    assert (found["id"], found["draw"], found["seconds"]) == ("s", 0, 1.235)
    caption = JudgedCaption("a", EventScores(1.0, math.nan))
    unjudged = Judgement(
        "s", Completion("a", caption), {"format": 1.0, "event_recall": math.nan}, math.nan, {}
    )
    assert unjudged.unjudged
    assert isinstance(ParseFailure("x"), ParseFailure)


def test_the_journal_survives_a_torn_line(tmp_path: Path) -> None:
    add_answers(tmp_path, 0, [answer("x", {"mIoU": 0.5}), answer("y", {"mIoU": math.nan})])
    part = tmp_path / "parts" / "rank00000.jsonl"
    part.write_bytes(part.read_bytes() + b'{"benchmark": "b", "id": "z", "dr')
    add_answers(tmp_path, 0, [answer("w", {"mIoU": 1.0})])
    add_answers(tmp_path, 1, [answer("x", {"mIoU": 0.5})])
    found = read_parts(tmp_path)
    assert sorted(id_ for _, id_, _ in found) == ["w", "x", "y"]
    assert math.isnan(found["b", "y", 0].scores["mIoU"])
    assert found["b", "x", 0] == answer("x", {"mIoU": 0.5})


def test_a_success_stands_whatever_failed_before_it(tmp_path: Path) -> None:
    failed = answer("x", {"mIoU": 0.0}, failure="not_generated")
    add_answers(tmp_path, 0, [failed])
    add_answers(tmp_path, 1, [answer("x", {"mIoU": 0.5})])
    assert read_parts(tmp_path)["b", "x", 0].scores == {"mIoU": 0.5}


def test_results_are_read_again_as_they_were(tmp_path: Path) -> None:
    answers = [answer("x", {"mIoU": 0.5}), answer("é", {"mIoU": 1.0})]
    write_results(tmp_path, answers)
    assert read_answers(tmp_path / "samples.jsonl") == answers
    with pytest.raises(UserError, match=r"none\.jsonl"):
        read_answers(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(UserError, match=r"bad.jsonl, line 1"):
        read_answers(tmp_path / "bad.jsonl")


def test_a_comparison_counts_common_samples_and_names_flips() -> None:
    first = [answer("x", {"R@0.5": 0.0}), answer("y", {"R@0.5": 1.0}), answer("gone", {"R@0.5": 1.0})]
    second = [answer("y", {"R@0.5": 0.0}), answer("x", {"R@0.5": 1.0}), answer("z", {"R@0.5": 1.0})]
    found = compare(first, second)["b"]
    assert (found["samples"], found["only_first"], found["only_second"]) == (2, 1, 1)
    assert found["flips"] == {"metric": "R@0.5", "gained": ["x"], "lost": ["y"]}
    gap = found["metrics"]["R@0.5"]
    assert (gap["first"], gap["second"], gap["difference"], gap["p"]) == (0.5, 0.5, 0.0, 1.0)
