"""The check of the data, on a folder with every kind of bad file."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console

from vcr1.check import check, run_job, show_check, spread
from vcr1.config.choices import conf_dir
from vcr1.config.sources import build_task, read_annotations
from vcr1.errors import UserError
from vcr1.policy import load_encoder
from vcr1.records import VideoClip
from vcr1.video import FrameBudget, PatchGrid, read_clip, write_mp4

REAL = Path(__file__).parents[2] / "shared" / "annotations"
needs_real_annotations = pytest.mark.skipif(
    not REAL.is_dir(), reason="the real annotations are not the project's to ship"
)
BAD_VIDEOS = ("missing", "timeout", "memory", "crashed", "killed", "failed", "other frames")
BAD = {"cut": "unreadable", "empty": "unreadable", "text": "unreadable", "zero": "unreadable"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``data.root`` with annotations of good videos of 4 and 8 seconds, four bad ones and a missing one."""
    root = tmp_path_factory.mktemp("data")
    videos = root / "activitynet" / "videos"
    videos.mkdir(parents=True)
    frames = np.random.default_rng(0).integers(0, 255, (32, 64, 64, 3), np.uint8)
    write_mp4(videos / "short.mp4", frames[:16], fps=4)
    write_mp4(videos / "long.mp4", frames, fps=4)
    content = (videos / "long.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(content[: len(content) // 2])
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("the download failed: please log in\n" * 40)
    # What is left of a download without its pictures: the boxes, no stream in them.
    (videos / "zero.mp4").write_bytes(content[:32] + bytes([0, 0, 0, 8]) + b"mdat")
    entry = {"duration": 4.0, "timestamps": [[0.0, 1.0], [1.0, 4.0]], "sentences": ["one", "two"]}
    train = dict.fromkeys(("short", *BAD, "gone"), entry)
    train["long"] = {"duration": 8.0, "timestamps": [[2.0, 9.0], [5.0, 3.0]], "sentences": ["late", "back"]}
    (root / "activitynet" / "train.json").write_text(json.dumps(train))
    (root / "activitynet" / "val_2.json").write_text(json.dumps({"short": entry}))
    return root


def composed(data: Path, folder: Path, *overrides: str) -> DictConfig:
    small = ["data.video.min_pixels=784", "data.video.total_pixels=784", "check.workers=2"]
    which = ["task=[grounding]", "data=[activitynet]", "model=tiny", f"data.root={data}", f"run_dir={folder}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("check", overrides=[*which, *small, f"check.journal={folder}/journal", *overrides])


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal").read_text().splitlines()]


def test_the_report_counts_what_there_is(data: Path, tmp_path: Path) -> None:
    report = check(composed(data, tmp_path))
    assert (report["usable"], report["notes"]) == (False, [])
    train, val = report["tasks"]["grounding"]["train"], report["tasks"]["grounding"]["val"]
    assert train["source"] == str(data / "activitynet" / "train.json")
    assert (train["samples"], train["checked_samples"], train["lost_samples"]) == (11, 11, 8)
    assert train["mended"] == {"clamped_to_the_video": 1}
    assert train["dropped"] == {"missing_video": 2, "start_not_before_end": 1}
    nothing = dict.fromkeys(BAD_VIDEOS, 0)
    assert train["videos"] == {"ok": 2, "unreadable": 4, **nothing}
    assert val["videos"] == {"ok": 1, "unreadable": 0, **nothing}
    assert train["video_seconds"] == {"min": 4.0, "median": 6.0, "mean": 6.0, "p95": 8.0, "max": 8.0}
    # Five videos with targets of 1 and 3 s, one with the 6 s that are left of 7: 26 s in 11 samples.
    lengths = {"min": 1.0, "median": 3.0, "mean": 26 / 11, "p95": 6.0, "max": 6.0}
    assert train["target_seconds"] == pytest.approx(lengths)


def test_bad_videos_are_listed_with_what_they_cost(data: Path, tmp_path: Path) -> None:
    bad = check(composed(data, tmp_path))["bad"]
    assert list(bad) == ["unreadable", "left out by the reader"]
    assert [row["path"] for row in bad["left out by the reader"]] == ["gone-0", "gone-1"]
    by_name = {Path(video["path"]).stem: video for video in bad["unreadable"]}
    assert set(by_name) == set(BAD)
    assert {video["samples"] for video in by_name.values()} == {2}
    assert by_name["empty"] == {
        "path": str(data / "activitynet" / "videos" / "empty.mp4"),
        "samples": 2,
        "message": f"{data}/activitynet/videos/empty.mp4: the file is empty; fetch it again",
    }


def test_tokens_are_those_of_the_models_prompts(data: Path, tmp_path: Path) -> None:
    cfg = composed(data, tmp_path)
    tokens = check(cfg)["tasks"]["grounding"]["val"]["tokens"]
    # 4 s at 2 frames a second of 28 x 28 pixels, two frames to a token.
    assert (tokens["vision"]["min"], tokens["vision"]["max"]) == (4, 4)
    encoder, task = load_encoder("builtin:tiny"), build_task(cfg, "grounding")
    lengths = []
    for sample in read_annotations(cfg)["grounding"]["val"].samples:
        clip = read_clip(sample.video, FrameBudget(min_pixels=784, total_pixels=784), PatchGrid())
        lengths.append(encoder(task.prompt(sample), clip)["input_ids"].shape[1])
    assert (tokens["prompt"]["min"], tokens["prompt"]["max"]) == (min(lengths), max(lengths))
    assert tokens["text"]["max"] == max(lengths) - 4


def test_without_a_processor_the_clips_are_counted_alone(data: Path, tmp_path: Path) -> None:
    report = check(composed(data, tmp_path, f"model.path={tmp_path}"))
    tokens = report["tasks"]["grounding"]["train"]["tokens"]
    assert (tokens["text"], tokens["prompt"]) == (None, None)
    assert (tokens["vision"]["min"], tokens["vision"]["max"]) == (4, 8)
    assert report["notes"][0].startswith(f"the text of the prompts is not counted: model.path={tmp_path}: no")


def test_a_second_run_decodes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = check(composed(data, tmp_path))
    assert len(journal(tmp_path)) == 6  # each video once, though short.mp4 is in both splits
    monkeypatch.setattr("vcr1.video.probing.read_clip", None)  # to decode would be an error
    assert check(composed(data, tmp_path)) == first
    assert len(journal(tmp_path)) == 6
    other = check(composed(data, tmp_path, "data.video.fps=1"))  # another budget: all is tried again
    assert other["tasks"]["grounding"]["train"]["videos"]["failed"] == 6
    without = check(composed(data, tmp_path, "check.journal=null"))
    assert without["tasks"]["grounding"]["train"]["videos"]["failed"] == 6
    assert len(journal(tmp_path)) == 6


def test_a_run_that_is_resumed_decodes_the_rest(data: Path, tmp_path: Path) -> None:
    check(composed(data, tmp_path))
    lines = (tmp_path / "journal").read_text().splitlines(keepends=True)
    (tmp_path / "journal").write_text("".join(lines[:2]) + lines[2][:30])
    report = check(composed(data, tmp_path))
    assert report["tasks"]["grounding"]["train"]["videos"]["ok"] == 2
    written = (tmp_path / "journal").read_text().splitlines()
    assert len(written) == 2 + 1 + 4  # the kept ones, the torn one, the rest


def test_a_decoder_that_hangs_costs_its_video(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(source: Any, *args: Any, **kwargs: Any) -> VideoClip:
        if source.path.endswith("short.mp4"):
            time.sleep(600)
        return read_clip(source, *args, **kwargs)

    monkeypatch.setattr("vcr1.video.probing.read_clip", stuck)  # the forked processes have it too
    report = check(composed(data, tmp_path, "data.loader.decode_seconds=1"))
    path = data / "activitynet" / "videos" / "short.mp4"
    (bad,) = report["bad"]["timeout"]
    assert (bad["path"], bad["samples"]) == (str(path), 4)
    assert bad["message"].startswith(f"{path}: the decoder hangs: it did nothing for 1")
    assert report["tasks"]["grounding"]["train"]["videos"]["ok"] == 1
    assert report["tasks"]["grounding"]["val"]["video_seconds"] is None


def test_a_limit_looks_at_the_first_samples(data: Path, tmp_path: Path) -> None:
    train = check(composed(data, tmp_path, "check.limit=3"))["tasks"]["grounding"]["train"]
    assert (train["samples"], train["checked_samples"], sum(train["videos"].values())) == (11, 3, 2)


@pytest.mark.parametrize(
    "setting", ["workers=0", "workers=null", "compare=-1", "compare=0.5", "limit=0", "limit=1.5"]
)
def test_a_setting_that_makes_no_sense_is_named(data: Path, tmp_path: Path, setting: str) -> None:
    with pytest.raises(
        UserError, match=rf"^check\.{setting.split('=')[0]}=.*must be a whole number of at least"
    ):
        check(composed(data, tmp_path, f"check.{setting}"))


def test_a_fault_of_the_configuration_is_no_bad_video(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.loader\.decoder must be one of"):
        check(composed(data, tmp_path, "data.loader.decoder=opencv"))
    assert journal(tmp_path) == []


def test_the_exit_status_says_whether_all_is_usable(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as bad:
        run_job(composed(data, tmp_path))
    assert bad.value.code == 1
    assert json.loads((tmp_path / "check.json").read_text())["usable"] is False
    good = tmp_path / "good"
    good.mkdir()
    run_job(composed(data, good, "data.sources.grounding.train=null"))
    assert json.loads((good / "check.json").read_text())["usable"] is True
    assert [file.name for file in good.iterdir() if "check" in file.name] == ["check.json"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as wrong:
        run_job(composed(tmp_path, tmp_path))
    assert wrong.value.code == 2
    assert capsys.readouterr().err.startswith("vcr1: data.sources.grounding.train: annotation file ")


def test_the_table_shows_every_split(data: Path, tmp_path: Path) -> None:
    report = check(composed(data, tmp_path))
    report["bad"]["unreadable"] *= 2
    report["bad"]["unreadable"][0]["message"] = "[red]odd[/].mp4: the file is empty"
    console = Console(width=160, record=True, markup=False, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    show_check(report, console)
    text = console.export_text()
    rows = {line.split("│")[1].strip(): line.split("│")[2:4] for line in text.splitlines() if "│" in line}
    shown = {name: [cell.strip() for cell in cells] for name, cells in rows.items()}
    assert shown["samples"] == ["11", "2"]
    assert shown["dropped: missing video"] == ["2", ""]
    assert shown["videos unreadable"] == ["4", ""]
    assert shown["samples lost in all"] == ["8", ""]
    assert shown["seconds of a video: min / median / mean / max"] == [
        "4.0 / 6.0 / 6.0 / 8.0",
        "4.0 / 4.0 / 4.0 / 4.0",
    ]
    assert shown["tokens of vision: min / median / p95 / max"] == ["4 / 4 / 8 / 8", "4 / 4 / 4 / 4"]
    assert "unreadable: 8\n" in text
    assert "  [red]odd[/].mp4" in text
    assert "  and 3 more, see check.json" in text


def test_numbers_are_spread() -> None:
    assert spread([]) is None
    assert spread([3]) == {"min": 3, "median": 3, "mean": 3, "p95": 3, "max": 3}
    assert spread(range(1, 101)) == {"min": 1, "median": 50.5, "mean": 50.5, "p95": 95, "max": 100}
    assert spread([4.0, 1.0, 2.0]) == pytest.approx(
        {"min": 1, "median": 2, "mean": 7 / 3, "p95": 4, "max": 4}
    )


@needs_real_annotations
def test_a_published_file_without_its_videos_says_so(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    source = "data.sources.grounding"
    annotations = REAL / "official" / "activitynet" / "train.json"
    overrides = [f"{source}.train.annotations={annotations}", f"{source}.train.videos={tmp_path / 'videos'}"]
    with pytest.raises(
        UserError,
        match=r"0 samples; dropped \d+ \(missing video: \d+\); for example v_\w+-0: no video .* tried",
    ):
        check(composed(tmp_path, tmp_path, *overrides, f"{source}.val=null"))


def test_the_command_line(data: Path, tmp_path: Path) -> None:
    overrides = [
        "task=grounding",
        "data=[activitynet]",
        "model=tiny",
        f"data.root={data}",
        "check.journal=null",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "vcr1.check", *overrides],
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "120", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "unreadable: 4\n" in done.stdout
    assert "left out by the reader: 2\n" in done.stdout
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.glob("runs/check-*/check.json"))) == 1
