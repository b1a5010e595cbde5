"""The report: tables, pictures, and text from outside that stays text."""

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest

from vcr1.evaluation import AnswerRecord, Benchmark, figures, metrics_of, write_evaluation_report
from vcr1.evaluation.figures import chosen_examples, draw_examples
from vcr1.readers import read_synthetic
from vcr1.records import Interval
from vcr1.reporting.pictures import TimelineEntry
from vcr1.tasks import GroundedQATask, GroundingTask, QATask, Task, TrackingTask
from vcr1.video import FrameBudget


def answered(number: int, iou: float, text: str, failure: str | None = None) -> AnswerRecord:
    scores = {"mIoU": iou, "R@0.5": float(iou >= 0.5)}
    return AnswerRecord("b", f"s{number}", 0, "When?", text, None, None, scores, failure, None, 0.0)


def test_examples_are_the_best_the_middle_and_the_worst() -> None:
    answers = [answered(number, number / 10, "") for number in range(10)]
    found = chosen_examples(answers, "mIoU", 2)
    assert {kind: [one.id for one in chosen] for kind, chosen in found.items()} == {
        "best": ["s9", "s8"],
        "median": ["s5", "s4"],
        "worst": ["s0", "s1"],
    }
    few = chosen_examples(answers[:3], "mIoU", 2)
    assert sorted(one.id for chosen in few.values() for one in chosen) == ["s0", "s1", "s2"]


def test_the_page_needs_no_other_file(world: Path, tmp_path: Path) -> None:
    annotations = read_synthetic(str(world / "synthetic"), "val", 6, seed=2, limit=4)
    budget = FrameBudget(min_pixels=784, total_pixels=784)
    one = Benchmark("b", "grounding", "val", GroundingTask(), annotations, budget)
    ids = [sample.id for sample in annotations.samples]
    texts = [
        "<answer>1.0 to 2.0</answer>",
        "<script>alert(1)</script> | x",
        "",
        "<answer>0.0 to 4.0</answer>",
    ]
    answers = [
        AnswerRecord(
            "b", id_, 0, "When?", text, None, None, {"mIoU": 0.1 * n}, None if text else "no_answer", None, 0
        )
        for n, (id_, text) in enumerate(zip(ids, texts, strict=True))
    ]
    write_evaluation_report(tmp_path, [one], answers, {"b": metrics_of(answers)}, examples=1)
    page, text = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert page.count("data:image/png;base64,") == 5  # histogram, curve, best, median, worst
    assert "<script>" not in page + text
    assert '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:;' in page
    assert "src=" not in page.replace('src="data:', "")
    assert "| mIoU | 0.150 |" in text
    assert "| no_answer | 1 |" in text


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (TrackingTask(), f"<answer>[{', '.join(['[0.1, 0.1, 0.4, 0.4]'] * 8)}]</answer>"),
        (QATask(), "<answer>A</answer>"),
        (GroundedQATask(), "<answer>A</answer><glue>[(1.0, 2.0)]</glue>"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_answers_of_every_kind_are_drawn(task: Task, text: str, world: Path, tmp_path: Path) -> None:
    annotations = read_synthetic(str(world / "synthetic"), "val", 6, seed=2, task=task.name, limit=2)
    budget = FrameBudget(min_pixels=784, total_pixels=784)
    one = Benchmark("b", task.name, "val", task, annotations, budget)
    ids = [sample.id for sample in annotations.samples]
    answers = [replace(answered(0, 0.5, given), id=id_) for given, id_ in zip((text, "?"), ids, strict=True)]
    gone = replace(answered(0, 0.0, text), id="lost with its video")
    assert draw_examples(one, [*answers, gone], tmp_path / "drawn.png")
    assert matplotlib.image.imread(tmp_path / "drawn.png").std() > 0.05  # not blank
    assert not draw_examples(one, [gone], tmp_path / "nothing.png")


def test_an_answer_about_a_part_is_drawn_where_it_lies_in_the_video(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations = read_synthetic(str(world / "synthetic"), "val", 6, seed=2, limit=1)
    budget = FrameBudget(min_pixels=784, total_pixels=784)
    one = Benchmark("b", "grounding", "val", GroundingTask(), annotations, budget)
    (sample,) = annotations.samples
    drawn: list[TimelineEntry] = []
    monkeypatch.setattr(figures, "timelines", lambda entries, path: drawn.extend(entries))
    looks = [{"part": [0.0, 8.0]}, {"part": [3.0, 7.0]}]
    answer = replace(answered(0, 0.5, "<answer>1.0 to 2.5</answer>"), id=sample.id)
    for trace, expected in ((None, (1.0, 2.5)), ({"looks": looks, "decided": 1}, (4.0, 5.5))):
        assert draw_examples(one, [replace(answer, trace=trace)], tmp_path / "drawn.png")
        assert drawn.pop().spans["answer"] == (Interval(*expected),)
