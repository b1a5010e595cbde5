"""The report: tables, pictures, and text from outside that stays text."""

from pathlib import Path

from vcr1.evaluation import Answer, Benchmark, metrics_of, write_report
from vcr1.evaluation.figures import chosen_examples
from vcr1.readers import read_synthetic
from vcr1.tasks import GroundingTask
from vcr1.video import FrameBudget


def answered(number: int, iou: float, text: str, failure: str | None = None) -> Answer:
    scores = {"mIoU": iou, "R@0.5": float(iou >= 0.5)}
    return Answer("b", f"s{number}", 0, "When?", text, None, None, scores, failure, None, 0.0)


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
        Answer(
            "b", id_, 0, "When?", text, None, None, {"mIoU": 0.1 * n}, None if text else "no_answer", None, 0
        )
        for n, (id_, text) in enumerate(zip(ids, texts, strict=True))
    ]
    write_report(tmp_path, [one], answers, {"b": metrics_of(answers)}, examples=1)
    page, text = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert page.count("data:image/png;base64,") == 5  # histogram, curve, best, median, worst
    assert "<script>" not in page + text
    assert "src=" not in page.replace('src="data:', "")
    assert "| mIoU | 0.150 |" in text
    assert "| no_answer | 1 |" in text
