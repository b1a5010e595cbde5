"""When each frame of a video file is on screen, read from its packets without decoding a picture.

Two kinds of files are told apart. Where every packet states a presentation time of its own, a frame is found
by that time. Elsewhere (AVI, WMV and MPEG program streams state decoding times only, or the times of some
frames; some files repeat times) a frame is found by counting: decoders give frames in the order in which they
are presented, so the k-th frame belongs to the k-th time.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vcr1.errors import VideoError
from vcr1.video.access import starts_afresh
from vcr1.video.completeness import check_complete, check_size
from vcr1.video.opening import RAW_FORMATS, check_file, open_video

_REORDERING = 32
"""Packets by which decoding order may differ from presentation order: codecs allow 16 frames of two
fields."""

_LEAP = 10.0
"""Seconds between two frames of a broadcast format that are no pause but another clock, as FFmpeg has it."""

_REMUX = "write it anew (ffmpeg -i OLD NEW.mp4)"


class Entry(NamedTuple):
    """A packet at which decoding may begin: frames presented from its own on come out right.

    Attributes:
        packet: its number in the file's order.
        pts: presentation time of its frame.
    """

    packet: int
    pts: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """The frames of a video stream in time.

    Attributes:
        pts: presentation times of all frames in units of ``time_base``, ascending; some may be equal.
        time_base: seconds per unit.
        duration: seconds from the first frame's appearance to the last one's end.
        frame_bytes: bytes of one decoded RGB frame of the source.
        counted: frames have to be found by counting, not by their times.
        entries: where decoding may begin, in the file's order and that of time; the first one is the first
            key frame, whatever it is worth.
        closed: every key frame is such an entry, and divides the frames alike in the file's order and in
            time.
        pixel_aspect: width of a pixel over its height, as presented.
    """

    pts: tuple[int, ...]
    time_base: Fraction
    duration: float
    frame_bytes: int
    counted: bool = False
    entries: tuple[Entry, ...] = ()
    closed: bool = False
    pixel_aspect: Fraction = Fraction(1)

    @property
    def timestamps(self) -> list[float]:
        """Presentation times in seconds, counted from the first frame."""
        return [float((pts - self.pts[0]) * self.time_base) for pts in self.pts]


class _Stamp(NamedTuple):
    """The times that a packet states, and its number in the file's order."""

    number: int
    pts: int | None
    dts: int | None
    duration: int


def read_timeline(path: str | Path) -> Timeline:
    """Read the presentation times of all frames, from the packets alone.

    Raises:
        VideoError: a file that is missing, empty, damaged, cut short, or holds no video or no frame; one
            that states no times, or whose clock jumps.
    """
    path = Path(path)
    check_file(path)  # before anything opens it: opening a pipe would wait for a writer
    check_size(path)
    with open_video(path) as (container, stream):
        stamps, keys, last = _read_packets(container, stream)
        if not stamps or last is None or stream.time_base is None:
            raise VideoError(f"{path}: the video stream holds no frame; fetch the file again")
        base, formats = stream.time_base, set(container.format.name.split(","))
        if "mpeg" in formats and stream.codec_context.name in ("h264", "hevc"):
            # It states so few times that the last reordered frame may get its neighbour's.
            raise VideoError(
                f"{path}: H.264 or HEVC in an MPEG program stream, which does not state the time of every "
                "frame; convert it (ffmpeg -i OLD NEW.mp4)"
            )
        counted = _must_count(stamps, stream)
        times = _times(path, stamps, counted, raw=bool(formats & RAW_FORMATS))
        _check_clock(path, stamps, times, base, broadcast=bool(formats & {"mpegts", "mpeg"}))
        ends = max(times) + _last_length(path, stamps, times, stream)
        check_complete(path, container, stream, float(ends * base), last)
        entries = _entries(keys) or [Entry(0, min(times))]
        if not counted and entries[0].packet == 0:
            # Frames that are presented before the first key frame, but follow it in the file, refer to some
            # that are not there. No decoder shows them: the video begins with the key frame.
            times = [time for time in times if time >= entries[0].pts]
        return Timeline(
            pts=tuple(sorted(times)),
            time_base=base,
            duration=float((ends - min(times)) * base),
            frame_bytes=3 * max(stream.height, 1) * max(stream.width, 1),
            counted=counted,
            entries=tuple(entries),
            closed=not counted and len(entries) == len(keys) and _are_closed(stamps, entries),
            pixel_aspect=stream.sample_aspect_ratio or Fraction(1),
        )


