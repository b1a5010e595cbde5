"""Files that are cut, cut short, jump in time, are turned or change: shown right, or refused for a reason."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.packet import Packet
from numbered import COUNT, KINDS, copy_packets, cut_off, numbers, picture, write_numbered
from PIL import Image

from vcr1.errors import VideoError
from vcr1.records import VideoSource
from vcr1.video import FrameBudget, PatchGrid, read_clip, read_timeline, video_duration

GRID = PatchGrid()
BUDGET = FrameBudget(fps=10, min_pixels=56 * 56, total_pixels=56 * 56 * COUNT)


def after(first: int) -> object:
    """Leaves out the packets before a number."""
    return lambda number, packet: number >= first


@pytest.mark.parametrize("kind", ["h264", "h264 open", "hevc open", "mpeg4 b", "vp9"])
@pytest.mark.parametrize("ending", ["mkv", "avi"])
def test_a_cut_between_key_frames_is_refused_where_nothing_can_be_shown(
    tmp_path: Path, kind: str, ending: str
) -> None:
    if kind == "hevc open" and ending == "avi":
        ending = "ts"  # AVI knows no H.265
    whole = write_numbered(tmp_path / f"whole.{ending}", kind)
    path = copy_packets(whole, tmp_path / f"cut.{ending}", after(7))
    with pytest.raises(VideoError, match=r"begins between two key frames.*cut it at a key frame") as caught:
        read_clip(path, BUDGET, GRID)
    assert str(caught.value).startswith(f"{path}: ")
    if ending != "avi":  # frames behind the key frame are the right ones
        clip = read_clip(VideoSource(str(path), 3.0, 4.0), BUDGET, GRID)
        assert numbers(clip.frames) == [index + 7 for index in clip.indices]


@pytest.mark.parametrize(("kind", "first"), [("h264 open", 17), ("hevc open", 17), ("mpeg2 b", 10)])
@pytest.mark.parametrize("ending", ["mkv", "ts"])
def test_a_cut_at_an_open_key_frame_begins_with_it(
    tmp_path: Path, kind: str, first: int, ending: str
) -> None:
    whole = write_numbered(tmp_path / f"whole.{ending}", kind)
    path = copy_packets(whole, tmp_path / f"cut.{ending}", after(first))
    key = 12 if kind == "mpeg2 b" else 20  # frames before it in time refer to what was cut off
    clip = read_clip(path, BUDGET, GRID)
    assert clip.timestamps[0] == 0.0
    assert numbers(clip.frames) == [index + key for index in clip.indices]


def test_a_cut_intra_refresh_is_refused_until_its_picture_is_whole(tmp_path: Path) -> None:
    whole = write_numbered(tmp_path / "whole.mkv", "h264 refresh", count=100)
    path = copy_packets(whole, tmp_path / "cut.mkv", after(20))
    with pytest.raises(VideoError, match=r"the frame at 0\.000 s cannot be decoded"):
        read_clip(path, BUDGET, GRID)
    clip = read_clip(VideoSource(str(path), 4.0, 6.0), BUDGET, GRID)
    assert numbers(clip.frames) == [index + 20 for index in clip.indices]


@pytest.mark.parametrize(
    ("kind", "ending", "share"),
    [
        *[("h264", ending, share) for ending in ("mkv", "avi", "wmv", "3gp") for share in (0.6, 0.97)],
        *[("vp9", "webm", 0.5), ("vp9", "ivf", 0.5), ("gif", "gif", 0.5), ("gif", "gif", 0.98)],
        *[("h264", "flv", 0.5), ("vp8", "ogv", 0.5), ("vp8", "ogv", 0.9)],
    ],
)
def test_a_file_cut_short_is_refused(tmp_path: Path, kind: str, ending: str, share: float) -> None:
    path = cut_off(write_numbered(tmp_path / f"a.{ending}", kind), tmp_path / f"b.{ending}", share)
    with pytest.raises(VideoError, match="cut short"):
        video_duration(path)


def test_sound_may_outlast_the_pictures_of_a_matroska_file(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=8000)
        for number in range(20):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 9), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    assert video_duration(path) == pytest.approx(2.0, abs=0.002)


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_equal_times_give_as_many_frames_as_times(tmp_path: Path, ending: str) -> None:
    def pair(number: int, packet: Packet) -> None:
        unit = Fraction(1, 5) / packet.time_base
        packet.pts = int(number // 2 * unit)
        packet.dts = packet.pts if ending == "mkv" else int((number - COUNT) * unit / 2)

    whole = write_numbered(tmp_path / f"whole.{ending}", "h264 no b")
    path = copy_packets(whole, tmp_path / f"pairs.{ending}", pair)
    for budget in (BUDGET, FrameBudget(fps=2, min_pixels=784, total_pixels=784 * 60)):
        for decoder in ("pyav", "decord"):
            clip = read_clip(path, budget, GRID, decoder=decoder)
            assert len(clip.frames) == len(clip.timestamps) == len(clip.indices)
            assert numbers(clip.frames) == list(clip.indices)  # of two the later one, which stays
    everything = read_clip(path, BUDGET, GRID, frames=COUNT)
    assert numbers(everything.frames) == list(range(COUNT))
    assert everything.timestamps[:4] == pytest.approx([0.0, 0.0, 0.2, 0.2])


@pytest.mark.parametrize("kind", ["h264", "hevc open", "mpeg2 b"])
def test_a_clock_that_starts_again_is_refused(tmp_path: Path, kind: str) -> None:
    once = write_numbered(tmp_path / "once.ts", kind)
    twice = tmp_path / "twice.ts"
    twice.write_bytes(once.read_bytes() * 2)
    with pytest.raises(VideoError, match="its clock jumps back after"):
        read_clip(twice, BUDGET, GRID)


def test_a_leap_of_a_broadcast_clock_is_refused_and_a_long_pause_is_not(tmp_path: Path) -> None:
    def leap(number: int, packet: Packet) -> None:
        if number >= 40:
            packet.pts += int(1000 / packet.time_base)
            packet.dts += int(1000 / packet.time_base)

    broadcast = copy_packets(write_numbered(tmp_path / "a.ts", "h264"), tmp_path / "leap.ts", leap)
    with pytest.raises(VideoError, match=r"its clock jumps by 1000\.1 s after 3\.9 s"):
        video_duration(broadcast)
    pause = copy_packets(write_numbered(tmp_path / "a.mp4", "h264"), tmp_path / "leap.mp4", leap)
    clip = read_clip(pause, BUDGET, GRID, frames=COUNT)
    assert numbers(clip.frames) == list(range(COUNT))
    assert video_duration(pause) == pytest.approx(1006.0)


def test_a_clock_that_wraps_goes_on(tmp_path: Path) -> None:
    def late(number: int, packet: Packet) -> None:
        packet.pts += 2**33 - 3 * 90_000
        packet.dts += 2**33 - 3 * 90_000

    path = copy_packets(write_numbered(tmp_path / "a.ts", "h264 open"), tmp_path / "wraps.ts", late)
    clip = read_clip(path, BUDGET, GRID)
    assert numbers(clip.frames) == list(range(COUNT))
    assert clip.duration == pytest.approx(6.0)


@pytest.mark.parametrize("kind", ["h264", "h264 open", "hevc open", "mpeg4 b"])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_a_variable_rate_with_reordered_frames_has_its_times(tmp_path: Path, kind: str, ending: str) -> None:
    times = [0, 100, 200, 1000, 1500, 1600, 1700, 1800, 2500, 2600, 2700, 5000, 5033, 5066, 7000, 7033]
    path = write_numbered(tmp_path / f"variable.{ending}", kind, times=times, count=len(times))
    timeline = read_timeline(path)
    assert timeline.timestamps == pytest.approx([time / 1000 for time in times], abs=0.002)
    assert 7.033 < timeline.duration <= 7.033 + 0.1  # lengths of frames: 33 ms to 100 ms, but for pauses
    clip = read_clip(path, BUDGET, GRID)
    assert numbers(clip.frames) == list(clip.indices)


@pytest.mark.parametrize(("kind", "ending"), [("h264", "h264"), ("hevc open", "hevc"), ("mpeg2 b", "m2v")])
def test_a_raw_stream_is_refused_for_what_it_lacks(tmp_path: Path, kind: str, ending: str) -> None:
    path = write_numbered(tmp_path / f"raw.{ending}", kind)
    with pytest.raises(VideoError, match="a raw stream, which states no times; put it into a container"):
        read_clip(path, BUDGET, GRID)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_all_eight_ways_to_turn_a_picture_are_heeded(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    path = write_numbered(
        tmp_path / "turned.mp4",
        "h264 no b",
        prepare=lambda stream: stream.set_display_rotation(degrees, hflip=mirrored),
    )
    # Degrees count against the clock; the picture is mirrored after it was turned.
    turns = [np.rot90(picture(n), degrees // 90)[:, :: -1 if mirrored else 1] for n in range(COUNT)]
    for decoder in ("pyav", "decord"):
        clip = read_clip(path, BUDGET, GRID, decoder=decoder)
        expected = torch.from_numpy(np.stack([turns[index] for index in clip.indices]).copy())
        assert numbers(clip.frames) == numbers(expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize(("aspect", "shape"), [((2, 1), (56, 112)), ((1, 2), (112, 56)), ((1, 1), (56, 56))])
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_pixels_that_are_not_square_are_stretched(
    tmp_path: Path, aspect: tuple[int, int], shape: tuple[int, int], decoder: str
) -> None:
    def prepare(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(*aspect)

    path = write_numbered(tmp_path / "wide.mp4", "h264", prepare=prepare)
    clip = read_clip(path, BUDGET, GRID, decoder=decoder)
    assert clip.frames.shape[-2:] == shape
    assert numbers(clip.frames) == list(clip.indices)

    def turn(stream: av.VideoStream) -> None:
        prepare(stream)
        stream.set_display_rotation(90)

    turned = write_numbered(tmp_path / "turned.mp4", "h264", prepare=turn)
    assert read_clip(turned, BUDGET, GRID, decoder=decoder).frames.shape[-2:] == shape[::-1]


def write_two_sizes(path: Path, width: int, height: int) -> Path:
    """30 frames of 64 x 64 and 30 of another size in one transport stream."""
    codec, options = KINDS["h264 no b"]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        second = av.CodecContext.create(codec, "w")
        second.width, second.height, second.pix_fmt = width, height, "yuv420p"
        second.time_base, second.framerate, second.options = Fraction(1, 10), Fraction(10), options
        for start, encoder, size in ((0, stream, (64, 64)), (30, second, (height, width))):
            frames: list[av.VideoFrame | None] = []
            for number in range(start, start + 30):
                frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                frames.append(frame)
            for frame in (*frames, None):
                for packet in encoder.encode(frame):
                    packet.time_base = Fraction(1, 10) if encoder is second else packet.time_base
                    packet.stream = stream
                    container.mux(packet)
    return path


def test_a_stream_may_change_its_size_but_not_its_shape(tmp_path: Path) -> None:
    same = write_two_sizes(tmp_path / "same.ts", 128, 128)
    clip = read_clip(same, BUDGET, GRID)
    assert numbers(clip.frames) == list(clip.indices)
    assert len(clip.indices) == COUNT
    other = write_two_sizes(tmp_path / "other.ts", 128, 64)
    with pytest.raises(VideoError, match="changes from 64x64 to 128x64, another shape"):
        read_clip(other, BUDGET, GRID)
    assert numbers(read_clip(VideoSource(str(other), 3.5, 5.0), BUDGET, GRID).frames)[0] == 35


@pytest.mark.parametrize(
    "name",
    [
        "-x.mp4",
        "a:b.mp4",
        "http:x.mp4",
        "pipe:0",
        "file:y.mp4",
        "x_%03d.mp4",
        "%d",
        "concat:a|b",
        "caf\udce9.mp4",
    ],
)
def test_any_name_is_the_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes(write_numbered(tmp_path / "plain.mp4", "h264").read_bytes())
    monkeypatch.chdir(tmp_path)
    for path in (name, str(tmp_path / name)):
        assert numbers(read_clip(path, BUDGET, GRID).frames) == list(range(COUNT))


@pytest.mark.parametrize("name", ["img_%03d.png", "http://localhost:9/x.mp4", "pipe:", "concat:a.ts|a.ts"])
def test_a_pattern_or_an_address_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_numbered(tmp_path / "a.ts", "h264")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError, match="no such file"):
        video_duration(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{}\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{}\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile {}\n"),
        ("call.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    ],
)
def test_a_playlist_opens_nothing(tmp_path: Path, name: str, text: str) -> None:
    other = write_numbered(tmp_path / "other.ts", "h264")
    (tmp_path / name).write_text(text.format(other))
    with pytest.raises(VideoError, match="not a readable video"):
        video_duration(tmp_path / name)


def test_a_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "img_001.png"
    Image.fromarray(picture(1)).save(path)
    with pytest.raises(VideoError, match="of a format that vcr1 opens"):
        video_duration(path)
