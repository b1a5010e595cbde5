"""What is known already of the videos that were tried: a file of JSON lines, written as results come."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import av

from vcr1.errors import UserError
from vcr1.video.probing import Outcome, Trial

_KEPT = ("ok", "unreadable", "timeout")
"""Outcomes that a second trial would not change. A process that died may have lacked memory, and a file that
was missing may have come."""


class Journal:
    """Outcomes by trial. A line holds as long as the file has its size and date, and the clip its budget.

    Lines that cannot be read, as one that was being written when the machine stopped, are passed over.

    Args:
        path: the file, made where it does not exist; None keeps nothing.
        timeout: seconds that a trial may take: one that once took longer than less is tried again.

    Raises:
        UserError: the file cannot be read and written; as the journal is entered.
    """

    def __init__(self, path: str | None, timeout: float) -> None:
        self.path = None if path is None else Path(path)
        self.timeout = timeout
        self._known: dict[str, Outcome] = {}
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        if self.path is None:
            return self
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="utf-8", errors="replace")
            self._file.seek(0)
            line = "\n"
            for line in self._file:
                self._learn(line)
            if not line.endswith("\n"):  # torn: what follows must not be lost with it
                self._file.write("\n")
        except OSError as error:
            raise UserError(
                f"check.journal={self.path}: cannot be read and written ({error.strerror}); "
                "set it to another file, or to null to keep no journal"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def find(self, trial: Trial) -> Outcome | None:
        """The outcome of a trial, if it is known."""
        key = self._key(trial)
        return None if key is None else self._known.get(key)

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Write an outcome down at once, so that it outlives this run."""
        key = self._key(trial)
        if self._file is None or key is None or outcome.status not in _KEPT:
            return
        line = {"key": key, "path": trial.source.path, "limit": self.timeout} | asdict(outcome)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _learn(self, line: str) -> None:
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
            in_time = outcome.status != "timeout" or float(entry["limit"]) >= self.timeout
            if outcome.status in _KEPT and in_time:
                self._known[str(entry["key"])] = outcome
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return

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
