"""A video that was published as a folder of pictures, one for each frame."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from vcr1.errors import VideoError
from vcr1.video.decoding import Pictures
from vcr1.video.timeline import Timeline

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""Endings of the pictures' names, in small or capital letters."""

MAX_PICTURE_PIXELS = 2**26
"""Most pixels of a picture, twice those of 8K: a few bytes of PNG may unpack to gigabytes."""

_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)
"""EXIF's tag for how a picture is to be turned, and its values that swap the sides."""

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Kinds of pixels with at most eight bits to a colour; others (depth in 16 bits, floats) cannot be shown."""


def list_frames(folder: str | Path) -> list[str]:
    """Return names of the pictures in a folder, in natural order: ``img_2.jpg`` comes before ``img_10.jpg``.

    Other files, folders and hidden names (``._1.jpg``, as macOS leaves them) are passed over.

    Raises:
        VideoError: no folder, or one without pictures.
    """
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.lower().endswith(SUFFIXES) and entry.name[0] != "." and entry.is_file()
            ]
    except FileNotFoundError as error:
        raise VideoError(
            f"{folder}: no such folder; check data.root and the annotation's video name"
        ) from error
    except NotADirectoryError as error:
        raise VideoError(
            f"{folder}: frames per second (fps) are given, but it is no folder of frames; leave fps out of "
            "the annotation, a file knows its own times"
        ) from error
    except (OSError, ValueError) as error:  # no permission, a name too long, a zero byte in the name
        raise VideoError(f"{folder}: cannot be opened ({error})") from error
    if not names:
        raise VideoError(f"{folder}: the folder holds no {', '.join(SUFFIXES)}; unpack its frames again")
    return sorted(names, key=_natural)


def frames_timeline(count: int, fps: float) -> Timeline:
    """Return when each of ``count`` pictures is shown, at ``fps`` pictures per second, each equally long."""
    second = Fraction(str(fps))  # as it is written: 29.97 is 2997/100, its float is a little less
    return Timeline(
        pts=tuple(range(count)),
        time_base=1 / second,
        duration=float(count / second),
        frame_bytes=0,  # pictures are read one at a time
    )


def decode_frames(folder: Path, names: Sequence[str], indices: Sequence[int]) -> Iterator[Pictures]:
    """Give the wanted pictures one by one, upright; transparency is left out.

    Args:
        folder: where they lie.
        names: of all pictures, in order.
        indices: which of them are wanted.

    Raises:
        VideoError: a picture that is broken, too large or of an unusual kind; the message names it.
    """
    for index in indices:
        pixels = _read_picture(folder / names[index])
        yield Pictures(torch.from_numpy(pixels).permute(2, 0, 1)[None], *pixels.shape[:2])


def picture_size(path: Path) -> tuple[int, int]:
    """Return height and width of a picture as it is shown, in pixels; its pixels are not decoded.

    Raises:
        VideoError: not a picture that :func:`decode_frames` would read; the message names it.
    """
    with _opened(path) as picture:
        turned = picture.getexif().get(_ORIENTATION, 1) in _QUARTER_TURNS
        return (picture.width, picture.height) if turned else (picture.height, picture.width)


def _read_picture(path: Path) -> np.ndarray:
    """Return ``[H, W, 3]`` uint8, RGB."""
    with _opened(path) as picture:
        if picture.mode not in _MODES:
            raise VideoError(f"{path}: pixels of kind {picture.mode}; convert the picture to 8 bits RGB")
        return np.array(ImageOps.exif_transpose(picture).convert("RGB"))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture behind a path; whatever goes wrong with it within becomes a VideoError that names it."""
    try:
        # What PIL has to say of odd metadata does not concern a run's log.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=("JPEG", "PNG", "WEBP")) as picture,
        ):
            if picture.width * picture.height > MAX_PICTURE_PIXELS:
                raise VideoError(
                    f"{path}: a picture of {picture.width}x{picture.height} pixels, "
                    f"more than {MAX_PICTURE_PIXELS}; make it smaller"
                )
            yield picture
    # PIL's plugins answer broken files with whatever their parsing meets.
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        KeyError,
        IndexError,
        Image.DecompressionBombError,
    ) as error:
        reason = str(error).replace(str(path), "it").split("\n", 1)[0][:200]
        raise VideoError(f"{path}: not a readable picture ({reason}); fetch it again") from error


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sorts runs of digits as numbers; the name itself decides between ``1.jpg`` and ``01.jpg``."""
    parts = re.split(r"([0-9]+)", Path(name).stem)
    # Text and numbers take turns, so that like is compared with like.
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
