"""Which packets of a stream decoding may begin at: random access points.

A container's mark "key frame" does not say so for H.264. Intra-refresh streams mark frames behind which the
picture is only gradually complete, and a key frame that is no IDR frame may be followed by frames that refer
to what came before it. There the bits of the stream itself decide.
"""

from __future__ import annotations

from collections.abc import Iterator

from av.codec.context import CodecContext
from av.packet import Packet
from av.video.stream import VideoStream

_TRUSTED = frozenset(
    [
        *("hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg1video", "mpeg2video"),
        *("mjpeg", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff", "utvideo"),
    ]
)
"""Codecs whose frames behind a key frame, in decoding and in presentation order, never refer to what precedes
it. Files of all others are decoded from their first frame."""

_IDR, _SEI, _SLICE = 5, 6, 1
_RECOVERY_POINT = 6


def starts_afresh(packet: Packet[VideoStream], codec: CodecContext) -> bool:
    """Return whether decoding may begin at a key frame: frames that are presented after it come out right."""
    name = codec.codec.canonical_name
    if name != "h264":
        return name in _TRUSTED
    extra = codec.extradata or b""
    # ISO 14496-15: "avcC" begins with version 1; without it, units lie between start codes.
    width = (extra[4] & 3) + 1 if extra[:1] == b"\x01" and len(extra) > 4 else 0
    return h264_starts_afresh(bytes(packet), width)


def h264_starts_afresh(frame: bytes, width: int) -> bool:
    """Return whether an H.264 frame is an IDR frame or an exact recovery point (ITU-T H.264, D.2.8).

    Args:
        frame: its units, each behind its length or a start code.
        width: bytes of a length; 0 for start codes.
    """
    recovers = False
    for unit in _units(frame, width):
        kind = unit[0] & 31 if unit else 0
        if kind == _IDR:
            return True
        if kind == _SLICE:
            return recovers
        recovers |= kind == _SEI and _recovers_at_once(unit[1:])
    return False


def _units(frame: bytes, width: int) -> Iterator[bytes]:
    """Yield the first bytes, as many as matter here, of each unit of a frame."""
    if width == 0:
        place = frame.find(b"\0\0\1")
        while place >= 0:
            following = frame.find(b"\0\0\1", place + 3)
            yield frame[place + 3 : following if following >= 0 else None][:4096]
            place = following
        return
    place = 0
    while place + width < len(frame):
        size = int.from_bytes(frame[place : place + width])
        place += width
        yield frame[place : place + min(size, 4096)]
        place += size


def _recovers_at_once(messages: bytes) -> bool:
    """Return whether SEI messages name a recovery point that waits for no frame and gives exact ones."""
    data = messages.replace(b"\0\0\3", b"\0\0")  # emulation prevention
    place = 0
    while place + 1 < len(data):
        kind, place = _sei_number(data, place)
        size, place = _sei_number(data, place)
        if kind == _RECOVERY_POINT and size and place < len(data):
            return data[place] >> 5 == 0b110  # ue(0) is 1; exact_match_flag 1; broken_link_flag 0
        place += size
    return False


def _sei_number(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of an SEI header, a sum of bytes up to the first below 255; and the place behind it."""
    value = 0
    while place < len(data) and data[place] == 255:
        value, place = value + 255, place + 1
    return value + (data[place] if place < len(data) else 0), place + 1
