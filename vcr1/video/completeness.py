"""Telling a file that was cut short, as a broken download leaves it, from a shorter video.

=====================  ================================================================================
MP4, MOV               each box, and each frame in the index, lies within the file
Matroska, WebM         the segment's size, where it is stated (live recordings do not)
AVI                    the size of each RIFF chunk
WMV                    the size in the header
GIF, Ogg               the mark of the end
those, FLV, IVF        the duration that the header states, against the last packet of any stream
all but MPEG-TS        a last packet of which a part is missing
=====================  ================================================================================

MPEG transport and program streams and live recordings state neither size nor duration: half of such a file is
a shorter video. There only the annotation's duration can tell; ``vcr1.check`` compares it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vcr1.errors import VideoError
from vcr1.video.opening import open_video

_STATING = frozenset({"matroska", "webm", "flv", "asf", "avi", "ivf"})
"""Formats whose header states the duration; FFmpeg estimates that of others from the file itself."""

_BOXES = frozenset(
    (b"ftyp moov mdat moof mfra sidx styp free skip wide uuid pdin udta meta emsg prft ssix pnot").split()
)
"""Top-level boxes; behind anything else there may be rubbish, whose sizes mean nothing."""

_MISSING_SECONDS, _MISSING_SHARE = 1.0, 0.05
"""The end may lie so much before the stated one: headers are rounded, and some count from another start."""


def check_complete(
    path: Path, container: InputContainer, stream: VideoStream, end: float, last: Packet[VideoStream]
) -> None:
    """Check that all the packets that the file states are there.

    Args:
        path: the file.
        container: open.
        stream: its video.
        end: seconds at which the last packet of the video ends.
        last: packet of the video, in the file's order.

    Raises:
        VideoError: the file was cut short.
    """
    formats = set(container.format.name.split(","))
    size = path.stat().st_size
    indexed = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if indexed > size:
        raise VideoError(f"{path}: cut short, {size} bytes of at least {indexed}; fetch it again")
    if (last.is_corrupt and "mpegts" not in formats) or not _has_end(path, formats):
        raise VideoError(f"{path}: cut short, its last part is missing; fetch it again")
    if not formats & _STATING or not container.duration:
        return
    duration = container.duration / 1_000_000
    latest = duration - max(_MISSING_SECONDS, _MISSING_SHARE * duration)
    if end < latest and (end := max(end, _last_end(path))) < latest:  # sound may outlast the pictures
        raise VideoError(
            f"{path}: cut short, it ends at {end:.1f} s of the {duration:.1f} s that it states; "
            "fetch it again"
        )


def _last_end(path: Path) -> float:
    """Return seconds at which the last packet of any stream ends."""
    end = 0.0
    with open_video(path) as (container, _):
        for packet in container.demux():
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None and packet.time_base is not None:
                end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
    return end


def check_size(path: Path) -> None:
    """Check that a file is as long as its own structure says, before FFmpeg meets it.

    Raises:
        VideoError: it was cut short.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
            size = file.seek(0, os.SEEK_END)
            stated = _stated_size(file, start)
    except (OSError, ValueError):  # no file: to be named by who opens it
        return
    if stated > size:
        raise VideoError(f"{path}: cut short, {size} bytes of at least {stated}; fetch it again")


def _stated_size(file: BinaryIO, start: bytes) -> int:
    """Return bytes that the file must have by its own structure; 0 where it does not say."""
    if start[4:8] in _BOXES:
        return max(_box_ends(file), default=0)
    if start[:4] == b"RIFF":
        return max(_riff_ends(file), default=0)
    if start == bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"):
        return _asf_size(file)
    return _segment_end(file) if start[:4] == b"\x1a\x45\xdf\xa3" else 0


def _has_end(path: Path, formats: set[str]) -> bool:
    """Return whether GIF ends with its semicolon, and Ogg with a whole page marked as the last."""
    if not formats & {"gif", "ogg"}:
        return True
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 2**17), os.SEEK_END)
        end = file.read()
    if "gif" in formats:
        return end.rstrip(b"\0\r\n").endswith(b";")
    # RFC 3533, 6: byte 5 holds flags, of which 4 is "end of stream"; byte 26 and what follows the sizes.
    page = end[max(end.rfind(b"OggS"), 0) :]
    return len(page) > 27 and bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def _asf_size(file: BinaryIO) -> int:
    """Return the size that the header of a WMV file states; 0 of a broadcast (ASF specification, 3.2)."""
    file.seek(0)
    header = file.read(2**16)
    place = header.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    if place < 0 or len(header) < place + 92 or header[place + 88] & 1:
        return 0
    return int.from_bytes(header[place + 40 : place + 48], "little")


def _box_ends(file: BinaryIO) -> Iterator[int]:
    """Yield where the top-level boxes of an MP4 file end (ISO 14496-12, 4.2)."""
    end, total = 0, file.seek(0, os.SEEK_END)
    while end + 8 <= total:
        file.seek(end)
        header = file.read(16)
        size, head = int.from_bytes(header[:4]), 8
        if size == 1 and len(header) == 16:
            size, head = int.from_bytes(header[8:]), 16
        if size < head or header[4:8] not in _BOXES:  # a size of 0 is "up to the end of the file"
            return
        end += size
        yield end


def _riff_ends(file: BinaryIO) -> Iterator[int]:
    """Yield where the RIFF chunks of an AVI file end; large files have several."""
    end = 0
    while True:
        file.seek(end)
        header = file.read(8)
        size = int.from_bytes(header[4:], "little")
        if len(header) < 8 or header[:4] != b"RIFF" or size in (0, 0xFFFFFFFF):  # never filled in
            return
        end += 8 + size
        yield end
        end += size % 2


def _segment_end(file: BinaryIO) -> int:
    """Return where the segment of a Matroska file ends (RFC 8794); 0 where its size is unknown."""
    file.seek(0)
    header = file.read(4096)
    place, size = _ebml_size(header, 4)
    place += size or 0
    if header[place : place + 4] != b"\x18\x53\x80\x67":
        return 0
    place, size = _ebml_size(header, place + 4)
    return 0 if size is None else place + size


def _ebml_size(data: bytes, place: int) -> tuple[int, int | None]:
    """The place behind a variable-length size, and the size; None for "unknown", whose bits are all set."""
    length = 9 - data[place].bit_length() if place < len(data) else 9
    value = int.from_bytes(data[place : place + length]) & ((1 << 7 * length) - 1)
    return place + length, None if length > 8 or value == (1 << 7 * length) - 1 else value
