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

from vcr1.config.building import build
from vcr1.config.entry import load_config
from vcr1.config.preflight import preflight
from vcr1.config.sources import build_data
from vcr1.data import MixtureDataModule
from vcr1.records import Completion, Interval, Judgement, ParseFailure, Sample
from vcr1.reporting.report import (
    Clock,
    Evaluation,
    Report,
    baselines,
    show_table,
    write_report,
)


def judged(value: Any, **answers: Any) -> dict[str, Judgement]:
    return {
        id_: Judgement(
            id_,
            Completion("", answer),
            {"format": 1.0},
            1.0,
            {"iou": value},
            failure=getattr(answer, "reason", None),
        )
        for id_, answer in answers.items()
    }


def evaluation(miou: float, **answers: Any) -> Evaluation:
    """Of grounding alone."""
    return Evaluation({"grounding": {"mIoU": miou, "format": 1.0}}, {"grounding": judged(miou, **answers)})


def full() -> Report:
    return Report(
        before=evaluation(0.25),
        after=evaluation(0.5),
        wrong_video=evaluation(0.125),
        baselines={
            "grounding": {"constant": {"mIoU": 0.3}, "constant_per_duration": {"mIoU": 0.31, "R@0.5": 0.2}}
        },
        seconds={"training": {"wall": 12.4, "cpu": 20.6}},
    )


def two_tasks() -> Report:
    """Two tasks, of which tracking had no other video of the same length."""
    both = {"grounding": {"mIoU": 0.5}, "tracking": {"AO": 0.25, "SR@0.5": 0.125}}
    return Report(
        after=Evaluation(both, {"grounding": {}, "tracking": {}}),
        wrong_video=Evaluation({"grounding": {"mIoU": 0.125}}, {"grounding": {}}),
        baselines={"grounding": {"constant": {"mIoU": 0.3}}, "tracking": {"first_box": {"AO": 0.2}}},
    )


def data_of(folder: Path, *overrides: str) -> MixtureDataModule:
    cfg = load_config(["experiment=demo", *overrides], folder)
    return build_data(cfg, preflight(cfg), build(cfg.model).encoder)


@pytest.fixture
def data(small: list[str], tmp_path: Path) -> MixtureDataModule:
    return data_of(tmp_path, *small)


@pytest.fixture
def mixture(small: list[str], tmp_path: Path) -> MixtureDataModule:
    return data_of(tmp_path, *small, "task=grounding+tracking")


def held_out(data: MixtureDataModule, task: str = "grounding") -> list[Sample]:
    return data.parts[task].samples("val")


# ---------------------------------------------------------------------------------------------- report


def test_rows_come_in_order() -> None:
    rows = full().rows("grounding")
    assert list(rows) == ["before", "after", "wrong video", "constant", "constant per duration"]
    assert rows["after"] == {"mIoU": 0.5, "format": 1.0}
    assert rows["constant per duration"] == {"mIoU": 0.31, "R@0.5": 0.2}


def test_what_was_not_measured_has_no_row() -> None:
    assert list(Report(after=evaluation(0.5)).rows("grounding")) == ["after"]
    assert Report().rows("grounding") == {}
    assert Report().tasks == []


def test_each_task_has_its_own_rows() -> None:
    report = two_tasks()
    assert report.tasks == ["grounding", "tracking"]
    assert report.rows("tracking") == {"after": {"AO": 0.25, "SR@0.5": 0.125}, "first box": {"AO": 0.2}}
    assert list(report.rows("grounding")) == ["after", "wrong video", "constant"]


def test_json_keeps_the_measured_apart_from_the_blind() -> None:
    content = full().as_json()
    assert content == {
        "before": {"grounding": {"mIoU": 0.25, "format": 1.0}},
        "after": {"grounding": {"mIoU": 0.5, "format": 1.0}},
        "baselines": {
            "grounding": {
                "constant": {"mIoU": 0.3},
                "constant_per_duration": {"mIoU": 0.31, "R@0.5": 0.2},
                "wrong_video": {"mIoU": 0.125, "format": 1.0},
            }
        },
        "seconds": {"training": {"wall": 12.4, "cpu": 20.6}},
    }
    assert Report().as_json() == {"before": None, "after": None, "baselines": {}, "seconds": {}}
    assert two_tasks().as_json()["baselines"] == {
        "grounding": {"constant": {"mIoU": 0.3}, "wrong_video": {"mIoU": 0.125}},
        "tracking": {"first_box": {"AO": 0.2}},
    }


def test_writing_the_json_leaves_the_report_as_it_is() -> None:
    report = full()
    assert report.as_json() == report.as_json()
    assert list(report.baselines["grounding"]) == ["constant", "constant_per_duration"]


