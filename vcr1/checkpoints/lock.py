"""One run in a folder at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from vcr1.errors import UserError

log = logging.getLogger(__name__)

LOCK = ".lock"
"""File in a run's folder that the running process holds."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, keep other runs out of a folder; the system lets go when the process ends, however it ends.

    Raises:
        UserError: another run is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with path.open("a+", encoding="utf-8") as file:
        try:
            # Not flock: a process that was forked from this one, as a data loader's, would hold it on.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise UserError(
                    f"run_dir={folder}: another run is at work in this folder ({file.read().strip()}). Wait "
                    f"for its end, or name another folder: hydra.run.dir=runs/NAME"
                ) from error
            log.warning("%s cannot be locked (%s): start no second run in this folder", path, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%d %b %H:%M')}\n")
        file.flush()
        yield
