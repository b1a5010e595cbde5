"""What is known already of the videos that were tried: a file of JSON lines, written as results come."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av

from vcr1.errors import UserError
from vcr1.video.limits import DecodeLimits
from vcr1.video.probing import BAD, Outcome, Trial

SETTLED = ("ok", *(status for status in BAD if status not in ("missing", "killed", "failed")))
"""Outcomes that a second trial would not change. A file that was missing may have come, a decoder that was
killed from outside may have more memory, and an error that was not foreseen may have been mended."""


class Journal:
    """Outcomes by trial. A line holds as long as the file has its size and date, and the clip its budget.

    Several processes may write to one file, and each learns what the others have written. Lines that cannot
    be read, as one that was being written when the machine stopped, are passed over.

    Args:
        path: the file, made where it does not exist; None keeps the outcomes as long as the process lives.
        limits: what a trial may cost: one that once took more than less is tried again.
        kept: the outcomes that are kept.
        name: of the setting that names the file, for messages.
    """

    def __init__(
        self,
        path: str | Path | None,
        limits: DecodeLimits,
        kept: Collection[str] = SETTLED,
        name: str = "run_dir",
    ) -> None:
        self.path = None if path is None else Path(path)
        self.limits = limits
        self.kept = kept
        self.name = name
        self._known: dict[str, Outcome] = {}
        self._read = 0  # bytes of the file that are known

    def check(self) -> None:
        """See that the file can be written.

        Raises:
            UserError: it cannot.
        """
        self._append("")

    def find(self, trial: Trial) -> Outcome | None:
        """Return the outcome of a trial, if it is known."""
        self._learn()
        if not self._known:
            return None
        key = self._key(trial)
        return None if key is None else self._known.get(key)

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Write an outcome down at once, so that it outlives this run.

        Raises:
            UserError: the file cannot be written.
        """
        key = self._key(trial)
        if key is None or outcome.status not in self.kept:
            return
        self._known[key] = outcome
        line = {"key": key, "path": trial.source.path, "limits": asdict(self.limits)} | asdict(outcome)
        self._append(json.dumps(line) + "\n")

    def _append(self, line: str) -> None:
        """Add a line in one piece, whoever else does."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                size = os.fstat(file).st_size
                torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
                # What follows a torn line must not be lost with it.
                os.write(file, (("\n" if torn else "") + line).encode("utf-8", "replace"))
            finally:
                os.close(file)
        except OSError as error:
            raise UserError(
                f"{self.name}: {self.path} cannot be read and written ({error.strerror}); set it to another "
                "file or folder"
            ) from error

    def _learn(self) -> None:
        """Take in the lines that have been written since the last time."""
        if self.path is None:
            return
        with suppress(OSError):  # there is none yet
            size = self.path.stat().st_size
            if size == self._read:
                return
            with self.path.open("rb") as file:
                file.seek(self._read if size > self._read else 0)
                whole, _, rest = file.read().rpartition(b"\n")
                self._read = file.tell() - len(rest)  # it may still be being written
            for line in whole.decode("utf-8", "replace").split("\n"):
                self._take_in(line)

    def _take_in(self, line: str) -> None:
        """Take in one line, where it holds."""
        try:
            entry: dict[str, Any] = json.loads(line)
            outcome = Outcome(
                status=str(entry["status"]),
                message=str(entry["message"]),
                duration=float(entry["duration"]),
                frames=int(entry["frames"]),
                height=int(entry["height"]),
                width=int(entry["width"]),
            )
            if outcome.status in self.kept and self._holds(outcome.status, entry["limits"]):
                self._known[str(entry["key"])] = outcome
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return

    def _holds(self, status: str, limits: dict[str, Any]) -> bool:
        """Return whether what went beyond those limits goes beyond the present ones."""
        limit = {"timeout": "seconds", "memory": "memory"}.get(status)
        if limit is None:
            return True
        now = getattr(self.limits, limit)
        return float(limits[limit]) >= (math.inf if now is None else now)

    @staticmethod
    def _key(trial: Trial) -> str | None:
        """Names the trial, its file's present state and the decoder; None of a file that is not there."""
        try:
            state = Path(trial.source.path).stat()
        except (OSError, ValueError):
            return None
        place = os.path.realpath(trial.source.path)
        facts = [place, state.st_size, state.st_mtime_ns, asdict(trial), av.__version__]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