class _Key(NamedTuple):
    """A key frame, and whether decoding may begin at it."""

    entry: Entry
    fresh: bool


def _read_packets(
    container: InputContainer, stream: VideoStream
) -> tuple[list[_Stamp], list[_Key], Packet[VideoStream] | None]:
    """Return the stamps of all packets that give a frame, the key frames, and the last packet."""
    stamps: list[_Stamp] = []
    keys: list[_Key] = []
    last, steady = None, True
    vp8 = stream.codec_context.name == "vp8"
    for number, packet in enumerate(container.demux(stream)):
        if not packet.size:  # the last one, which flushes the decoder
            continue
        last = packet
        # Parameters that change in the file would be missed by who skips the packet that brings them.
        steady &= not (number and packet.has_sidedata("new_extradata"))
        if packet.is_keyframe:
            fresh = steady and not packet.is_discard and starts_afresh(packet, stream.codec_context)
            keys.append(_Key(Entry(number, packet.pts or 0), fresh))
        # Discarded packets lie before the start that an edit list gives. A frame of VP8 without the bit
        # "show_frame" (RFC 6386, 9.1) is there for others to refer to.
        if not (packet.is_discard or (vp8 and not memoryview(packet)[0] & 16)):
            stamps.append(_Stamp(number, packet.pts, packet.dts, packet.duration or 0))
    return stamps, keys, last


def _entries(keys: list[_Key]) -> list[Entry]:
    """Return the first key frame, and those behind it at which decoding may begin."""
    entries = [key.entry for key in keys[:1]]
    for entry, fresh in keys[1:]:
        if fresh and entry.pts > entries[-1].pts:
            entries.append(entry)
    return entries


def _are_closed(stamps: list[_Stamp], entries: list[Entry]) -> bool:
    """Return whether the frames before and behind each entry in the file are so in time, too."""
    places = {stamp.number: place for place, stamp in enumerate(stamps)}
    pts = [stamp.pts or 0 for stamp in stamps]
    before = [pts[0] - 1, *accumulate(pts, max)]
    behind = [*accumulate(reversed(pts), min)][::-1]
    return all(
        entry.packet in places and before[places[entry.packet]] < entry.pts <= behind[places[entry.packet]]
        for entry in entries
    )


def _must_count(stamps: list[_Stamp], stream: VideoStream) -> bool:
    """Return whether packets do not tell the presentation times of their own frames."""
    pts = [stamp.pts for stamp in stamps]
    if None in pts or len(set(pts)) < len(pts):
        return True
    # A stream with reordered frames whose times are those of decoding: its container knows no others.
    return stream.codec_context.has_b_frames and all(stamp.pts == stamp.dts for stamp in stamps)


def _times(path: Path, stamps: list[_Stamp], counted: bool, raw: bool) -> list[int]:
    """Return times of all frames, in the file's order; of counted ones, only the sorted times mean anything.

    Raises:
        VideoError: the file states none.
    """
    pts = [stamp.pts for stamp in stamps if stamp.pts is not None]
    dts = [stamp.dts for stamp in stamps if stamp.dts is not None]
    if not counted or len(pts) == len(stamps):
        return pts
    if len(dts) == len(stamps):
        return dts
    lengths = [stamp.duration for stamp in stamps]
    if not any(lengths):
        if raw:
            raise VideoError(
                f"{path}: a raw stream, which states no times; put it into a container with its frame rate "
                "(ffmpeg -framerate RATE -i RAW -c copy NEW.mp4)"
            )
        if not dts:
            raise VideoError(f"{path}: states no times, or was cut short; {_REMUX}, or fetch it again")
        lengths = _guessed_lengths(path, stamps)
    return _filled([stamp.dts for stamp in stamps], lengths)


