"""Whole evaluations with the tiny model: ranks, interruptions, failures, draws, bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluations import GROUNDING, command, evaluated, rows, settings
from transformers import BertConfig

from vcr1.errors import UserError
from vcr1.policy import VideoPolicy
from vcr1.video import build_world, write_mp4


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    evaluated(folder, settings(world, *GROUNDING))
    return folder


def test_every_sample_is_asked_once_and_all_files_are_written(whole: Path) -> None:
    answers = rows(whole)
    assert [row["id"] for row in answers] == sorted({row["id"] for row in answers})  # the annotations' order
    assert len(answers) == 12
    assert all(row["prompt"].startswith("When does") and row["completion"] for row in answers)
    metrics = json.loads((whole / "metrics.json").read_text())["synthetic_grounding"]
    assert metrics["samples"] == 12
    mean = sum(row["scores"]["mIoU"] for row in answers) / 12
    assert metrics["metrics"]["mIoU"]["value"] == pytest.approx(mean)
    assert 0.2 < mean < 1.0  # the tiny base answers most questions about right
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["benchmarks"]["synthetic_grounding"]["samples"] == 12
    assert manifest["decoding"]["temperature"] == 0
    assert len(manifest["model"]["digest"]) == 64
    assert manifest["model"]["text_after_video"] == "largest"
    for name in ("report.md", "report.html", "iou_synthetic_grounding.png", "best_synthetic_grounding.png"):
        assert (whole / name).stat().st_size > 0


def test_an_interrupted_evaluation_goes_on_and_ends_with_the_same_files(
    whole: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (whole / "parts" / "rank00000.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "parts").mkdir()
    # Killed in the middle of the second group's lines.
    (tmp_path / "parts" / "rank00000.jsonl").write_text("".join(lines[:7]) + lines[7][:40])
    (tmp_path / "manifest.json").write_bytes((whole / "manifest.json").read_bytes())
    asked = []
    rollout = VideoPolicy.rollout

    def counted(self: VideoPolicy, inputs: Any, *more: Any) -> Any:
        asked.append(len(inputs))
        return rollout(self, inputs, *more)

    monkeypatch.setattr(VideoPolicy, "rollout", counted)
    evaluated(tmp_path, settings(world, *GROUNDING))
    assert asked == [5, 2]  # the first group of five stands
    assert (tmp_path / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    timeless = [[{**row, "seconds": 0} for row in rows(folder)] for folder in (whole, tmp_path)]
    assert timeless[0] == timeless[1]


def test_a_folder_of_other_answers_is_not_gone_on_with(whole: Path, world: Path) -> None:
    with pytest.raises(UserError, match=r"decoding.max_new_tokens.* differ"):
        evaluated(whole, settings(world, *GROUNDING, "rollout.max_new_tokens=8"))


@pytest.mark.slow
def test_two_ranks_write_the_same_metrics_to_the_byte(whole: Path, world: Path, tmp_path: Path) -> None:
    done = command(tmp_path, *settings(world, *GROUNDING), "trainer.devices=2", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "run"
    assert sorted(path.name for path in (run / "parts").iterdir()) == ["rank00000.jsonl", "rank00001.jsonl"]
    assert (run / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    assert [row["id"] for row in rows(run)] == [row["id"] for row in rows(whole)]


def test_a_checkpoint_of_another_family_is_refused(tmp_path: Path, world: Path) -> None:
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="family bert answers no questions about pictures"):
        evaluated(tmp_path, settings(world, *GROUNDING, f"checkpoint={tmp_path / 'bert'}"))
    with pytest.raises(UserError, match="no Hugging Face model there"):
        evaluated(tmp_path, settings(world, *GROUNDING, f"checkpoint={tmp_path}"))


def test_videos_that_are_missing_or_broken_score_0(world: Path, tmp_path: Path) -> None:
    (path, _), *_ = build_world(world / "synthetic", "val", 6, seed=2)
    videos = tmp_path / "activitynet" / "videos"
    videos.mkdir(parents=True)
    (videos / "good.mp4").symlink_to(path)
    (videos / "cut.mp4").write_bytes(path.read_bytes()[:500])
    entry = {"duration": 8.0, "timestamps": [[1.0, 2.0], [4.0, 6.0]], "sentences": ["one", "two"]}
    endless = {"duration": 8.0, "timestamps": [[1.0, 2.0]] * 2, "sentences": ["x" * 100_000, "two"]}
    grey = np.full((4, 28, 28, 3), 99, np.uint8)
    write_mp4(videos / "still.mp4", grey[:1], fps=4)
    write_mp4(videos / "ten_hours.mp4", grey, fps=4, times=[0, 12000, 24000, 36000])
    content = {"good": endless} | dict.fromkeys(("cut", "gone", "still", "ten_hours"), entry)
    (tmp_path / "activitynet" / "val_2.json").write_text(json.dumps(content))
    small = ["data.video.min_pixels=784", "data.video.total_pixels=784", "benchmark=[activitynet]"]
    found = evaluated(tmp_path / "run", settings(tmp_path, *small))["activitynet"]
    assert found["samples"] == 10
    expected = {
        "missing_video": 2,
        "one_frame": 2,
        "prompt_too_long": 1,
        "unreadable_video": 2,
        "video_too_long": 2,
    }
    assert {name: found["failures"][name] for name in expected} == expected
    lost = [row for row in rows(tmp_path / "run") if row["failure"] == "missing_video"]
    assert [(row["id"], row["target"]) for row in lost] == [("gone-0", [1.0, 2.0]), ("gone-1", [4.0, 6.0])]
    assert all(set(row["scores"].values()) == {0.0} for row in lost)


def test_what_cannot_be_generated_scores_0_and_is_tried_again(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout, answered = VideoPolicy.rollout, []

    def short_of_memory(self: VideoPolicy, inputs: Any, *more: Any) -> Any:
        # No memory for several at once, nor ever for the second that is asked alone.
        answered.append(len(inputs))
        if len(inputs) > 1 or answered.count(1) == 2:
            raise RuntimeError("out of memory")
        return rollout(self, inputs, *more)

    overrides = settings(world, *GROUNDING, "evaluation.limit=3")
    with monkeypatch.context() as patch:
        patch.setattr(VideoPolicy, "rollout", short_of_memory)
        found = evaluated(tmp_path, overrides)["synthetic_grounding"]
    assert answered == [3, 1, 1, 1]
    assert (found["samples"], found["failures"]["not_generated"]) == (3, 1)
    again = evaluated(tmp_path, overrides)["synthetic_grounding"]
    assert "not_generated" not in again["failures"]


def test_several_benchmarks_and_draws_in_one_run(world: Path, tmp_path: Path) -> None:
    both = ["benchmark=[synthetic_grounding,synthetic_qa]", "benchmarks.synthetic_qa.clips=6"]
    more = ["benchmarks.synthetic_grounding.clips=6", "evaluation.limit=2", "evaluation.examples=0"]
    draws = ["evaluation.draws=3", "rollout.temperature=1.0"]
    found = evaluated(tmp_path, settings(world, *both, *more, *draws))
    assert list(found) == ["synthetic_grounding", "synthetic_qa"]
    assert {"mIoU avg@3", "mIoU best@3"} <= found["synthetic_grounding"]["metrics"].keys()
    qa = {name: one["value"] for name, one in found["synthetic_qa"]["metrics"].items()}
    assert qa["accuracy pass@3"] >= qa["accuracy avg@3"]
    assert [(row["benchmark"], row["draw"]) for row in rows(tmp_path)] == [
        (name, draw) for name in found for _ in range(2) for draw in range(3)
    ]


def test_draws_without_a_temperature_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rollout.temperature=0: all draws would be the same"):
        evaluated(tmp_path, settings(world, *GROUNDING, "evaluation.draws=4"))
