from pathlib import Path

import av
import numpy as np
import pytest
import torch
from video_files import stripes

from vcr1.errors import UserError
from vcr1.video.timeline import read_timeline
from vcr1.video.writing import write_mp4


def test_a_file_holds_the_frames_at_their_times(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(path, stripes(6), fps=4)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [frame[60:, 80:].mean() for frame in frames] == pytest.approx(
        [20 + 33 * i for i in range(6)], abs=3
    )
    assert read_timeline(path).timestamps == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    assert read_timeline(path).duration == 1.5


@pytest.mark.parametrize("fps", [29.97, 30_000 / 1001, 0.5, 12])
def test_any_frame_rate_is_kept(tmp_path: Path, fps: float) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(path, stripes(5), fps=fps)
    timeline = read_timeline(path)
    assert timeline.timestamps == pytest.approx([i / fps for i in range(5)], abs=1e-3)
    assert timeline.duration == pytest.approx(5 / fps, abs=1e-3)


def test_frames_may_have_their_own_times(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    times = [0.0, 0.04, 1.0, 3.5]
    write_mp4(path, stripes(4), fps=2, times=times)
    timeline = read_timeline(path)
    assert timeline.timestamps == pytest.approx(times, abs=1e-4)
    assert timeline.duration == pytest.approx(4.0)  # the last frame lasts 1/2 s


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    one, other, third = (tmp_path / name for name in ("one.mp4", "another.mp4", "third.mp4"))
    write_mp4(one, stripes(8), fps=4)
    write_mp4(other, torch.from_numpy(stripes(8)), fps=4)
    write_mp4(third, stripes(8)[::-1], fps=4)
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes() != third.read_bytes()
    assert b"Lavf" not in one.read_bytes()


def test_a_failure_leaves_nothing_and_spares_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"the old one")
    from_ndarray, written = av.VideoFrame.from_ndarray, []

    def fail_at_the_fourth(pixels: np.ndarray, format: str) -> av.VideoFrame:
        written.append(pixels)
        if len(written) == 4:
            raise OSError("No space left on device")
        return from_ndarray(pixels, format=format)

    class Frame:
        from_ndarray = staticmethod(fail_at_the_fourth)

    monkeypatch.setattr(av, "VideoFrame", Frame)
    with pytest.raises(OSError, match="No space left"):
        write_mp4(path, stripes(8), fps=4)
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]
    assert path.read_bytes() == b"the old one"


@pytest.mark.parametrize(
    ("frames", "fps", "times", "message"),
    [
        (stripes(2)[0], 4, None, "T, H, W, 3"),
        (stripes(2)[:0], 4, None, "T, H, W, 3"),
        (stripes(2).astype(np.float32), 4, None, "uint8"),
        (stripes(2)[:, 1:], 4, None, "even sides"),
        (stripes(2), 0, None, "positive"),
        (stripes(2), 4, [0.0], "1 times for 2 frames"),
        (stripes(2), 4, [0.5, 0.5], "ascend"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, frames: np.ndarray, fps: float, times: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_mp4(tmp_path / "clip.mp4", frames, fps, times=times)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no encoder 'h2640'"):
        write_mp4(tmp_path / "clip.mp4", stripes(2), 4, codec="h2640")