def _filled(dts: list[int | None], lengths: list[int]) -> list[int]:
    """Decoding times: those that are stated, and between them as the frames' lengths tell."""
    offsets = [0, *accumulate(lengths)]
    anchor, begin = next(((i, time) for i, time in enumerate(dts) if time is not None), (0, 0))
    shift, times = begin - offsets[anchor], []
    for time, offset in zip(dts, offsets, strict=False):
        shift = shift if time is None else time - offset
        times.append(shift + offset)
    return times


def _guessed_lengths(path: Path, stamps: list[_Stamp]) -> list[int]:
    """Return lengths of frames as FFmpeg takes them from the stream's frame rate.

    Raises:
        VideoError: a stream without one.
    """
    with open_video(path, guess_times=True) as (container, stream):
        lengths = [packet.duration or 0 for packet in container.demux(stream)]
    if len(lengths) <= stamps[-1].number or not all(lengths[stamp.number] for stamp in stamps):
        raise VideoError(f"{path}: states neither times nor a frame rate for some frames; {_REMUX}")
    return [lengths[stamp.number] for stamp in stamps]


def _check_clock(path: Path, stamps: list[_Stamp], times: list[int], base: Fraction, broadcast: bool) -> None:
    """Raise VideoError where the clock jumps: then equal times would mean different frames."""
    highest = list(accumulate(times, max))
    dts = [stamp.dts for stamp in stamps if stamp.dts is not None]
    back = next((old for old, new in pairwise(dts) if new < old), None)
    if back is None:
        back = next((old for old, new in zip(highest, times[_REORDERING:], strict=False) if new < old), None)
    if back is not None:
        at = float((back - min(times)) * base)
        raise VideoError(f"{path}: its clock jumps back after {at:.1f} s; {_REMUX}")
    ordered = sorted(times) if broadcast else []
    for old, new in pairwise(ordered):
        if (new - old) * base > _LEAP:
            at, leap = float((old - ordered[0]) * base), float((new - old) * base)
            raise VideoError(f"{path}: its clock jumps by {leap:.1f} s after {at:.1f} s; {_REMUX}")


def _last_length(path: Path, stamps: list[_Stamp], times: list[int], stream: VideoStream) -> Fraction:
    """Return how long the frame that is presented last is shown, in units of the time base.

    It lasts as its packet says. MP4 states lengths in decoding order, so where frames are reordered and
    lengths differ, they are those of other frames. Without a length it lasts as frames of about the median
    length do, or as the one before it if that is shorter. A single frame lasts as the stream's rate says.

    Raises:
        VideoError: a single frame of unknown length.
    """
    place = max(range(len(times)), key=lambda number: (times[number], number))
    reordered = any(later < earlier for earlier, later in pairwise(times))
    even = len({stamp.duration for stamp in stamps}) == 1
    if stamps[place].duration > 0 and (even or not reordered):
        return Fraction(stamps[place].duration)
    gaps = [later - earlier for earlier, later in pairwise(sorted(times)) if later > earlier]
    if gaps:
        middle = median(gaps)
        near = [gap for gap in gaps if abs(gap - middle) <= middle / 2] or [round(middle)]
        usual = Fraction(sum(near), len(near))
        return usual if gaps[-1] in near else min(usual, Fraction(gaps[-1]))
    rate = stream.average_rate or stream.guessed_rate
    if rate and stream.time_base:
        return 1 / (rate * stream.time_base)
    raise VideoError(f"{path}: one frame of unknown length; leave the file out of the annotations")
