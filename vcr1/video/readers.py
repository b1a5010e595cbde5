"""Reading sampled clips from video files, parts of them and folders of frames.

=======  =======================================================================================
decord   first choice: H.264, H.265, VP8, VP9, MPEG-4; seeks, so that sparse frames are cheap
PyAV     what decord cannot open or decode (AV1 above all), and machines without decord: it brings
         its own FFmpeg and decodes in sequence up to the last wanted frame
=======  =======================================================================================

Both get their frame numbers from the same :class:`~vcr1.video.timeline.Timeline`, so a clip is the same
whichever decodes it. decord's own timestamps are float32 (0.2 ms off after an hour) and are not used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as image

from vcr1.errors import UserError, VideoError
from vcr1.records import VideoClip, VideoSource
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
from vcr1.video.timeline import Timeline, open_video, read_timeline

Decoder = Callable[[Path, Timeline, Sequence[int]], Iterator[Tensor]]
"""``(path, timeline, ascending frame numbers) -> chunks [n, 3, H, W] uint8`` in the source's size."""

DECODERS = ("auto", "decord", "pyav")

_CHUNK_BYTES = 16 * 2**20
"""Decoded frames asked of decord at a time. It takes about six times as much memory meanwhile (measured at
720p: 16 MiB cost 160 MB, 64 MiB 420 MB and 256 MiB 1.8 GB), and larger chunks are no faster."""


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
        decoder: ``decord``, ``pyav``, or ``auto`` for decord with PyAV as its fallback; for files.
        frames: show exactly so many frames, evenly spaced by number, the first and the last among them,
            whatever the budget's frame rate; None leaves number and times to the budget.

    Returns:
        Frames ``[T, 3, H, W]`` uint8 with their real times, counted from the first frame or the beginning of
        the part; ``indices`` count from the first frame of the file or folder.

    Raises:
        VideoError: a file that is missing, empty, damaged, cut short or without video, or whose wanted
            frames cannot be decoded; a folder without pictures or with broken ones; a part beyond the end.
            The message names the file, the cause and what to do.
        UserError: a decoder that is unknown or not installed; a number of frames that does not fill whole
            temporal patches.
    """
    if frames is not None and frames % grid.temporal:
        multiple = f"a multiple of {grid.temporal}, the frames that the model joins in one"
        raise UserError(f"tasks.<task>.boxes must be {multiple}; got {frames}")
    decoders = _decoders(decoder)
    source = _source(source)
    timeline, names = _timeline(source)
    if names:
        decoders = [lambda folder, _, wanted: decode_frames(folder, names, wanted)]
    part = cut(source, timeline.timestamps, timeline.duration)
    chosen, duration, total_frames = _choose(part, frames, budget, grid)
    indices = [part.first + place for place in chosen]
    return VideoClip(
        frames=_decode(Path(source.path), timeline, indices, decoders, budget, grid),
        indices=tuple(indices),
        timestamps=tuple(part.timestamps[place] for place in chosen),
        duration=duration,
        total_frames=total_frames,
    )


def video_duration(source: str | Path | VideoSource) -> float:
    """Length of a video, or of a part of one, in seconds; no picture is decoded.

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
    """A path as a whole file."""
    return source if isinstance(source, VideoSource) else VideoSource(str(source))


def _timeline(source: VideoSource) -> tuple[Timeline, list[str]]:
    """When the frames of the whole file or folder are shown; and the pictures' names, of a folder."""
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


def _decoders(name: str) -> list[Decoder]:
    """The decoders to try, in order.

    Raises:
        UserError: a name that is unknown, or decord where it is not installed.
    """
    if name not in DECODERS:
        raise UserError(f"data.loader.decoder must be one of {', '.join(DECODERS)}, got {name!r}")
    if name == "pyav":
        return [_decode_pyav]
    if importlib.util.find_spec("decord") is None:
        if name == "decord":
            raise UserError("data.loader.decoder=decord: decord is not installed; install it or take pyav")
        return [_decode_pyav]
    return [_decode_decord] if name == "decord" else [_decode_decord, _decode_pyav]


