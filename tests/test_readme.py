"""What the README shows of a user's own task, reward and reader, done as it says, outside the package."""

import csv
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
