"""Reading within limits: the same clips, and what crashes, hangs or floods costs its sample only."""

import os
import pickle
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from PIL import Image
from video_files import stripes

from vcr1.errors import UserError, VideoError
from vcr1.records import VideoClip, VideoSource
from vcr1.video import (
    DecodeLimits,
    FrameBudget,
    GuardedReader,
    PatchGrid,
    read_clip,
    video_duration,
    write_mp4,
)

BUDGET, GRID = FrameBudget(), PatchGrid()
QUICK = DecodeLimits(seconds=0.5, memory=0.25)
ROOMY = DecodeLimits(seconds=60.0, memory=0.25)
"""For what fills the memory: on some machines that takes more CPU time than ``QUICK`` allows."""

Hostile = Callable[[str], Path]


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hostile:
    """Makes files by whose names the decoder aborts, hangs, floods or stumbles; counts attempts."""

    def behave(source: VideoSource, *args: Any, **kwargs: Any) -> VideoClip:
        name = Path(source.path).stem
        with (tmp_path / "attempts").open("a") as file:
            file.write(f"{name} {os.getpid()}\n")
        if name == "aborts":
            os.abort()
        if name == "hangs":
            time.sleep(600)
        if name == "floods":
            time.sleep(len([torch.ones(10**8, dtype=torch.uint8) for _ in range(4)]))
        if name == "is_killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "stumbles":
            raise IndexError("list index out of range")
        return read_clip(source, *args, **kwargs)

    def make(name: str) -> Path:
        path = tmp_path / f"{name}.mp4"
        write_mp4(path, stripes(8), 4)
        return path

    monkeypatch.setattr("vcr1.video.probing.read_clip", behave)
    return make


def attempts(folder: Path, name: str) -> int:
    return sum(line.split()[0] == name for line in (folder / "attempts").read_text().splitlines())


def say(reader: GuardedReader, path: Path) -> str:
    with pytest.raises(VideoError) as caught:
        reader.clip(path, BUDGET, GRID)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_clip_is_the_same_to_the_last_bit(clip: Path, decoder: str) -> None:
    reader = GuardedReader(decoder)
    for source in (VideoSource(str(clip)), VideoSource(str(clip), 1.0, 3.05)):
        for frames in (None, 6):
            mine = reader.clip(source, BUDGET, GRID, frames=frames)
            plain = read_clip(source, BUDGET, GRID, decoder=decoder, frames=frames)
            assert torch.equal(mine.frames, plain.frames)
            assert mine.frames.shape[0] == len(mine.timestamps) > 0
            assert (mine.timestamps, mine.indices) == (plain.timestamps, plain.indices)
            assert (mine.duration, mine.total_frames) == (plain.duration, plain.total_frames)
        assert reader.duration(source) == video_duration(source)


def test_a_folder_of_pictures_is_read_too(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (64, 64), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
    source = VideoSource(str(tmp_path), fps=2.0)
    assert torch.equal(
        GuardedReader().clip(source, BUDGET, GRID).frames, read_clip(source, BUDGET, GRID).frames
    )
    assert GuardedReader().duration(source) == 2.0


def test_what_is_wrong_is_said_as_without_limits(clip: Path, tmp_path: Path) -> None:
    for path in (tmp_path / ("gone" * 60), tmp_path / ("x" * 5000), tmp_path):
        with pytest.raises(VideoError) as plain:
            read_clip(path, BUDGET, GRID)
        assert say(GuardedReader(), path) == str(plain.value)
    with pytest.raises(UserError, match="decoder must be one of"):
        GuardedReader("opencv").clip(clip, BUDGET, GRID)
    with pytest.raises(UserError, match="boxes must be a multiple of 2"):
        GuardedReader().clip(clip, BUDGET, GRID, frames=3)


def test_a_child_serves_many_and_without_limits_there_is_none(hostile: Hostile, tmp_path: Path) -> None:
    path = hostile("good")
    reader = GuardedReader()
    for _ in range(3):
        reader.clip(path, BUDGET, GRID)
    GuardedReader(limits=DecodeLimits(None, None)).clip(path, BUDGET, GRID)
    processes = [line.split()[1] for line in (tmp_path / "attempts").read_text().splitlines()]
    assert len(set(processes[:3])) == 1
    assert processes[0] != str(os.getpid()) == processes[3]
    reader.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(processes[0]), 0)


# -------------------------------------------------------------------------------------------- what is bad


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("aborts", "the decoder died (SIGABRT); convert the video or leave it out"),
        ("hangs", "the decoder hangs: it did nothing for 1 s"),
        ("floods", "takes more than 0.25 GiB of memory to decode (data.loader.decode_memory); convert"),
    ],
)
def test_a_bad_file_is_named_and_not_met_again(
    hostile: Hostile, tmp_path: Path, name: str, words: str
) -> None:
    path, good, remember = hostile(name), hostile("good"), tmp_path / "run" / "videos.jsonl"
    limits = ROOMY if name == "floods" else QUICK
    reader = GuardedReader("pyav", limits, remember)
    assert say(reader, path).startswith(f"{path}: {words}")
    assert reader.clip(good, BUDGET, GRID).frames.shape[0] == 4
    again = say(reader, path)
    assert again.startswith(f"{path}: {words}")
    assert again.endswith(f"(remembered in {remember})")
    resumed = GuardedReader("pyav", limits, remember)
    assert say(resumed, path) == again
    assert attempts(tmp_path, name) == 1
    assert len(remember.read_text().splitlines()) == 1
    os.utime(path, ns=(0, 0))  # fetched again
    assert "remembered" not in say(resumed, path)
    assert attempts(tmp_path, name) == 2


