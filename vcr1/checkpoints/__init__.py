"""What a run leaves behind to go on from: written whole or not at all, found again, continued exactly."""

from vcr1.checkpoints.callback import Checkpoints
from vcr1.checkpoints.endings import explained
from vcr1.checkpoints.files import newest_checkpoint
from vcr1.checkpoints.folders import CONTINUE, run_folder
from vcr1.checkpoints.lock import locked
from vcr1.checkpoints.resume import BEFORE, Resumed, check_same_run, find_resumed, prepare_folder

__all__ = [
    "BEFORE",
    "CONTINUE",
    "Checkpoints",
    "Resumed",
    "check_same_run",
    "explained",
    "find_resumed",
    "locked",
    "newest_checkpoint",
    "prepare_folder",
    "run_folder",
]
