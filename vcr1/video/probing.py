"""Trying to decode videos, in child processes that may hang or die at the cost of one file only.

The check of the data and the reading of a run go this way, so that what the one finds the other meets.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import Any

from vcr1.errors import UserError, VideoError
from vcr1.records import VideoClip, VideoSource
from vcr1.video.children import POLL, Child, Ended
from vcr1.video.comparing import other_frames
from vcr1.video.limits import PATIENCE, DecodeLimits, lacks_memory, stall_seconds
from vcr1.video.readers import read_clip, video_duration
from vcr1.video.sampling import FrameBudget, PatchGrid

BAD = ("missing", "unreadable", "timeout", "memory", "crashed", "killed", "failed", "other frames")
"""What may be wrong with a video: it is not there; cannot be decoded; takes too much time or memory; ends its
process; that process was killed from outside; it raises an error that nobody foresaw; it is decoded to other
frames than those of its times."""

_MESSAGE = 1000
"""Most characters of an error in a report."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One decoding as a training run does it: the arguments of :func:`vcr1.video.read_clip`.

    Attributes:
        source: what is decoded.
        budget: how much of it; None where only its duration is wanted.
        grid: likewise.
        decoder: by which.
        frames: as many frames, evenly spaced; None leaves it to the budget.
        compare: compare as many of the frames with those of a second, simple way of decoding.
    """

    source: VideoSource
    budget: FrameBudget | None = None
    grid: PatchGrid | None = None
    decoder: str = "auto"
    frames: int | None = None
    compare: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        status: ``ok``, one of ``BAD``, or ``refused`` where the configuration is at fault, not the video.
        message: the error.
        duration: seconds of the source.
        frames: frames of the clip.
        height: of a frame of the clip in pixels.
        width: likewise.
    """

    status: str
    message: str = ""
    duration: float = 0.0
    frames: int = 0
    height: int = 0
    width: int = 0

    def error(self) -> UserError:
        """Return what a run raises for an outcome that is not ``ok``."""
        return UserError(self.message) if self.status == "refused" else VideoError(self.message)


def attempt(trial: Trial) -> VideoClip | float:
    """Return the clip of a trial, or the duration of its source in seconds.

    Raises:
        VideoError, UserError: as :func:`vcr1.video.read_clip`.
    """
    if trial.budget is None or trial.grid is None:
        return video_duration(trial.source)
    return read_clip(trial.source, trial.budget, trial.grid, decoder=trial.decoder, frames=trial.frames)


def decode(trial: Trial) -> VideoClip | float | Outcome:
    """Return what :func:`attempt` returns, or why there is nothing; for a child process.

    Raises:
        MemoryError: there is no memory for it.
    """
    try:
        return attempt(trial)
    except Exception as error:
        return _failure(trial.source.path, error)


def probe(trial: Trial) -> Outcome:
    """Decode a clip and say what it is like; for a child process.

    Raises:
        MemoryError: there is no memory for it.
    """
    try:
        clip = attempt(trial)
        assert isinstance(clip, VideoClip)
        duration = clip.duration if trial.frames is None else video_duration(trial.source)
        different = other_frames(trial.source, clip, trial.compare) if trial.compare else None
    except Exception as error:
        return _printable(_failure(trial.source.path, error))
    if different is not None:
        return _printable(Outcome("other frames", f"{trial.source.path}: {different}"))
    return Outcome("ok", "", duration, *clip.frames.shape[:1], *clip.frames.shape[-2:])


def _failure(path: str, error: Exception) -> Outcome:
    """Return what an error says of a video.

    Raises:
        MemoryError: it says nothing of it: there was no memory.
    """
    if lacks_memory(error):
        raise MemoryError from error
    if isinstance(error, VideoError):
        status = "unreadable" if os.path.lexists(path.replace("\0", "")) else "missing"
        return Outcome(status, str(error))
    if isinstance(error, UserError):
        return Outcome("refused", str(error))
    message = f"{path}: decoding failed with an error that is not foreseen, {type(error).__name__}: {error}"
    return Outcome("failed", message)


def ending(path: str, ended: Ended, limits: DecodeLimits) -> Outcome:
    """Return what the end of a child says of the video that it decoded."""
    status, cause = ended
    seconds = limits.seconds_for(path) or 0.0
    remedy = "convert the video, leave it out, or raise the limit"
    say = {
        "cpu": f"not decoded within {seconds:.3g} CPU seconds (data.loader.decode_seconds); {remedy}",
        "wall": f"not decoded within {PATIENCE * seconds:.3g} s (data.loader.decode_seconds); {remedy}",
        "stall": f"the decoder hangs: it did nothing for {stall_seconds(seconds):.3g} s "
        f"(data.loader.decode_seconds); {remedy}",
        "memory": f"takes more than {limits.memory or 0:g} GiB of memory to decode "
        f"(data.loader.decode_memory); {remedy}",
        "crashed": f"the decoder died ({cause}); convert the video or leave it out",
        "killed": f"the decoder was killed from outside ({cause}); is there enough memory? Fewer "
        "data.loader.num_workers need less",
    }
    return Outcome(status, f"{path}: {say[cause if status == 'timeout' else status]}")


def _printable(outcome: Outcome) -> Outcome:
    """With the beginning of its message, in characters that any file and screen can take."""
    letters = (letter if letter.isprintable() else "?" for letter in outcome.message[:_MESSAGE])
    return replace(outcome, message="".join(letters))


def probe_all(
    trials: Iterable[Trial],
    workers: int,
    limits: DecodeLimits | None = None,
    probe: Callable[[Trial], Any] = probe,
) -> Iterator[tuple[Trial, Any]]:
    """Try all in parallel processes; results come as they are ready, in no order.

    Args:
        trials: what to decode.
        workers: processes at a time.
        limits: what each may cost.
        probe: what to do with each, in a child process; one that ends it gives the outcome of its end.
    """
    limits = limits or DecodeLimits()
    pending = deque(trials)
    children = [Child(probe, limits.memory) for _ in range(min(workers, len(pending)))]
    given: dict[Child, Trial] = {}
    try:
        while pending or given:
            for child in children:
                if not child.busy and pending:
                    given[child] = pending.popleft()
                    path = given[child].source.path
                    child.give(given[child], limits.seconds_for(path))
            wait([child.pipe for child in given if child.pipe is not None], POLL)
            for child, trial in list(given.items()):
                if (found := child.take()) is not None:
                    del given[child]
                    if isinstance(found, Ended):
                        yield trial, _printable(ending(trial.source.path, found, limits))
                    else:
                        yield trial, found.value
    finally:
        for child in children:
            child.kill()