def test_an_evaluation_says_what_it_measured() -> None:
    measured = evaluation(0.25, a=Interval(0, 1), b=Interval(0, 1))
    assert str(measured) == "grounding: mIoU 0.250, format 1.000 over 2 held-out samples"
    both = Evaluation({"a": {"x": 0.5}, "b": {"y": 1.0}}, {"a": judged(0.5, one=None), "b": {}})
    assert str(both) == "a: x 0.500 over 1 held-out samples; b: y 1.000 over 0 held-out samples"


def test_the_blind_answer_the_same_samples(mixture: MixtureDataModule) -> None:
    # Of two grounding samples one is answered; their blind scores are those of it alone.
    first, second = held_out(mixture)[:2]
    found = baselines(mixture, evaluation(0.5, **{first.id: Interval(0, 1)}))
    assert list(found) == ["grounding"]
    part = mixture.parts["grounding"]
    assert found["grounding"] == part.task.baselines(part.samples("train"), [first])
    tracked = {sample.id: sample.target for sample in held_out(mixture, "tracking")}
    both = Evaluation({}, {"grounding": judged(1.0, **{second.id: None}), "tracking": judged(1.0, **tracked)})
    found = baselines(mixture, both)
    assert {name: set(lines) for name, lines in found.items()} == {
        "grounding": {"constant", "constant_per_duration"},
        "tracking": {"first_box", "constant"},
    }
    assert 0 < found["tracking"]["first_box"]["AO"] < 1


# ----------------------------------------------------------------------------------------------- table


