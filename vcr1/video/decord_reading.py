"""Decoding with decord, for files in which it has been shown to find the right frames.

decord finds a frame by going to the key frame before it and counting on, and says nothing where that is
wrong: in open groups of pictures, in AVI, behind an intra-refresh, in cut files. So it is used only where

- the packets show that counting is right: every frame has a time of its own, decoding may begin at each key
  frame, and all frames before a key frame in the file are also presented before it (groups are closed); and
- the pictures do: around the first two and the last two of the later key frames, decord's pictures are
  PyAV's, each time after a leap.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from vcr1.errors import VideoError
from vcr1.video.decoding import Pictures, decode_pyav
from vcr1.video.timeline import Timeline

log = logging.getLogger(__name__)

_CHUNK_BYTES = 16 * 2**20
"""Decoded frames asked of decord at a time. It takes about six times as much memory meanwhile (measured at
720p: 16 MiB cost 160 MB, 64 MiB 420 MB and 256 MiB 1.8 GB), and larger chunks are no faster."""

_doubts: dict[tuple[Path, int, int], str | None] = {}
"""What was found of files, by name, size and date: a process looks at each file once."""

_TOLERANCE = 2
"""Levels of 255 by which two builds of FFmpeg may differ."""


def decode_decord(path: Path, timeline: Timeline, indices: Sequence[int]) -> Iterator[Pictures]:
    """Give the wanted frames in chunks, by decord where it is right about the file, else by PyAV.

    The first file of a process that goes to PyAV is named in the log, with the reason.

    Args:
        path: the file.
        timeline: its frames.
        indices: numbers of wanted frames, ascending, none twice.

    Raises:
        VideoError: the file cannot be decoded.
    """
    state = path.stat()
    key = (path, state.st_size, state.st_mtime_ns)
    if key not in _doubts:
        _doubts[key] = find_doubt(path, timeline)
    if _doubts[key] is None:
        return _decode(path, timeline, indices)
    _warn_once(f"{path}: not read with decord, because {_doubts[key]}")
    return decode_pyav(path, timeline, indices)


def find_doubt(path: Path, timeline: Timeline) -> str | None:
    """Return why decord might show wrong frames of a file; None where it is shown to be right.

    Args:
        path: the file.
        timeline: its frames.
    """
    if not timeline.closed:
        return "its groups of pictures are not closed, or its frames do not state their times"
    if timeline.pixel_aspect != 1:
        return "its pixels are not square"
    count = len(timeline.pts)
    keys = [timeline.pts.index(entry.pts) for entry in timeline.entries[1:]]
    borders = {*keys[:2], *keys[-2:], 0, count - 1}
    around = sorted({place for key in borders for place in (key - 1, key, key + 1) if 0 <= place < count})
    try:
        theirs = torch.cat([chunk.pixels for chunk in _decode(path, timeline, around)])
    except VideoError as error:
        return str(error).removeprefix(f"{path}: ")
    for place, mine in zip(around, decode_pyav(path, timeline, around), strict=True):
        their = theirs[around.index(place)]
        if (
            mine.pixels[0].shape != their.shape
            or (mine.pixels[0].int() - their.int()).abs().max() > _TOLERANCE
        ):
            return f"its frame {place} is another one there"
    return None


@cache
def _warn_once(message: str) -> None:
    """Log the first message of the process."""
    if _warn_once.cache_info().misses == 1:
        log.warning("%s. PyAV reads such files; this is said of the first one only", message)


@cache
def _decord() -> ModuleType:
    """decord, loaded at first use (it loads an FFmpeg of its own) and silenced; its bridge stays numpy."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _decode(path: Path, timeline: Timeline, indices: Sequence[int]) -> Iterator[Pictures]:
    """Yield the wanted frames in chunks, as decord finds them.

    Raises:
        VideoError: a file that decord cannot read, or in which it finds another stream or other frames.
    """
    decord = _decord()
    errors = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, AssertionError)
    step = max(1, _CHUNK_BYTES // timeline.frame_bytes)
    try:
        # One thread: the data loader's workers are the parallelism.
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        if len(reader) != len(timeline.pts):  # another stream, or an edit list that decord ignores
            raise VideoError(f"{path}: it finds {len(reader)} frames of {len(timeline.pts)}")
        for start in range(0, len(indices), step):
            batch = reader.get_batch(list(indices[start : start + step])).asnumpy()
            if batch[0].nbytes != timeline.frame_bytes:
                raise VideoError(f"{path}: it reads another stream")
            yield Pictures(torch.from_numpy(batch).permute(0, 3, 1, 2), *batch.shape[1:3])
    except errors as error:
        raise VideoError(f"{path}: it fails ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    """The error in one line; decord's begin with a time and a place in its source, and go on with a stack."""
    line = str(error).strip().split("\n", 1)[0]
    return re.sub(r"^\[[^]]*\] \S*:\d+: ", "", line) or type(error).__name__
