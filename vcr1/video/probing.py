"""Trying to decode many videos, in processes that may hang or die at the cost of one file only.

`concurrent.futures` can neither stop a worker that hangs nor outlive one that crashes, and decoders of
hostile files do both. So each slot here is one process at the end of a pipe, replaced once it was killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import torch

from vcr1.errors import UserError, VideoError
from vcr1.records import VideoSource
from vcr1.video.readers import read_clip, video_duration
from vcr1.video.sampling import FrameBudget, PatchGrid

BAD = ("missing", "unreadable", "timeout", "crashed", "failed")
"""What may be wrong with a video: it is not there; cannot be decoded; takes too long; kills its process;
raises an error that nobody foresaw, which would stop a training run."""

_MESSAGE = 300
"""Most characters of an error that are kept."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One decoding as a training run does it: the arguments of :func:`vcr1.video.read_clip`."""

    source: VideoSource
    budget: FrameBudget
    grid: PatchGrid
    decoder: str = "auto"
    frames: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial.

    Attributes:
        status: ``ok``, one of ``BAD``, or ``refused`` where the configuration is at fault, not the video.
        message: the error, cut to 300 characters.
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


def probe(trial: Trial) -> Outcome:
    """Decode a clip and say what it is like; never raises on a file's content."""
    source = trial.source
    try:
        clip = read_clip(source, trial.budget, trial.grid, decoder=trial.decoder, frames=trial.frames)
        duration = clip.duration if trial.frames is None else video_duration(source)
    except VideoError as error:
        status = "unreadable" if os.path.lexists(source.path.replace("\0", "")) else "missing"
        return Outcome(status, _printable(str(error)))
    except UserError as error:
        return Outcome("refused", _printable(str(error)))
    except Exception as error:  # a training run would end here: the file must be known
        return Outcome("failed", _printable(f"{source.path}: {type(error).__name__}: {error}"))
    return Outcome("ok", "", duration, *clip.frames.shape[:1], *clip.frames.shape[-2:])


def _printable(message: str) -> str:
    """The beginning of a message, in characters that any file and screen can take: names may hold others."""
    return "".join(letter if letter.isprintable() else "?" for letter in message[:_MESSAGE])


def probe_all(
    trials: Iterable[Trial],
    workers: int,
    timeout: float,
    probe: Callable[[Trial], Outcome] = probe,
) -> Iterator[tuple[Trial, Outcome]]:
    """Try all in parallel processes; results come as they are ready, in no order.

    Args:
        trials: what to decode.
        workers: processes at a time.
        timeout: seconds that one trial may take; then its process is killed, and the outcome is ``timeout``.
        probe: what to do with each, in a process; one that dies of it gives ``crashed``.
    """
    pending = deque(trials)
    slots = [_Slot(probe) for _ in range(min(workers, len(pending)))]
    try:
        while pending or any(slot.trial for slot in slots):
            for slot in slots:
                if slot.trial is None and pending:
                    slot.give(pending.popleft(), timeout)
            busy = [slot for slot in slots if slot.trial is not None]
            wait([slot.pipe for slot in busy], max(min(slot.deadline for slot in busy) - time.monotonic(), 0))
            for slot in busy:
                trial, outcome = slot.trial, slot.take()
                if trial is not None and outcome is not None:
                    yield trial, outcome
    finally:
        for slot in slots:
            slot.kill()


class _Slot:
    """A process that does one trial after the other."""

    def __init__(self, probe: Callable[[Trial], Outcome]) -> None:
        self.probe = probe
        self.trial: Trial | None = None
        self.seconds = self.deadline = 0.0
        self.start()

    def start(self) -> None:
        """Fork a process. It is forked, as those of a DataLoader are, so that a new one costs no imports."""
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid(), self.probe), daemon=True)
        self.process.start()
        theirs.close()  # else the end of the process would not close the pipe

    def give(self, trial: Trial, seconds: float) -> None:
        """Begin a trial that may take so many seconds."""
        if not self.process.is_alive():  # killed from outside while it had nothing to do
            self.kill()
            self.start()
        self.trial, self.seconds, self.deadline = trial, seconds, time.monotonic() + seconds
        with suppress(OSError):  # killed this very moment: to be seen at the pipe's other end
            self.pipe.send(trial)

    def take(self) -> Outcome | None:
        """The outcome, if there is one or it is too late for one; then the slot is free."""
        assert self.trial is not None
        path = self.trial.source.path
        if self.pipe.poll():
            try:
                outcome: Outcome = self.pipe.recv()
            except (EOFError, OSError):
                self.process.join()
                outcome = Outcome("crashed", f"{path}: the decoder died ({_cause(self.process.exitcode)})")
                self.kill()
                self.start()
        elif time.monotonic() >= self.deadline:
            outcome = Outcome("timeout", f"{path}: not decoded within {self.seconds:g} s")
            self.kill()
            self.start()
        else:
            return None
        self.trial = None
        return outcome

    def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, parent: int, probe: Callable[[Trial], Outcome]) -> None:
    """A process of a slot: trials in, outcomes out, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted as well, and ends this process
    torch.set_num_threads(1)  # also because torch's own threads did not survive the fork
    while True:
        # The other processes hold this pipe's far end open, so that it does not close with the parent.
        while not pipe.poll(5):
            if os.getppid() != parent:
                return
        pipe.send(probe(pipe.recv()))


def _cause(exit_code: int | None) -> str:
    """How a process ended, in a word."""
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"
