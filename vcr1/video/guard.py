"""Reading videos for a run: a file that crashes, hangs or floods its decoder costs its sample only."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from vcr1.errors import UserError, VideoError
from vcr1.records import VideoClip, VideoSource
from vcr1.video.children import Child, Done
from vcr1.video.forked import allow
from vcr1.video.journal import Journal
from vcr1.video.limits import DecodeLimits, lacks_memory
from vcr1.video.probing import Outcome, Trial, attempt, decode, ending
from vcr1.video.sampling import FrameBudget, PatchGrid

log = logging.getLogger(__name__)

REMEMBERED = ("timeout", "memory", "crashed")
"""Outcomes that cost much and would be the same again. A decoder that was killed from outside is tried again,
and what cannot be read says so at once."""


class GuardedReader:
    """Decodes videos in child processes, within limits, and remembers what failed.

    The clips are those of :func:`vcr1.video.read_clip`, to the last bit. May be used by several threads (each
    call has a child of its own while it runs), in forked processes, and may be pickled.

    Args:
        decoder: ``auto``, ``decord`` or ``pyav``.
        limits: what a video may cost; without any, it is decoded in this process.
        remember: file for what crashed, hung or flooded, shared by all processes and later runs; None
            remembers it as long as the process lives.
    """

    def __init__(
        self,
        decoder: str = "auto",
        limits: DecodeLimits | None = None,
        remember: str | Path | None = None,
    ) -> None:
        self.decoder = decoder
        self.limits = limits or DecodeLimits()
        self.journal = Journal(remember, self.limits, REMEMBERED)
        self._owner = os.getpid()
        self._idle: list[Child] = []

    def clip(
        self,
        source: str | Path | VideoSource,
        budget: FrameBudget,
        grid: PatchGrid,
        *,
        frames: int | None = None,
    ) -> VideoClip:
        """Return a clip as :func:`vcr1.video.read_clip` reads it.

        Raises:
            VideoError: also where the file crashes, hangs or floods the decoder, now or before.
            UserError: as there.
        """
        clip = self._result(Trial(_source(source), budget, grid, self.decoder, frames))
        assert isinstance(clip, VideoClip)
        return clip

    def duration(self, source: str | Path | VideoSource) -> float:
        """Return seconds of a video or of a part of one, as :func:`vcr1.video.video_duration` has it.

        Raises:
            VideoError: as :meth:`clip`.
        """
        seconds = self._result(Trial(_source(source)))
        assert not isinstance(seconds, VideoClip)
        return float(seconds)

    def run(self, source: VideoSource, work: Callable[[Callable[[], None]], Any]) -> Any:
        """Let something else be done with a video in a child of its own, such as drawing into all its frames.

        Args:
            source: the video.
            work: is given a function to call whenever it has come further: from then on it has the time of
                the limits anew. It may raise UserError, and returns what can be pickled.

        Raises:
            VideoError: it crashes, hangs or floods the child.
            UserError: what it raises itself.
        """
        if self.limits.unlimited:
            return work(lambda: None)
        seconds = self.limits.seconds_for(source.path)

        def in_child(_: None) -> Any:
            try:
                return work(lambda: allow(seconds))
            except UserError as error:
                if lacks_memory(error):
                    raise MemoryError from error
                return error

        child = Child(in_child, self.limits.memory)
        try:
            found = child.ask(None, seconds)
        finally:
            child.kill()
        if not isinstance(found, Done):
            raise ending(source.path, found, self.limits).error()
        if isinstance(found.value, UserError):
            raise found.value
        return found.value

    def close(self) -> None:
        """End the idle children; the next video starts another."""
        while self._idle:
            self._idle.pop().kill()

    def _result(self, trial: Trial) -> VideoClip | float:
        if self.limits.unlimited:
            return attempt(trial)
        if (known := self.journal.find(trial)) is not None:
            place = "" if self.journal.path is None else f" in {self.journal.path}"
            raise VideoError(f"{known.message} (remembered{place})")
        child = self._child()
        found = child.ask(trial, self.limits.seconds_for(trial.source.path))
        self._idle.append(child)
        if not isinstance(found, Done):
            outcome = ending(trial.source.path, found, self.limits)
            try:
                self.journal.add(trial, outcome)
            except UserError as error:  # the disk is full, say: the run may go on without
                log.warning("%s", error)
            raise outcome.error()
        if isinstance(found.value, Outcome):
            raise found.value.error()
        result: VideoClip | float = found.value
        return result

    def _child(self) -> Child:
        """Return an idle child of this process, or a new one."""
        if self._owner != os.getpid():  # this is a fork: the others are its parent's
            self._owner, self._idle = os.getpid(), []
        try:
            return self._idle.pop()
        except IndexError:
            return Child(decode, self.limits.memory)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_idle": []}


def _source(source: str | Path | VideoSource) -> VideoSource:
    """Return a path as a whole file."""
    return source if isinstance(source, VideoSource) else VideoSource(str(source))


_CURRENT: ContextVar[GuardedReader | None] = ContextVar("reader", default=None)


@contextmanager
def reading_with(reader: GuardedReader) -> Iterator[None]:
    """Within, readers of annotations that need a video's duration take it from this reader."""
    token = _CURRENT.set(reader)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        reader.close()


def current_reader() -> GuardedReader:
    """Return the reader of :func:`reading_with`; elsewhere a new one with the usual limits."""
    return _CURRENT.get() or GuardedReader()
