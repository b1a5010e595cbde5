"""Whole runs over data in which some files crash or hang their decoder, or do not fit their annotation."""

import csv
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluations import TINY, evaluated, rows
from hydra import compose, initialize_config_dir

from vcr1.check import check
from vcr1.config.choices import conf_dir
from vcr1.config.entry import load_config
from vcr1.predict import predict
from vcr1.records import VideoClip, VideoSource
from vcr1.train import train
from vcr1.video import read_clip, write_mp4

GOOD = ("a", "b", "c", "d")
BOUNDED = ["data.loader.decoder=pyav", "data.loader.decode_seconds=1", "data.loader.decode_memory=0.5"]
FEW_PIXELS = ["data.video.min_pixels=784", "data.video.total_pixels=784"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``data.root``: four good videos of 4 s, one that aborts its decoder and one that hangs it."""
    (tmp_path / "videos").mkdir()
    frames = np.random.default_rng(0).integers(0, 15, (16, 64, 64, 3), np.uint8)
    frames += (15 * np.arange(16, dtype=np.uint8))[:, None, None, None]  # each a little brighter
    for name in (*GOOD, "aborts", "hangs"):
        write_mp4(tmp_path / "videos" / f"{name}.mp4", frames, fps=4)
    write_rows(tmp_path, "grounding", [row(name) for name in (*GOOD, "aborts", "hangs")])

    def behave(source: VideoSource, *args: Any, **kwargs: Any) -> VideoClip:
        name = Path(source.path).stem
        with (tmp_path / "attempts").open("a") as file:
            file.write(f"{name}\n")
        if name == "aborts":
            os.abort()
        if name == "hangs":
            time.sleep(600)
        return read_clip(source, *args, **kwargs)

    monkeypatch.setattr("vcr1.video.probing.read_clip", behave)
    return tmp_path


def row(name: str, **more: Any) -> dict[str, Any]:
    common = {"id": name, "video": f"{name}.mp4", "query": "something happens", "interval": [1.0, 2.0]}
    return common | more


def write_rows(root: Path, task: str, rows: Sequence[dict[str, Any]]) -> None:
    (root / task).mkdir(exist_ok=True)
    text = "".join(json.dumps(one) + "\n" for one in rows)
    for split in ("train", "val"):
        (root / task / f"{split}.jsonl").write_text(text)


def attempts(root: Path) -> Counter[str]:
    return Counter((root / "attempts").read_text().split())


def learn(root: Path, *overrides: str) -> list[dict[str, str]]:
    """Metrics of the updates of a run in ``root/run``."""
    settings = [
        *("experiment=demo", "task=grounding", "data=jsonl", "algorithm=sft", "logger=csv", "report=none"),
        *("trainer.enable_progress_bar=false", "callbacks.progress=null", "trainer.val_check_interval=null"),
        *("trainer.limit_val_batches=0", "trainer.max_epochs=-1", "data.loader.batch_size=3"),
        *("algorithm.schedule=constant", f"data.root={root}", *FEW_PIXELS, *BOUNDED),
    ]
    train(load_config([*settings, *overrides], root / "run"))
    with (root / "run" / "metrics.csv").open(newline="") as file:
        return [one for one in csv.DictReader(file) if one.get("train/loss")]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_loses_them_and_a_resumed_run_does_not_meet_them_again(
    data: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    caplog.set_level(logging.WARNING)
    workers_of = f"data.loader.num_workers={workers}"
    # Two micro-batches of three are one pass over the six samples.
    found = learn(data, workers_of, "trainer.max_steps=2")
    assert float(found[-1]["train/lost_samples"]) == 2.0
    assert "sample aborts is lost: " in caplog.text
    assert "the decoder died (SIGABRT)" in caplog.text
    assert "sample hangs is lost: " in caplog.text
    known = [json.loads(line) for line in (data / "run" / "videos.jsonl").read_text().splitlines()]
    assert {(Path(one["path"]).stem, one["status"]) for one in known} == {
        ("aborts", "crashed"),
        ("hangs", "timeout"),
    }
    before = attempts(data)
    assert 1 <= before["aborts"] <= 2  # a decoder that had served others is given a second chance
    checkpoint = data / "run" / "checkpoints" / "last.ckpt"
    found = learn(data, workers_of, "trainer.max_steps=4", f"ckpt_path={checkpoint}")
    assert float(found[-1]["train/lost_samples"]) == 4.0
    after = attempts(data)
    assert {name: after[name] - before[name] for name in ("aborts", "hangs")} == {"aborts": 0, "hangs": 0}
    assert sum(after[name] for name in GOOD) > sum(before[name] for name in GOOD)


def test_an_evaluation_counts_them_as_unreadable(data: Path) -> None:
    entry = {"duration": 4.0, "timestamps": [[1.0, 2.0], [2.0, 3.0]], "sentences": ["one", "two"]}
    (data / "activitynet").mkdir()
    (data / "activitynet" / "videos").symlink_to(data / "videos")
    annotations = dict.fromkeys(("a", "aborts", "hangs"), entry)
    (data / "activitynet" / "val_2.json").write_text(json.dumps(annotations))
    settings = [*TINY, *BOUNDED, *FEW_PIXELS, f"data.root={data}", "benchmark=[activitynet]"]
    settings += ["data.loader.num_workers=2", "evaluation.examples=1", "data.loader.eval_batch_size=1"]
    found = evaluated(data / "run", settings)["activitynet"]
    assert (found["samples"], found["failures"]["unreadable_video"]) == (6, 4)
    assert {one["id"][:-2] for one in rows(data / "run") if one["failure"] == "unreadable_video"} == {
        "aborts",
        "hangs",
    }


def test_a_prediction_says_so_and_answers_the_rest(data: Path, tmp_path: Path) -> None:
    questions = [{"video": f"videos/{name}.mp4", "query": "what?"} for name in ("a", "aborts", "hangs")]
    file = data / "questions.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in [*questions, questions[1]]))
    which = [f"video={file}", "model=tiny", "device=cpu", "threads=1", "rollout.max_new_tokens=4"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(
            "predict", [*which, *BOUNDED, f"run_dir={tmp_path}", f"out={tmp_path / 'answers.json'}"]
        )
    report = predict(cfg)
    assert report["counts"]["failures"] == 3
    said = json.dumps(report)
    assert "the decoder died (SIGABRT)" in said
    assert "the decoder hangs: it did nothing for 1" in said
    assert attempts(data)["aborts"] <= 2


# -------------------------------------------------------------------- annotations that do not fit their video


def checked(root: Path, *overrides: str) -> dict[str, Any]:
    which = ["data=[jsonl]", "model=tiny", f"data.root={root}", f"run_dir={root / 'check'}", *FEW_PIXELS]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("check", [*which, "check.workers=1", "check.journal=null", *BOUNDED, *overrides])
    return check(cfg)


def test_frames_instead_of_seconds_are_reported_and_not_learned(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_rows(
        data,
        "grounding",
        [
            row("a"),
            row("b", interval=[45, 120]),  # frames: the video lasts 4 s
            row("c", interval=[3.0, 7.0]),  # ends 3 s behind it
            row("d", interval=[3.0, 5.5]),  # 1.5 s, as in Charades-STA
            row("a", id="short", duration=9.0),  # a download that broke off, as the annotation tells
            row("b", id="odd", duration=6.1),
        ],
    )
    report = checked(data, "task=[grounding]")
    assert report["usable"] is False
    (reason,) = report["bad"]
    assert reason == "does not fit its video"
    train = report["tasks"]["grounding"]["train"]
    assert (train["misfits"], train["lost_samples"], train["videos"]["ok"]) == (4, 4, 4)
    assert train["warnings"] == {"targets that end up to 2 s behind the video, and are not clamped": 1}
    said = {one["id"]: one["message"] for one in report["bad"][reason]}
    assert sorted(said) == ["b", "c", "odd", "short"]
    assert "the span from 45 to 120 s lies behind the end of the video, which lasts 4.00 s" in said["b"]
    assert "are these frames and not seconds?" in said["b"]
    assert "ends more than 2 s behind the end of the video" in said["c"]
    assert "lasts 4.00 s, but 9.00 s in the annotation: it is cut short or another video" in said["short"]

    caplog.set_level(logging.WARNING)
    found = learn(data, "trainer.max_steps=2", "data.loader.num_workers=0")
    assert float(found[-1]["train/lost_samples"]) == train["lost_samples"]
    for id_, sentence in said.items():
        assert sentence.replace(f"sample {id_}: ", f"sample {id_} is lost: ") in caplog.text


def test_what_training_refuses_the_check_says_in_its_words(data: Path) -> None:
    rows = [
        {"video": f"{name}.mp4", "query": "it", "boxes": [[0.1, 0.1, 0.5, 0.5]] * count}
        for name, count in (("a", 8), ("b", 3), ("c", 30))
    ]
    write_rows(data, "tracking", rows)
    report = checked(data, "task=[tracking]", "data.loader.batch_size=2")
    assert report["usable"] is False
    assert any("data.loader.batch_size=2" in sentence for sentence in report["refused"])
    # Neither as many as the 8 frames that are shown, nor as many as the 16 of the video.
    assert report["tasks"]["tracking"]["train"]["dropped"] == {"other_number_of_boxes": 2}


def test_pictures_of_other_times_are_reported(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(data, "grounding", [row("a")])
    assert checked(data, "task=[grounding]")["usable"] is True

    def shifted(source: VideoSource, *args: Any, **kwargs: Any) -> VideoClip:
        clip = read_clip(source, *args, **kwargs)
        clip.frames.copy_(clip.frames.roll(1, 0))
        return clip

    monkeypatch.setattr("vcr1.video.probing.read_clip", shifted)
    report = checked(data, "task=[grounding]")
    (bad,) = report["bad"]["other frames"]
    assert "the picture at 0.00 s is that of 3.50 s by another way of decoding" in bad["message"]
    assert checked(data, "task=[grounding]", "check.compare=0")["usable"] is True
