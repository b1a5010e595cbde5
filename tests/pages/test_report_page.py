"""The report of an evaluation, looked at in Chromium."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from vcr1.config.choices import conf_dir
from vcr1.evaluate import evaluate
from vcr1.evaluation import AnswerRecord, Benchmark, write_evaluation_report
from vcr1.evaluation.output import number, write_results
from vcr1.readers import read_synthetic
from vcr1.reporting.pictures import COLORS
from vcr1.tasks import GroundingTask, QATask, Task, TrackingTask
from vcr1.video import FrameBudget

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> $x_{ & "</dd>"'
TRUE_BOXES = f"<answer>[{', '.join(['[0.1, 0.1, 0.4, 0.4]'] * 8)}]</answer>"
TASKS: list[tuple[Task, str, str]] = [
    (GroundingTask(), "mIoU", "<answer>1.0 to 2.0</answer>"),
    (TrackingTask(), "AO", TRUE_BOXES),
    (QATask(), "accuracy", "<answer>A</answer>"),
]

RUN = [
    "model=tiny",
    "trainer=cpu",
    "threads=1",
    "benchmark=[synthetic_grounding]",
    "benchmarks.synthetic_grounding.clips=6",
    "data.loader.num_workers=0",
    "trainer.enable_progress_bar=false",
]

# How many pixels of a picture have each of some colours.
COUNT = """(image, colors) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    const {data} = pen.getImageData(0, 0, canvas.width, canvas.height);
    return colors.map(([r, g, b]) => {
        let count = 0;
        for (let at = 0; at < data.length; at += 4)
            count += data[at] == r && data[at + 1] == g && data[at + 2] == b;
        return count;
    });
}"""


def answers_of(one: Benchmark, metric: str, text: str) -> list[AnswerRecord]:
    """Four answers, one of them hostile, in two categories."""
    texts = (text, "", HOSTILE, text)  # the third is the middle one
    found = []
    for place, (sample, said) in enumerate(zip(one.samples, texts, strict=True)):
        scores = {metric: place / 10} | ({"mIoU": place / 10} if metric == "AO" else {})
        failure = None if said == text else "no_answer"
        prompt = one.task.prompt(sample).text
        category = f"<b>{'even' if place % 2 == 0 else 'odd'}</b>" if metric == "accuracy" else None
        found.append(
            AnswerRecord(one.name, sample.id, 0, prompt, said, None, "B", scores, failure, category, 0.0)
        )
    return found


@pytest.fixture(scope="module")
def report(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report about grounding, tracking and multiple choice."""
    folder = tmp_path_factory.mktemp("evaluation")
    benchmarks, answers = [], []
    for task, metric, text in TASKS:
        annotations = read_synthetic(str(world / "synthetic"), "val", 6, seed=2, task=task.name, limit=4)
        budget = FrameBudget(min_pixels=784, total_pixels=784)
        benchmarks.append(Benchmark(f"own_{task.name}", task.name, "val", task, annotations, budget))
        answers += answers_of(benchmarks[-1], metric, text)
    metrics = write_results(folder, answers)
    write_evaluation_report(folder, benchmarks, answers, metrics, examples=1)
    return folder


def cells(watched: Any, section: int, table: int) -> list[list[str]]:
    """The rows of a section's table."""
    rows = watched.page.locator(f"#s{section} table").nth(table).locator("tr").all()
    return [row.locator("td, th").all_inner_texts() for row in rows]


def colors(*names: str) -> list[list[int]]:
    return [list(bytes.fromhex(COLORS[name][1:])) for name in names]


