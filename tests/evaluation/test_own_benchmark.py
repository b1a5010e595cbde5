"""One's own lines of JSON as a benchmark: ``benchmark=jsonl``, in every task."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluations import TINY, evaluated, rows
from hydra import compose, initialize_config_dir

from vcr1.config.choices import conf_dir
from vcr1.errors import UserError
from vcr1.evaluation import read_benchmarks
from vcr1.evaluation.benchmarks import Benchmark
from vcr1.records import Box, GroundedAnswer, Interval
from vcr1.video import write_mp4

WHOLE = [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]
LINES: dict[str, dict[str, Any]] = {
    "grounding": {"query": "a dog runs", "interval": [1.5, 40]},  # ends behind the clip's 2 s
    "tracking": {"query": "the dog", "boxes": WHOLE, "box_times": [0.0, 1.9]},
    "grounded_qa": {"query": "Who?", "options": ["a", "b"], "answer": "b", "intervals": [[1, 2]]},
    "qa": {"query": "Who?", "options": ["a", "b"], "answer": "b"},
    "captioning": {"caption": "A dog runs."},
    "quality": {"query": "Good?", "options": ["low quality", "high quality"], "answer": "low quality"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lines of every task: of a clip of 20 frames, and of one that is missing."""
    root = tmp_path_factory.mktemp("mine")
    (root / "videos").mkdir()
    write_mp4(root / "videos" / "A.MP4", np.zeros((20, 56, 56, 3), np.uint8), fps=10)
    for task, line in LINES.items():
        (root / task).mkdir()
        text = "".join(
            json.dumps({"id": id_, "video": f"clips/{id_}"} | line) + "\n" for id_ in ("a", "gone")
        )
        (root / task / "val.jsonl").write_text(text)
    return root


def read(root: Path, *overrides: str) -> Benchmark:
    chosen = ["benchmark=[jsonl]", f"data.root={root}", *overrides]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        (found,) = read_benchmarks(compose("evaluate", overrides=chosen))
    return found


@pytest.mark.parametrize("task", LINES)
def test_lines_of_every_task_are_a_benchmark_with_their_truth(root: Path, task: str) -> None:
    found = read(root, f"task=[{task}]")
    targets: dict[str, Any] = {
        "grounding": Interval(1.5, 40),
        "grounded_qa": GroundedAnswer("B", (Interval(1, 2),)),
        "qa": "B",
        "captioning": "A dog runs.",
        "quality": "low quality",
    }
    assert (found.name, found.kind, found.samples[0].video) == ("jsonl", task, str(root / "videos" / "A.MP4"))
    if task == "tracking":  # the way of a missing video is not known; its row counts all the same
        assert [lost.sample_id for lost in found.lost] == ["gone"]
        boxes = found.samples[0].target
        assert (len(boxes), boxes[0], boxes[-1]) == (8, Box(*WHOLE[0]), Box(*WHOLE[1]))
    else:
        assert [sample.target for sample in found.samples] == [targets[task]] * 2


def test_the_task_and_the_files_can_be_named(root: Path) -> None:
    with pytest.raises(UserError, match=r"benchmark jsonl: say which task it is of, such as task=grounding"):
        read(root)
    assert read(root, "benchmarks.jsonl.task=qa").kind == "qa"
    other = root / "other.jsonl"
    other.write_text((root / "qa" / "val.jsonl").read_text())
    files = [f"benchmarks.jsonl.annotations={other}", f"benchmarks.jsonl.videos={root / 'videos'}"]
    assert read(root / "nowhere", "task=[qa]", *files).annotations.source == str(other)


def test_a_whole_evaluation_of_ones_own_tracks(root: Path, tmp_path: Path) -> None:
    overrides = [*TINY, "benchmark=[jsonl]", "task=[tracking]", f"data.root={root}"]
    found = evaluated(tmp_path, [*overrides, "data.loader.num_workers=0", "rollout.max_new_tokens=8"])
    assert (found["jsonl"]["samples"], found["jsonl"]["failures"]["missing_video"]) == (2, 1)
    assert [row["id"] for row in rows(tmp_path)] == ["a", "gone"]
