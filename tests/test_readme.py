"""What the README shows of a user's own task, reward and reader, done as it says, outside the package."""

import csv
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from vcr1.video import build_world

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
Command = Callable[..., subprocess.CompletedProcess[str]]


def files_of(text: str) -> dict[str, str]:
    """The files that are shown whole."""
    return dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```\n", text, re.DOTALL))


def test_a_task_of_ones_own_works_in_every_program(
    tmp_path: Path, world: Path, command_line: Command
) -> None:
    """Its values are numbers: no program but knows times and boxes only."""
    for name, body in files_of(README).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(body)
    clips = [path for path, _ in build_world(world / "synthetic", "val", 6, seed=2)][:2]
    (tmp_path / "videos").mkdir()
    for clip in clips:
        (tmp_path / "videos" / clip.name).symlink_to(clip)
    line = {"query": "How many shapes?", "count": 2}
    lines = [{"id": clip.stem, "video": clip.name} | line for clip in clips]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    given = [{"id": clip.stem, "completion": f"<answer>{n}</answer>"} for n, clip in enumerate(clips, 2)]
    (tmp_path / "given.jsonl").write_text("".join(json.dumps(one) + "\n" for one in given))

    def run(program: str, *overrides: str) -> None:
        shared = ["--config-dir", "conf", "task=counting", "run_dir=."]
        done = command_line(tmp_path, *shared, *overrides, program=program)
        assert done.returncode == 0, done.stderr[-2000:]

    tiny = [
        "checkpoint=builtin:tiny",
        "trainer=cpu",
        "data.video.total_pixels=784",
        "data.video.min_pixels=784",
    ]
    run("score", "annotations=lines.jsonl", "predictions=given.jsonl", "videos=videos")
    scored = json.loads((tmp_path / "metrics.json").read_text())["counting"]
    assert scored["metrics"]["closeness"]["value"] == (1 + 1 / 2) / 2  # one is right, one is off by one
    assert (tmp_path / "best_counting.png").stat().st_size > 1000  # frames, with the answer as text
    lines_of = ["+source@benchmarks.jsonl.sources.counting=jsonl", "benchmarks.jsonl.annotations=lines.jsonl"]
    run("evaluate", "benchmark=jsonl", *lines_of, "benchmarks.jsonl.videos=videos", "run_dir=eval", *tiny)
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text())["jsonl"]["samples"] == 2
    run("predict", "video=lines.jsonl", "videos=videos", "out=answers.json", *tiny[:1], *tiny[2:])
    answers = json.loads((tmp_path / "answers.json").read_text())["answers"]
    assert [(one["task"], one["truth"]) for one in answers] == [("counting", 2)] * 2
    assert all(one["scores"].keys() == {"closeness"} for one in answers)
    small = ["data.loader.batch_size=1", "data.loader.num_workers=0", "trainer.max_steps=1", "report=none"]
    lines_of = ["data.sources.counting.train.annotations=lines.jsonl", "data.sources.counting.val=null"]
    more = ["logger=[]", "callbacks=none", "data.sources.counting.train.videos=videos"]
    run("train", "experiment=demo", "+source@data.sources.counting=jsonl", *lines_of, *small, *more)


def test_a_task_a_reward_and_a_reader_of_one_s_own(
    tmp_path: Path, world: Path, small: list[str], command_line: Command
) -> None:
    files = files_of(README)
    assert list(files) == ["counting.py", "conf/task/counting.yaml", "conf/data/counts.yaml"]
    for name, body in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(body)
    clips = [path for path, _ in build_world(world / "synthetic", "val", 6, seed=2)]
    (tmp_path / "videos").mkdir()
    for clip in clips[:4]:
        (tmp_path / "videos" / clip.name).symlink_to(clip)
    rows = [f'{{"video": "{clip.name}", "question": "How many shapes?", "count": 2}}\n' for clip in clips[:5]]
    (tmp_path / "counts.jsonl").write_text("".join(rows))

    (shown,) = re.findall(
        r"<!-- command -->\n```console\n\$ python -m vcr1\.train (.*?)```", README, re.DOTALL
    )
    steps = ["trainer.max_steps=12", "report=none", "logger=csv", "callbacks=none", "run_dir=run"]
    done = command_line(tmp_path, *shlex.split(shown.replace("\\\n", " ")), *small, *steps)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        "counting train - counts.jsonl: 4 samples; dropped 1 (missing video: 1)" in done.stdout + done.stderr
    )
    with (tmp_path / "run" / "metrics.csv").open() as file:
        found = list(csv.DictReader(file))
    counted = [row for row in found if row["train/counting/reward/closeness"]]
    grounded = [row for row in found if row["train/grounding/reward/brevity"]]
    assert counted
    assert grounded
    assert len(counted) + len(grounded) == 12
    for row in counted:  # closeness counts twice
        parts = [float(row[f"train/counting/reward/{name}"]) for name in ("format", "closeness")]
        assert abs(float(row["train/counting/reward/total"]) - parts[0] - 2 * parts[1]) < 1e-5
    assert all(float(row["train/grounding/reward/brevity"]) == 1 for row in grounded)
