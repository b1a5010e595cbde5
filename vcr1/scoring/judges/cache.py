"""Answers of a judging model on disk, for all processes and runs that ask the same."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

log = logging.getLogger(__name__)

FILE_NAME = "judge.sqlite3"
BUSY_SECONDS = 2.0
"""How long one read or write waits for other processes; then it is left out."""

_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class AnswerCache:
    """Key -> answer, in a file of SQLite; every write is whole or not at all.

    A cache must never stop a run: a file that cannot be used is warned of once, and the run goes on
    without it. To be used from one thread; any number of processes of one machine may share the file (its
    write-ahead log does not work over a network file system that several machines write to).

    Args:
        folder: where the file lies; made at the first use. None keeps nothing.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self._file = None if folder is None else Path(folder).expanduser() / FILE_NAME
        self._connection: sqlite3.Connection | None = None

    def get(self, key: str) -> str | None:
        """Return the answer that is kept under ``key``, if any."""
        try:
            rows = self._execute("SELECT answer FROM answers WHERE key = ?", (key,))
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return None
        # The file may be another's work: SQLite holds a column to no type.
        return rows[0][0] if rows and isinstance(rows[0][0], str) else None

    def put(self, key: str, answer: str) -> None:
        """Keep an answer; one that is kept already is replaced."""
        try:
            self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer))
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _execute(self, statement: str, values: tuple[str, ...]) -> list[tuple[object, ...]]:
        if self._file is None:
            return []
        if self._connection is None:
            self._connection = _open(self._file)
        return self._connection.execute(statement, values).fetchall()

    def _give_up(self, error: sqlite3.Error | OSError) -> None:
        """Leave out one access where others hold the file, every one where it is broken."""
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY:
            return
        log.warning(
            "judge.cache: %s cannot be used (%s: %s); going on without it. If it is broken, delete it: it "
            "only saves asking again.",
            self._file,
            type(error).__name__,
            error,
        )
        self._file = None
        try:
            self.close()
        except sqlite3.Error:
            self._connection = None


def _open(file: Path) -> sqlite3.Connection:
    """Connect to the file, and make it where there is none.

    Raises:
        sqlite3.Error: it cannot be used.
        OSError: its folder cannot be made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)  # no open transactions
    try:
        # Readers do not wait for a writer, and an answer that a power cut takes is asked for again.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_TABLE)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
