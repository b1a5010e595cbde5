"""Real files that end, fill or occupy a decoder: small ones that claim to be large."""

import struct
from contextlib import suppress
from pathlib import Path

import av
import pytest

from vcr1.errors import VideoError
from vcr1.video import DecodeLimits, FrameBudget, GuardedReader, PatchGrid

BUDGET, GRID = FrameBudget(), PatchGrid()


def say(reader: GuardedReader, path: Path) -> str:
    with pytest.raises(VideoError) as caught:
        reader.clip(path, BUDGET, GRID)
    return str(caught.value)


def falsified(content: bytes, *changes: tuple[bytes, int, int]) -> bytes:
    """An MP4 with other numbers in its boxes: (name of a box, bytes from its name on, number)."""
    result = bytearray(content)
    for box, offset, number in changes:
        at = content.index(box) + offset
        result[at : at + 4] = struct.pack(">I", number)
    return bytes(result)


@pytest.mark.parametrize("number", [10**7, 2**31])
def test_a_falsified_count_of_samples_costs_its_file(clip: Path, tmp_path: Path, number: int) -> None:
    """decord 0.6 ends its process by it: SIGABRT."""
    path = tmp_path / "falsified.mp4"
    for change in ((b"stts", 12, number), (b"stsz", 12, number)):
        path.write_bytes(falsified(clip.read_bytes(), change))
        for decoder in ("decord", "pyav"):
            reader = GuardedReader(decoder, DecodeLimits(10.0, 1.0))
            with suppress(VideoError):
                assert reader.clip(path, BUDGET, GRID).duration == 4.0
    reader.clip(clip, BUDGET, GRID)


def test_ten_million_frames_in_a_small_file_are_not_counted_for_ever(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "flood.mp4"
    many = 10**7
    changes = [
        (b"stsz", 8, 1),
        (b"stsz", 12, many),
        (b"stts", 12, many),
        (b"stsc", 8, 1),
        (b"stsc", 16, many),
    ]
    path.write_bytes(falsified(clip.read_bytes(), *changes))
    words = say(GuardedReader("pyav", DecodeLimits(0.5, 0.5)), path)
    assert "CPU seconds (data.loader.decode_seconds)" in words or "GiB of memory" in words


def test_a_small_file_of_large_pictures_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2, options={"preset": "ultrafast", "threads": "1"})
        stream.width = stream.height = 8192
        frame = av.VideoFrame(8192, 8192, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert path.stat().st_size < 300_000
    for memory, decoder in ((0.1, "pyav"), (0.1, "decord")):
        words = say(GuardedReader(decoder, DecodeLimits(60.0, memory)), path)
        assert words.startswith(f"{path}: takes more than 0.1 GiB of memory to decode")
