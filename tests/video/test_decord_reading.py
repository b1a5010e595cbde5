"""decord is used only where it is shown to find the right frames."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from numbered import numbers, write_numbered

from vcr1.video import FrameBudget, PatchGrid, Timeline, decord_reading, read_clip, read_timeline
from vcr1.video.decoding import Pictures
from vcr1.video.decord_reading import find_doubt

BUDGET, GRID = FrameBudget(fps=2, min_pixels=56 * 56, total_pixels=56 * 56 * 60), PatchGrid()


@pytest.mark.parametrize(
    ("kind", "ending", "reason"),
    [
        ("h264", "mp4", None),
        ("hevc", "mkv", None),
        ("vp9", "webm", None),
        ("h264 open", "mp4", "not closed"),
        ("hevc open", "mkv", "not closed"),
        ("h264 refresh", "mp4", "not closed"),
        ("mpeg4 b", "avi", "do not state their times"),
        ("h264", "ts", "frame 0 is another one"),  # closed groups, and yet wrong: the pictures tell
    ],
)
def test_a_file_is_looked_at_in_packets_and_pictures(
    tmp_path: Path, kind: str, ending: str, reason: str | None
) -> None:
    path = write_numbered(tmp_path / f"a.{ending}", kind)
    doubt = find_doubt(path, read_timeline(path))
    assert doubt is None if reason is None else doubt is not None and reason in doubt


def test_one_frame_too_late_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_numbered(tmp_path / "a.mp4", "h264")
    right = decord_reading._decode

    def late(path: Path, timeline: Timeline, indices: Sequence[int]) -> Iterator[Pictures]:
        for index in indices:  # as behind a leap to the second key frame
            yield from right(path, timeline, [index + 1 if 20 < index < 40 else index])

    monkeypatch.setattr(decord_reading, "_decode", late)
    assert find_doubt(path, read_timeline(path)) == "its frame 21 is another one there"
    clip = read_clip(path, BUDGET, GRID, decoder="decord")
    assert numbers(clip.frames) == list(clip.indices)


def test_decord_is_what_reads_a_file_that_it_reads_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / "a.mp4", "h264")
    clip = read_clip(path, BUDGET, GRID, decoder="decord")
    assert torch.equal(clip.frames, read_clip(path, BUDGET, GRID, decoder="pyav").frames)
    monkeypatch.setattr(decord_reading, "decode_pyav", None)  # the proof is kept
    again = read_clip(path, BUDGET, GRID, decoder="decord")
    assert torch.equal(clip.frames, again.frames)


def test_the_log_says_once_that_pyav_reads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    decord_reading._warn_once.cache_clear()
    for name in ("a.avi", "b.avi"):
        path = write_numbered(tmp_path / name, "mpeg4 b")
        with caplog.at_level(logging.WARNING):
            read_clip(path, BUDGET, GRID, decoder="decord")
    (message,) = [record.message for record in caplog.records]
    assert message.startswith(
        f"{tmp_path}/a.avi: not read with decord, because its groups of pictures are not"
    )