def _decode(
    path: Path,
    timeline: Timeline,
    indices: Sequence[int],
    decoders: Sequence[Decoder],
    budget: FrameBudget,
    grid: PatchGrid,
) -> Tensor:
    """``[T, 3, H, W]`` uint8, resized, from the first decoder that succeeds.

    Raises:
        VideoError: the last decoder's, if none succeeds.
    """
    unique = sorted(set(indices))
    for decode in decoders:
        try:
            frames = _resize(path, decode(path, timeline, unique), len(indices), budget, grid)
        except VideoError:
            if decode is decoders[-1]:
                raise
        else:
            if len(unique) == len(indices):
                return frames
            return frames[[unique.index(index) for index in indices]]
    raise AssertionError("no decoder to try")


def _resize(path: Path, chunks: Iterable[Tensor], count: int, budget: FrameBudget, grid: PatchGrid) -> Tensor:
    """Chunks ``[n, 3, H, W]`` joined, at the size that a clip of ``count`` frames may have.

    Each chunk is resized before the next is decoded, so one chunk of full-size frames is held at a time.
    """
    resized: list[Tensor] = []
    size: tuple[int, int] | None = None
    for chunk in chunks:
        if size is None:  # the first frame's size holds for all, also where a stream changes midway
            try:
                size = frame_size(chunk.shape[-2], chunk.shape[-1], count, budget, grid)
            except VideoError as error:
                raise VideoError(f"{path}: {error}") from error
        # Bicubic with antialiasing on uint8, as qwen_vl_utils and the model's own processor do.
        resized.append(
            image.resize(chunk, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
        )
    return torch.cat(resized)


@cache
def _decord() -> ModuleType:
    """decord, loaded at first use (it loads an FFmpeg of its own) and silenced; its bridge stays numpy."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _decode_decord(path: Path, timeline: Timeline, indices: Sequence[int]) -> Iterator[Tensor]:
    """Chunks of the wanted frames, by decord.

    Raises:
        VideoError: a file that decord cannot read, or where it finds another stream or other frames.
    """
    decord = _decord()
    errors = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, AssertionError)
    step = max(1, _CHUNK_BYTES // timeline.frame_bytes)
    try:
        # One thread: the data loader's workers are the parallelism.
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        if len(reader) != len(timeline.pts):  # another stream, or an edit list that decord ignores
            raise VideoError(
                f"{path}: decord finds {len(reader)} frames where the file has {len(timeline.pts)}; "
                "set data.loader.decoder=pyav"
            )
        for start in range(0, len(indices), step):
            batch = reader.get_batch(list(indices[start : start + step])).asnumpy()
            if batch[0].nbytes != timeline.frame_bytes:
                raise VideoError(f"{path}: decord reads another stream; set data.loader.decoder=pyav")
            yield torch.from_numpy(batch).permute(0, 3, 1, 2)
    except errors as error:
        raise VideoError(
            f"{path}: decord cannot decode it ({_first_line(error)}); "
            "set data.loader.decoder=pyav or fetch it again"
        ) from error


def _decode_pyav(path: Path, timeline: Timeline, indices: Sequence[int]) -> Iterator[Tensor]:
    """The wanted frames one by one, by PyAV, decoding in sequence up to the last.

    Raises:
        VideoError: a file that cannot be decoded up to the last wanted frame.
    """
    wanted = {timeline.pts[index] for index in indices}
    last = max(wanted)
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = 1  # the data loader's workers are the parallelism
        for frame in container.decode(stream):
            pts = frame.dts if frame.pts is None else frame.pts
            if pts in wanted:
                wanted.remove(pts)
                yield _upright(frame)
            if not wanted or (pts is not None and pts > last):
                break
    if wanted:
        raise VideoError(
            f"{path}: {len(wanted)} of {len(indices)} wanted frames cannot be decoded; fetch it again"
        )


def _upright(frame: av.VideoFrame) -> Tensor:
    """``[1, 3, H, W]`` uint8 RGB, turned as the file's display matrix says (decord does so by itself)."""
    pixels = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]


def _first_line(error: Exception) -> str:
    """The error in one line; decord's go on with a stack of C++ frames."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