def printed(report: Report) -> list[list[str]]:
    """The cells of the printed table, line by line."""
    console = Console(record=True, width=120, file=io.StringIO())
    show_table(report, console)
    lines = [line for line in console.export_text().splitlines() if line[:1] in ("┃", "│")]
    return [[cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in lines]


def test_the_table_has_a_column_for_every_metric_and_a_row_for_every_measurement() -> None:
    assert printed(full()) == [
        ["grounding, held out", "mIoU", "format", "R@0.5"],
        ["before", "0.250", "1.000", ""],
        ["after", "0.500", "1.000", ""],
        ["wrong video", "0.125", "1.000", ""],
        ["constant", "0.300", "", ""],
        ["constant per duration", "0.310", "", "0.200"],
    ]


def test_each_task_has_a_table_of_its_own() -> None:
    assert printed(two_tasks()) == [
        ["grounding, held out", "mIoU"],
        ["after", "0.500"],
        ["wrong video", "0.125"],
        ["constant", "0.300"],
        ["tracking, held out", "AO", "SR@0.5"],
        ["after", "0.250", "0.125"],
        ["first box", "0.200", ""],
    ]


def test_nothing_measured_prints_nothing() -> None:
    assert printed(Report()) == []


# ----------------------------------------------------------------------------------------------- files


def metrics_csv(folder: Path) -> None:
    (folder / "metrics.csv").write_text("step,train/grounding/iou,val/grounding/mIoU\n0,0.2,\n1,0.4,0.3\n")


def test_a_report_s_files(data: MixtureDataModule, tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    folder.mkdir()
    metrics_csv(folder)
    report = full()
    answers = {sample.id: sample.target for sample in held_out(data)}
    report.before, report.after = evaluation(0.25, **answers), evaluation(0.5, **answers)
    write_report(report, folder, data, 3, {"seed": 5, "steps": 2})
    assert sorted(path.name for path in folder.iterdir()) == [
        "answers.png",
        "learning_curve.png",
        "metrics.csv",
        "report.json",
        "report.md",
    ]
    stored = json.loads((folder / "report.json").read_text())
    assert stored == report.as_json() | {"seed": 5, "steps": 2}
    assert (folder / "report.md").read_text() == (
        "# run-1\n"
        "\n"
        "| grounding, held out | mIoU | format | R@0.5 |\n"
        "|---|---|---|---|\n"
        "| before | 0.250 | 1.000 |  |\n"
        "| after | 0.500 | 1.000 |  |\n"
        "| wrong video | 0.125 | 1.000 |  |\n"
        "| constant | 0.300 |  |  |\n"
        "| constant per duration | 0.310 |  | 0.200 |\n"
        "\n"
        "![learning_curve.png](learning_curve.png)\n"
        "![answers.png](answers.png)\n"
        "\n"
        "- training: 12 s, 21 CPU s\n"
    )


def test_without_metrics_or_answers_there_are_no_pictures(data: MixtureDataModule, tmp_path: Path) -> None:
    write_report(Report(), tmp_path, data, 8, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]
    assert "![" not in (tmp_path / "report.md").read_text()


def test_without_clips_there_are_no_answers(data: MixtureDataModule, tmp_path: Path) -> None:
    answers = {sample.id: sample.target for sample in held_out(data)}
    write_report(Report(after=evaluation(0.5, **answers)), tmp_path, data, 0, {})
    assert not (tmp_path / "answers.png").exists()


def drawn(
    data: MixtureDataModule, folder: Path, report: Report, clips: int, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """Question and spans of the clips that a report draws."""
    entries: list[Any] = []
    monkeypatch.setattr("vcr1.reporting.report.timelines", lambda found, path: entries.extend(found))
    write_report(report, folder, data, clips, {})
    return [{"question": entry.question, **entry.spans} for entry in entries]


def test_timelines_show_different_clips_and_missing_answers(
    data: MixtureDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = held_out(data)  # two questions about each clip
    before = evaluation(0.1, **{sample.id: ParseFailure("no_answer") for sample in samples})
    after = evaluation(0.2, **{sample.id: Interval(1.0, 2.0) for sample in samples})
    expected = [
        {"question": sample.query, "truth": (sample.target,), "before": (), "after": (Interval(1.0, 2.0),)}
        for sample in (samples[0], samples[2], samples[4])
    ]
    assert drawn(data, tmp_path, Report(before=before, after=after), 3, monkeypatch) == expected
    assert [list(clip) for clip in drawn(data, tmp_path, Report(after=after), 1, monkeypatch)] == [
        ["question", "truth", "after"]
    ]


def test_timelines_leave_out_lost_videos_and_what_was_not_asked(
    data: MixtureDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = held_out(data)
    answers: dict[str, Any] = {sample.id: Interval(0, 1) for sample in samples[:6]}
    answers |= {sample.id: ParseFailure("lost_video") for sample in samples[:2]}
    clips = drawn(data, tmp_path, Report(after=evaluation(0.2, **answers)), 8, monkeypatch)
    assert [clip["question"] for clip in clips] == [samples[2].query, samples[4].query]


def test_the_pictures_of_several_tasks_bear_their_names(mixture: MixtureDataModule, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.csv").write_text("step,train/grounding/iou,train/tracking/iou\n0,0.2,0.3\n")
    answers = {
        name: judged(0.5, **{sample.id: sample.target for sample in held_out(mixture, name)})
        for name in mixture.parts
    }
    scores = {"grounding": {"mIoU": 0.5}, "tracking": {"AO": 0.25}}
    write_report(Report(after=Evaluation(scores, answers)), folder, mixture, 2, {})
    pictures = [
        "learning_curve_grounding.png",
        "answers_grounding.png",
        "learning_curve_tracking.png",
        "answers_tracking.png",
    ]
    assert sorted(path.name for path in folder.glob("*.png")) == sorted(pictures)
    text = (folder / "report.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("![")] == [
        f"![{one}]({one})" for one in pictures
    ]
    assert text.index("| grounding, held out | mIoU |") < text.index("| tracking, held out | AO |")


def test_tracks_show_the_asked_frames_and_every_answer_s_boxes(
    mixture: MixtureDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[Any] = []
    monkeypatch.setattr("vcr1.reporting.report.tracks", lambda found, path: entries.extend(found))
    first, second = held_out(mixture, "tracking")[:2]
    answers = {first.id: first.target, second.id: ParseFailure("wrong_count")}
    after = Evaluation({"tracking": {"AO": 0.5}}, {"tracking": judged(0.5, **answers)})
    write_report(Report(after=after), tmp_path, mixture, 8, {})
    assert [entry.query for entry in entries] == [first.query, second.query]
    assert [entry.boxes for entry in entries] == [
        {"truth": first.target, "after": first.target},
        {"truth": second.target, "after": ()},
    ]
    # The first and the last of the clip's frames are among the eight.
    assert {len(entry.clip.indices) for entry in entries} == {8}
    assert entries[0].clip.indices[0] == 0
    assert not (tmp_path / "answers_grounding.png").exists()  # nothing was asked


def test_answers_that_name_no_time_and_no_place_are_not_drawn(small: list[str], tmp_path: Path) -> None:
    qa = data_of(tmp_path, *small, "task=qa")
    answers = judged(1.0, **{sample.id: "A" for sample in held_out(qa, "qa")})
    write_report(Report(after=Evaluation({"qa": {"accuracy": 1.0}}, {"qa": answers})), tmp_path, qa, 8, {})
    assert [path.name for path in tmp_path.glob("*.png")] == []
    assert "![" not in (tmp_path / "report.md").read_text()


def test_a_report_that_fails_leaves_the_older_one(
    data: MixtureDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.json").write_text("old")
    write_bytes = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        write_bytes(path, content[:10])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_report(full(), tmp_path, data, 0, {})
    monkeypatch.undo()
    assert (tmp_path / "report.json").read_text() == "old"
    write_report(full(), tmp_path, data, 0, {})
    assert json.loads((tmp_path / "report.json").read_text())["after"]["grounding"]["mIoU"] == 0.5


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


def test_a_run_without_held_out_samples_has_no_table(data: MixtureDataModule, tmp_path: Path) -> None:
    report = Report(seconds={"training": {"wall": 1.0, "cpu": 2.0}})
    write_report(report, tmp_path, data, 8, {})
    assert (tmp_path / "report.md").read_text() == f"# {tmp_path.name}\n\n\n- training: 1 s, 2 CPU s\n"
