"""What decoding one video may cost, and how to tell that it cost too much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PATIENCE = 100
"""Seconds of the clock for each CPU second after which it is ended, though it does a little now and then."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Limits on decoding one video.

    Attributes:
        seconds: CPU seconds, and one more for every 2 MB of the file, so that a long film may take its time;
            None for no limit. As many seconds of the clock, up to 120, may pass without any work.
        memory: GiB that decoding may take beside what the process had; None for no limit.
    """

    seconds: float | None = 60.0
    memory: float | None = 2.0

    @property
    def unlimited(self) -> bool:
        """Return whether nothing is limited: then nothing runs in a child."""
        return self.seconds is None and self.memory is None

    def seconds_for(self, path: str) -> float | None:
        """Return CPU seconds that a file may take."""
        if self.seconds is None:
            return None
        try:
            return self.seconds + Path(path).stat().st_size / 2e6
        except (OSError, ValueError):  # missing, or no name that a file can have
            return self.seconds


def stall_seconds(seconds: float) -> float:
    """Return seconds without any work after which a decoder hangs that may take so many CPU seconds."""
    return max(min(seconds, 120.0), 1.0)


def lacks_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one that it came from, tells of an allocation that failed."""
    while error is not None:
        if isinstance(error, MemoryError) or any(
            words in str(error) for words in ("allocate memory", "bad_alloc", "not enough memory")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
