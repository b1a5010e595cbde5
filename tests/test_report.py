"""Table, report.json and report.md from measured numbers, written whole or not at all."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vcr1.config import build, build_data, load_config
from vcr1.data import TaskDataModule
from vcr1.preflight import preflight
from vcr1.records import Completion, Interval, Judgement, ParseFailure
from vcr1.report import Clock, Evaluation, Report, show_table, write_report


def evaluation(miou: float, **values: Interval | ParseFailure) -> Evaluation:
    judgements = {
        id_: Judgement(id_, Completion("", value), {"format": 1.0}, 1.0, {"iou": miou})
        for id_, value in values.items()
    }
    return Evaluation({"mIoU": miou, "format": 1.0}, judgements)


def full() -> Report:
    return Report(
        before=evaluation(0.25),
        after=evaluation(0.5),
        wrong_video=evaluation(0.125),
        baselines={"constant": {"mIoU": 0.3}, "constant_per_duration": {"mIoU": 0.31, "R@0.5": 0.2}},
        seconds={"training": {"wall": 12.4, "cpu": 20.6}},
    )


@pytest.fixture
def data(small: list[str], tmp_path: Path) -> TaskDataModule:
    cfg = load_config(["experiment=demo", *small], tmp_path)
    return build_data(cfg, preflight(cfg), build(cfg.model).encoder)


# ---------------------------------------------------------------------------------------------- report


def test_rows_come_in_order() -> None:
    rows = full().rows()
    assert list(rows) == ["before", "after", "wrong video", "constant", "constant per duration"]
    assert rows["after"] == {"mIoU": 0.5, "format": 1.0}
    assert rows["constant per duration"] == {"mIoU": 0.31, "R@0.5": 0.2}


def test_what_was_not_measured_has_no_row() -> None:
    assert list(Report(after=evaluation(0.5)).rows()) == ["after"]
    assert Report().rows() == {}


def test_json_keeps_the_measured_apart_from_the_blind() -> None:
    content = full().as_json()
    assert content == {
        "before": {"mIoU": 0.25, "format": 1.0},
        "after": {"mIoU": 0.5, "format": 1.0},
        "baselines": {
            "constant": {"mIoU": 0.3},
            "constant_per_duration": {"mIoU": 0.31, "R@0.5": 0.2},
            "wrong_video": {"mIoU": 0.125, "format": 1.0},
        },
        "seconds": {"training": {"wall": 12.4, "cpu": 20.6}},
    }
    assert Report().as_json() == {"before": None, "after": None, "baselines": {}, "seconds": {}}


def test_an_evaluation_says_what_it_measured() -> None:
    measured = evaluation(0.25, a=Interval(0, 1), b=Interval(0, 1))
    assert str(measured) == "mIoU 0.250, format 1.000 over 2 held-out samples"


# ----------------------------------------------------------------------------------------------- table


def printed(report: Report) -> list[list[str]]:
    """The cells of the printed table, line by line."""
    console = Console(record=True, width=120, file=io.StringIO())
    show_table(report, console)
    lines = [line for line in console.export_text().splitlines() if line[:1] in ("┃", "│")]
    return [[cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in lines]


def test_the_table_has_a_column_for_every_metric_and_a_row_for_every_measurement() -> None:
    assert printed(full()) == [
        ["held-out samples", "mIoU", "format", "R@0.5"],
        ["before", "0.250", "1.000", ""],
        ["after", "0.500", "1.000", ""],
        ["wrong video", "0.125", "1.000", ""],
        ["constant", "0.300", "", ""],
        ["constant per duration", "0.310", "", "0.200"],
    ]


def test_nothing_measured_prints_nothing() -> None:
    assert printed(Report()) == []


# ----------------------------------------------------------------------------------------------- files


def metrics_csv(folder: Path) -> None:
    (folder / "metrics.csv").write_text("step,train/grounding/iou,val/grounding/mIoU\n0,0.2,\n1,0.4,0.3\n")


def test_a_report_s_files(data: TaskDataModule, tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    folder.mkdir()
    metrics_csv(folder)
    report = full()
    answers: dict[str, Interval | ParseFailure] = {s.id: s.target for s in data.samples("val")}
    report.before, report.after = evaluation(0.25, **answers), evaluation(0.5, **answers)
    write_report(report, folder, data, 3, {"seed": 5, "steps": 2})
    assert sorted(path.name for path in folder.iterdir()) == [
        "learning_curve.png",
        "metrics.csv",
        "report.json",
        "report.md",
        "timelines.png",
    ]
    stored = json.loads((folder / "report.json").read_text())
    assert stored == report.as_json() | {"seed": 5, "steps": 2}
    assert (folder / "report.md").read_text() == (
        "# run-1\n"
        "\n"
        "| held-out samples | mIoU | format | R@0.5 |\n"
        "|---|---|---|---|\n"
        "| before | 0.250 | 1.000 |  |\n"
        "| after | 0.500 | 1.000 |  |\n"
        "| wrong video | 0.125 | 1.000 |  |\n"
        "| constant | 0.300 |  |  |\n"
        "| constant per duration | 0.310 |  | 0.200 |\n"
        "\n"
        "![learning_curve.png](learning_curve.png)\n"
        "![timelines.png](timelines.png)\n"
        "\n"
        "- training: 12 s, 21 CPU s\n"
    )


def test_without_metrics_or_answers_there_are_no_pictures(data: TaskDataModule, tmp_path: Path) -> None:
    write_report(Report(), tmp_path, data, 8, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]
    assert "![" not in (tmp_path / "report.md").read_text()


def test_without_clips_there_is_no_timeline(data: TaskDataModule, tmp_path: Path) -> None:
    answers: dict[str, Interval | ParseFailure] = {s.id: s.target for s in data.samples("val")}
    write_report(Report(after=evaluation(0.5, **answers)), tmp_path, data, 0, {})
    assert not (tmp_path / "timelines.png").exists()


def drawn(
    data: TaskDataModule, folder: Path, report: Report, clips: int, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """Question and intervals of the clips that a report draws."""
    entries: list[Any] = []
    monkeypatch.setattr("vcr1.report.timelines", lambda found, path: entries.extend(found))
    write_report(report, folder, data, clips, {})
    return [{"question": entry.question, **entry.intervals} for entry in entries]


def test_timelines_show_different_clips_and_missing_answers(
    data: TaskDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = data.samples("val")  # two questions about each clip
    before = evaluation(0.1, **{sample.id: ParseFailure("no_answer") for sample in samples})
    after = evaluation(0.2, **{sample.id: Interval(1.0, 2.0) for sample in samples})
    expected = [
        {"question": sample.query, "truth": sample.target, "before": None, "after": Interval(1.0, 2.0)}
        for sample in (samples[0], samples[2], samples[4])
    ]
    assert drawn(data, tmp_path, Report(before=before, after=after), 3, monkeypatch) == expected
    assert [list(clip) for clip in drawn(data, tmp_path, Report(after=after), 1, monkeypatch)] == [
        ["question", "truth", "after"]
    ]


def test_timelines_leave_out_lost_videos_and_what_was_not_asked(
    data: TaskDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = data.samples("val")
    answers: dict[str, Interval | ParseFailure] = {sample.id: Interval(0, 1) for sample in samples[:6]}
    answers |= {sample.id: ParseFailure("lost_video") for sample in samples[:2]}
    clips = drawn(data, tmp_path, Report(after=evaluation(0.2, **answers)), 8, monkeypatch)
    assert [clip["question"] for clip in clips] == [samples[2].query, samples[4].query]


def test_a_report_that_fails_leaves_the_older_one(
    data: TaskDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.json").write_text("old")
    write_text = Path.write_text

    def full_disk(path: Path, text: str, **arguments: Any) -> int:
        write_text(path, text[:10], **arguments)
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_report(full(), tmp_path, data, 0, {})
    monkeypatch.undo()
    assert (tmp_path / "report.json").read_text() == "old"
    write_report(full(), tmp_path, data, 0, {})
    assert json.loads((tmp_path / "report.json").read_text())["after"]["mIoU"] == 0.5


# ----------------------------------------------------------------------------------------------- clock

BUSY = "import time\nwhile time.process_time() < 0.4: pass"


def test_the_clock_counts_a_child_s_cpu() -> None:
    clock = Clock()
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    used = clock.read()
    assert 0.4 <= used["cpu"] <= used["wall"] + 0.3


def test_the_clock_counts_this_process_and_tells_waiting_from_working() -> None:
    clock = Clock()
    time.sleep(0.3)
    waited = clock.read()
    assert waited["wall"] >= 0.3
    assert waited["cpu"] < 0.25
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert clock.read()["cpu"] >= waited["cpu"] + 0.29


def test_a_run_without_held_out_samples_has_no_table(data: TaskDataModule, tmp_path: Path) -> None:
    report = Report(seconds={"training": {"wall": 1.0, "cpu": 2.0}})
    write_report(report, tmp_path, data, 8, {})
    assert (tmp_path / "report.md").read_text() == f"# {tmp_path.name}\n\n\n- training: 1 s, 2 CPU s\n"
