"""Ends of a run that the machine has brought about, each said in a sentence."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from vcr1.checkpoints.files import complete_checkpoints
from vcr1.checkpoints.saving import FULL, causes
from vcr1.errors import UserError

BROKEN = (*FULL, errno.EROFS, errno.EIO, errno.ESTALE)
"""What the system says of a place where nothing can be written."""


def explained(error: BaseException, folder: Path, checkpoints: Path | None = None) -> UserError | None:
    """Return what an error says to the user of a run; None for a fault of the program.

    Args:
        error: what has ended the run.
        folder: of the run.
        checkpoints: where it keeps them; in its folder where None.
    """
    if isinstance(error, UserError):
        return error
    for cause in causes(error):
        if cause.errno in BROKEN:
            place = cause.filename or folder
            return UserError(
                f"{place}: {cause.strerror}. What was written before is whole: "
                f"{_last_good(checkpoints or folder / 'checkpoints')}. Make room, then ckpt_path=auto goes on"
            )
        if isinstance(cause, FileNotFoundError) and not folder.exists():
            return UserError(f"run_dir={folder} is gone: something has removed it while the run wrote there")
    text = str(error)
    if (killed := re.search(r"DataLoader worker \(pid.? ?\(?s?\)? ?([\d, ]+)\)", text)) is not None:
        return UserError(
            f"a decoding process ({killed[1]}) was ended from outside, as by a system without memory: lower "
            f"data.loader.num_workers or prefetch; {_last_good(checkpoints or folder / 'checkpoints')}, and "
            f"ckpt_path=auto goes on"
        )
    if "EADDRINUSE" in text or "address already in use" in text.lower():
        port = os.environ.get("MASTER_PORT", "of the first rank")
        return UserError(
            f"MASTER_PORT={port} is in use by another job on this machine: unset it, or choose another"
        )
    return None


def _last_good(folder: Path) -> str:
    found = complete_checkpoints(folder)
    return f"the last good checkpoint is {found[0]}" if found else "there is no checkpoint yet"