def test_the_page_shows_the_metrics_and_asks_nobody(report: Path, look: Callable[..., Any]) -> None:
    watched = look((report / "report.html").as_uri())
    page = watched.page
    page.wait_for_load_state("networkidle")
    assert watched.requests == [(report / "report.html").as_uri()]
    assert watched.errors == []
    assert page.title() == page.locator("h1").inner_text() == f"Evaluation {report.name}"
    names = [f"own_{task.name}" for task, _, _ in TASKS]
    assert page.locator("h2").all_inner_texts() == [f"{name}: 4 samples" for name in names]
    metrics = json.loads((report / "metrics.json").read_text())
    for section, name in enumerate(names):
        found = cells(watched, section, 0)
        assert found[0] == ["metric", "value", "95 %"]
        assert [row[:2] for row in found[1:]] == [
            [metric, number(one["value"])] for metric, one in metrics[name]["metrics"].items()
        ]
    assert cells(watched, 0, 0)[1][1] == "0.150"  # of 0, 0.1, 0.2 and 0.3
    assert cells(watched, 0, 1) == [["reason", "answers"], ["no_answer", "2"]]
    assert cells(watched, 2, 2) == [
        ["category", "samples", "accuracy"],
        ["<b>even</b>", "2", "0.100"],
        ["<b>odd</b>", "2", "0.200"],
    ]
    headings: Sequence[str] = page.locator("#s1 h3").all_inner_texts()
    assert headings[2:] == ["IoU", "Answers: best", "Answers: median", "Answers: worst"]


def test_the_report_of_a_run(world: Path, tmp_path: Path, look: Callable[..., Any]) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("evaluate", overrides=[f"run_dir={tmp_path}/tiny", f"data.root={world}", *RUN])
    (tmp_path / "tiny").mkdir()
    evaluate(cfg)
    watched = look((tmp_path / "tiny" / "report.html").as_uri())
    metrics = json.loads((tmp_path / "tiny" / "metrics.json").read_text())["synthetic_grounding"]
    assert watched.page.locator("h2").inner_text() == "synthetic_grounding: 12 samples"
    value = number(metrics["metrics"]["mIoU"]["value"])
    assert cells(watched, 0, 0)[1][:2] == ["mIoU", value]
    scores = [float(text) for text in watched.page.locator("dd:nth-of-type(2)").all_inner_texts()]
    assert len(scores) == 9  # three of each kind: the best, the middle, the worst first
    assert scores[:3] == sorted(scores[:3], reverse=True)
    assert scores[6:] == sorted(scores[6:])
    assert watched.errors == []
    watched.show("report", height=1000)


def test_pictures_have_loaded_and_show_times_and_boxes(report: Path, look: Callable[..., Any]) -> None:
    page = look((report / "report.html").as_uri()).page
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) == 5 + 5 + 3  # two charts where there is an IoU; best, median, worst
    assert min(widths) > 400
    for section in (0, 1):  # bars, and boxes
        drawn = page.locator(f"#s{section} .strips img").first.evaluate(COUNT, colors("truth", "answer"))
        assert min(drawn) > 30  # lines of one smoothed pixel have few of just their colour
    best = page.locator("#s1 dl").first
    assert best.locator("dt").all_inner_texts() == ["id", "AO", "question", "answer", "truth"]
    assert best.locator("dd").all_inner_texts()[1] == "0.300"
    assert best.locator("dd").all_inner_texts()[3] == TRUE_BOXES


def test_hostile_text_is_text(report: Path, look: Callable[..., Any]) -> None:
    page = look((report / "report.html").as_uri()).page
    said = page.locator("#s0 dl", has_text="window.hacked").locator("dd").nth(3)
    assert said.inner_text() == f"{HOSTILE} (no_answer)"
    assert page.evaluate("window.hacked") is None
    assert page.locator("script, [onerror]").count() == 0


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_can_be_read_on_a_narrow_screen(report: Path, look: Callable[..., Any], dark: bool) -> None:
    watched = look((report / "report.html").as_uri(), width=400, dark=dark)
    assert watched.sideways() <= 0
    paper, ink = (
        watched.page.evaluate(f"getComputedStyle(document.body).{name}.match(/[0-9]+/g).map(Number)")
        for name in ("backgroundColor", "color")
    )
    assert min(paper) > 240
    assert max(ink) < 64
    smallest = watched.page.eval_on_selector_all(
        "td, dd, figcaption", "all => Math.min(...all.map(one => parseFloat(getComputedStyle(one).fontSize)))"
    )
    assert smallest >= 14
