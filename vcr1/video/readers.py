"""Reading sampled clips from video files, parts of them and folders of frames.

======  ===================================================================================================
pyav    the default (``auto`` is another name for it): every frame is found by its own time, or by counting
        where the file does not state it, and decoding begins anew only where that gives the same pictures
decord  the same frames from decord, in files in which it is shown to find the right ones; PyAV reads the
        others, and the log says so once
======  ===================================================================================================

Both get their frame numbers from the same :class:`~vcr1.video.timeline.Timeline`, and decord's pictures are
compared with PyAV's before they are used (see ``decord_reading``), so a clip is the same whichever decodes
it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as image

from vcr1.errors import UserError, VideoError
from vcr1.records import VideoClip, VideoSource
from vcr1.video.decoding import Pictures, decode_pyav
from vcr1.video.decord_reading import decode_decord
from vcr1.video.frames import decode_frames, frames_timeline, list_frames
from vcr1.video.parts import Part, cut
from vcr1.video.sampling import (
    FrameBudget,
    PatchGrid,
    count_frames,
    evenly_spaced,
    frame_size,
    sample_indices,
)
from vcr1.video.timeline import Timeline, read_timeline

Decoder = Callable[[Path, Timeline, Sequence[int]], Iterator[Pictures]]
"""``(path, timeline, ascending frame numbers)`` -> the frames, in chunks in the source's size."""

DECODERS = ("auto", "pyav", "decord")

_SHAPE_CHANGE = 1.02
"""A stream may change its size, but its aspect ratio by no more than this factor: rounding to whole
pixels."""


def read_clip(
    source: str | Path | VideoSource,
    budget: FrameBudget,
    grid: PatchGrid,
    *,
    decoder: str = "auto",
    frames: int | None = None,
) -> VideoClip:
    """Sample a video within a budget.

    Args:
        source: a video file, a folder of frames, or a part of either.
        budget: frame rate, frames and pixels allowed.
        grid: what one vision token covers.
        decoder: ``pyav``, ``auto`` (the same), or ``decord`` for decord in files in which it is shown to find
            the right frames, and PyAV in others. Folders of frames need none.
        frames: show exactly so many frames, evenly spaced by number, the first and the last among them,
            whatever the budget's frame rate; None leaves number and times to the budget.

    Returns:
        Frames ``[T, 3, H, W]`` uint8, one for each of T timestamps, upright, in the shape in which they are
        presented; with their real times, counted from the first frame or the beginning of
        the part; ``indices`` count from the first frame of the file or folder.

    Raises:
        VideoError: a file that is missing, empty, damaged, cut short or without video, whose times are
        missing
            or jump, or whose wanted frames cannot be decoded or have several shapes; a folder without
            pictures or with broken ones; a part beyond the end. The message names the file, the cause and
            what to do.
        UserError: a decoder that is unknown or not installed; a number of frames that does not fill whole
            temporal patches.
    """
    if frames is not None and frames % grid.temporal:
        multiple = f"a multiple of {grid.temporal}, the frames that the model joins in one"
        raise UserError(f"tasks.<task>.boxes must be {multiple}; got {frames}")
    decode = _decoder(decoder)
    source = _source(source)
    timeline, names = _timeline(source)
    if names:
        decode = lambda folder, _, wanted: decode_frames(folder, names, wanted)  # noqa: E731
    part = cut(source, timeline.timestamps, timeline.duration)
    chosen, duration, total_frames = _choose(part, frames, budget, grid)
    indices = [part.first + place for place in chosen]
    return VideoClip(
        frames=_decode(Path(source.path), timeline, indices, decode, budget, grid),
        indices=tuple(indices),
        timestamps=tuple(part.timestamps[place] for place in chosen),
        duration=duration,
        total_frames=total_frames,
    )


def video_duration(source: str | Path | VideoSource) -> float:
    """Return length of a video, or of a part of one, in seconds; no picture is decoded.

    The same number as a clip's ``duration`` where the budget chooses its frames: container headers may say
    otherwise, since they count sound.

    Raises:
        VideoError: as :func:`read_clip`, for all that shows without decoding.
    """
    source = _source(source)
    timeline, _ = _timeline(source)
    return cut(source, timeline.timestamps, timeline.duration).duration