def test_what_a_file_did_not_do_itself_is_not_remembered(hostile: Hostile, tmp_path: Path) -> None:
    reader = GuardedReader(limits=QUICK, remember=tmp_path / "videos.jsonl")
    assert "killed from outside (SIGKILL); is there enough memory?" in say(reader, hostile("is_killed"))
    path = hostile("stumbles")
    assert say(reader, path).startswith(
        f"{path}: decoding failed with an error that is not foreseen, IndexErr"
    )
    assert not (tmp_path / "videos.jsonl").exists()


def test_a_file_is_not_charged_with_what_was_before(hostile: Hostile, tmp_path: Path) -> None:
    """A decoder that has served others may have been damaged by them: a fresh one decides."""
    reader = GuardedReader(limits=QUICK)
    reader.clip(hostile("good"), BUDGET, GRID)
    assert "SIGABRT" in say(reader, hostile("aborts"))
    assert attempts(tmp_path, "aborts") == 2
    say(reader, hostile("hangs"))  # time is a call's own
    assert attempts(tmp_path, "hangs") == 1


def test_threads_do_not_wait_for_one_that_hangs(hostile: Hostile) -> None:
    reader = GuardedReader(limits=DecodeLimits(2.0, 1.0))
    stuck, good = hostile("hangs"), hostile("good")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(say, reader, stuck)
        assert reader.clip(good, BUDGET, GRID).frames.shape[0] == 4
        assert not waiting.done()
        assert "hangs" in waiting.result()


def test_a_full_disk_does_not_end_the_run(
    hostile: Hostile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    reader = GuardedReader(limits=QUICK, remember=tmp_path / "file" / "videos.jsonl")
    path = hostile("aborts")
    assert "SIGABRT" in say(reader, path)
    assert "cannot be read and written" in caplog.text
    assert "SIGABRT" in say(reader, path)
    assert attempts(tmp_path, "aborts") == 1  # this process knows it all the same


# ------------------------------------------------------------------------------- the life of the children


def test_a_daemonic_process_has_children_of_its_own(hostile: Hostile, tmp_path: Path) -> None:
    """As the workers of a DataLoader are, which `multiprocessing` forbids to have any."""
    path = hostile("good")
    reader = pickle.loads(pickle.dumps(GuardedReader()))
    reader.clip(path, BUDGET, GRID)
    worker = get_context("fork").Process(target=reader.clip, args=(path, BUDGET, GRID), daemon=True)
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    reader.clip(path, BUDGET, GRID)
    mine, its, again = (line.split()[1] for line in (tmp_path / "attempts").read_text().splitlines())
    assert mine == again != its


@pytest.mark.parametrize("hangs", [False, True])
def test_a_child_ends_with_its_parent_and_holds_nothing_of_it(
    hostile: Hostile, tmp_path: Path, hangs: bool
) -> None:
    path, stuck = hostile("good"), hostile("hangs")
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:  # a run
        try:
            reader = GuardedReader()
            if hangs:
                Thread(target=reader.clip, args=(stuck, BUDGET, GRID)).start()
            else:
                reader.clip(path, BUDGET, GRID)
            while not ((tmp_path / "attempts").exists() and (tmp_path / "attempts").read_text()):
                time.sleep(0.01)
            os.write(theirs, b"x")
            time.sleep(600)
        finally:
            os._exit(0)
    os.close(theirs)
    assert os.read(ours, 1) == b"x"
    child = int((tmp_path / "attempts").read_text().split()[1])
    os.kill(child, signal.SIGINT)
    os.kill(child, signal.SIGTERM)  # signals to the whole job are its parent's business
    assert Path(f"/proc/{child}/stat").exists()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert os.read(ours, 1) == b""  # at once: the child holds no copy of the run's pipe
    os.close(ours)
    until = time.monotonic() + 10
    while _lives(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_other_work_is_bounded_step_by_step(tmp_path: Path) -> None:
    source = VideoSource(str(tmp_path / "clip.mp4"))
    reader = GuardedReader(limits=DecodeLimits(seconds=0.3, memory=0.25))

    def slow(moved: Callable[[], None], steps: int) -> int:
        for _ in range(steps):
            moved()
            begin = time.process_time()
            while time.process_time() - begin < 0.1:
                pass
        return steps

    assert reader.run(source, lambda moved: slow(moved, 6)) == 6
    with pytest.raises(VideoError, match=r"clip\.mp4: not decoded within 0\.3 CPU seconds"):
        reader.run(source, lambda moved: slow(lambda: None, 60))

    with pytest.raises(VideoError, match=r"clip\.mp4: the decoder hangs"):
        reader.run(source, lambda moved: time.sleep(600))

    def refuse(moved: Callable[[], None]) -> None:
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="the disk is full"):
        reader.run(source, refuse)
