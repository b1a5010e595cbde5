"""What the tests of whole runs share: a small synthetic world and a clean command line."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from vcr1.video import build_world

# Under load an example may take any time.
settings.register_profile("vcr1", deadline=None)
settings.load_profile("vcr1")

TRAIN_CLIPS, VAL_CLIPS = 12, 6


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Removes the handlers that a program has set up where a test or a fixture runs it in this process.

    Each writes to a stream that pytest closes with the test, so that the next log would be an error.
    """
    root = logging.getLogger()
    before = []
    for handler in root.handlers[:]:  # pytest's own are of other classes
        if type(handler) is logging.StreamHandler and handler.stream.closed:
            root.removeHandler(handler)
        else:
            before.append(handler)
    yield
    for handler in root.handlers[:]:
        if handler not in before and type(handler) in (logging.StreamHandler, logging.FileHandler):
            root.removeHandler(handler)
            handler.close()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``data.root`` whose synthetic clips are written already."""
    root = tmp_path_factory.mktemp("data")
    build_world(root / "synthetic", "train", TRAIN_CLIPS, seed=1)
    build_world(root / "synthetic", "val", VAL_CLIPS, seed=2)
    return root


@pytest.fixture(scope="session")
def small(world: Path) -> list[str]:
    """Overrides that make a run on the synthetic world small: seconds on one core."""
    return [
        f"data.root={world}",
        f"data.clips.train={TRAIN_CLIPS}",
        f"data.clips.val={VAL_CLIPS}",
        "data.loader.batch_size=2",
        "data.loader.num_workers=0",
        "trainer.val_check_interval=null",
        "threads=1",
    ]


@pytest.fixture(scope="session")
def command_line() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A program, such as ``python -m vcr1.train``, as someone who is logged in nowhere and has no GPU."""

    def run(
        folder: Path, *overrides: str, program: str = "train", **more: str
    ) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "HF_"))}
        changed = {
            "HOME": str(folder),
            "NETRC": str(folder / "netrc"),
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_WAIT_POLICY": "PASSIVE",
            "COLUMNS": "100",
        }
        return subprocess.run(
            [sys.executable, "-m", f"vcr1.{program}", *overrides],
            cwd=folder,
            env=kept | changed | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )

    return run