def frame_times(source: str | Path | VideoSource) -> tuple[float, ...]:
    """When each frame of a video or of a part of one appears, in seconds from its start; decodes nothing.

    Raises:
        VideoError: as :func:`read_clip`, for all that shows without decoding.
    """
    source = _source(source)
    timeline, _ = _timeline(source)
    return cut(source, timeline.timestamps, timeline.duration).timestamps


def _source(source: str | Path | VideoSource) -> VideoSource:
    """Return a path as a whole file."""
    return source if isinstance(source, VideoSource) else VideoSource(str(source))


def _timeline(source: VideoSource) -> tuple[Timeline, list[str]]:
    """Return when the frames of the whole file or folder are shown; and the pictures' names, of a folder."""
    if source.fps is None:
        return read_timeline(source.path), []
    names = list_frames(source.path)
    return frames_timeline(len(names), source.fps), names


def _choose(
    part: Part, frames: int | None, budget: FrameBudget, grid: PatchGrid
) -> tuple[list[int], float, float]:
    """Places of the wanted frames in a part, and ``duration`` and ``total_frames`` of the clip they make.

    A clip of ``frames`` frames has ``frames - 1`` gaps between the first and the last of the part. Its clock
    ticks right if each frame stands for one gap; the last one's share then reaches past the end. A single
    frame stands for all there is.
    """
    if frames is None:
        count = count_frames(part.duration, len(part.times), budget, grid)
        return sample_indices(part.timestamps, part.duration, count), part.duration, part.total_frames
    chosen = evenly_spaced(len(part.times), frames)
    span = part.times[-1] - part.times[0]
    if frames == 1 or span <= 0:
        return chosen, part.duration, part.total_frames
    duration = span * frames / (frames - 1)
    return chosen, duration, duration * (len(part.times) - 1) / span


def _decoder(name: str) -> Decoder:
    """Return the decoder of a name.

    Raises:
        UserError: a name that is unknown, or decord where it is not installed.
    """
    if name not in DECODERS:
        raise UserError(f"data.loader.decoder must be one of {', '.join(DECODERS)}, got {name!r}")
    if name != "decord":
        return decode_pyav
    if importlib.util.find_spec("decord") is None:
        raise UserError("data.loader.decoder=decord: decord is not installed; install it or take pyav")
    return decode_decord


def _decode(
    path: Path,
    timeline: Timeline,
    indices: Sequence[int],
    decode: Decoder,
    budget: FrameBudget,
    grid: PatchGrid,
) -> Tensor:
    """Return ``[T, 3, H, W]`` uint8, resized, one frame for each of ``indices``."""
    unique = sorted(set(indices))
    frames = _resize(path, decode(path, timeline, unique), len(indices), budget, grid)
    if len(frames) != len(unique):
        raise VideoError(f"{path}: {len(frames)} of {len(unique)} wanted frames come out; fetch it again")
    if len(unique) == len(indices):
        return frames
    places = {index: place for place, index in enumerate(unique)}
    return frames[[places[index] for index in indices]]


def _resize(
    path: Path, chunks: Iterable[Pictures], count: int, budget: FrameBudget, grid: PatchGrid
) -> Tensor:
    """Chunks joined, at the size that a clip of ``count`` frames may have: ``[T, 3, H, W]``.

    Each chunk is resized before the next is decoded, so one chunk of full-size frames is held at a time.

    Raises:
        VideoError: a frame without area or too long; frames of several shapes.
    """
    resized: list[Tensor] = []
    size, first = (0, 0), (0, 0)
    for pixels, height, width in chunks:
        if not resized:
            first = (height, width)
            try:
                size = frame_size(height, width, count, budget, grid)
            except VideoError as error:
                raise VideoError(f"{path}: {error}") from error
        change = height * first[1] / (width * first[0])
        if not 1 / _SHAPE_CHANGE <= change <= _SHAPE_CHANGE:
            raise VideoError(
                f"{path}: its picture changes from {first[1]}x{first[0]} to {width}x{height}, another shape; "
                "split it, or bring all frames to one shape"
            )
        # Bicubic with antialiasing on uint8, as qwen_vl_utils and the model's own processor do.
        resized.append(
            image.resize(pixels, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
        )
    return torch.cat(resized) if resized else torch.empty(0, 3, *size, dtype=torch.uint8)
