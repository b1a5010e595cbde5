import faulthandler
import mmap
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from video_files import stripes

from vcr1.records import VideoSource
from vcr1.video import DecodeLimits, FrameBudget, PatchGrid, write_mp4
from vcr1.video.probing import Outcome, Trial, probe, probe_all

BALLAST: list[mmap.mmap] = []


def trial(path: Path | str, **more: object) -> Trial:
    return Trial(VideoSource(str(path)), FrameBudget(), PatchGrid(), **more)  # type: ignore[arg-type]


def behave(trial: Trial) -> Outcome:
    """What a decoder may do, by the file's name."""
    name = Path(trial.source.path).stem
    if name == "hangs":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # as if it stuck in a driver
        time.sleep(600)
    if name == "segfaults":
        faulthandler.disable()  # pytest's, which would print a stack
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "exits":
        os._exit(3)
    if name == "computes":
        while True:
            pass
    if name == "wants":
        torch.zeros(10**10, dtype=torch.uint8)
    if name == "sheds":  # what the parent held is freed, and does not hide what is gained
        BALLAST[0].close()
        time.sleep(0.3)
    if name in ("grows", "sheds"):  # as a decoder does that finds ever more frames, below the kernel's limit
        pieces = [torch.ones(5 * 10**7, dtype=torch.uint8) for _ in range(4)]
        time.sleep(20 + len(pieces))
    return Outcome("ok", name, duration=float(os.getpid()))


def outcomes(names: list[str], workers: int, limits: DecodeLimits) -> dict[str, Outcome]:
    """What became of each file, by its name."""
    found = probe_all([trial(f"{name}.mp4") for name in names], workers, limits, behave)
    return {Path(given.source.path).stem: outcome for given, outcome in found}


def test_a_clip_is_as_training_sees_it(clip: Path) -> None:
    assert probe(trial(clip)) == Outcome("ok", "", 4.0, frames=8, height=84, width=168)
    # 4 of 40 frames span 4 · 3.9 / 3 s to the model, but the video lasts 4 s.
    assert probe(trial(clip, frames=4)).duration == 4.0
    part = Trial(VideoSource(str(clip), 1.0, 3.0), FrameBudget(), PatchGrid())
    assert (probe(part).duration, probe(part).frames) == (2.0, 4)


def test_what_is_wrong_is_told_apart(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert probe(trial(empty)) == Outcome("unreadable", f"{empty}: the file is empty; fetch it again")
    assert probe(trial(tmp_path / "none.mp4")).status == "missing"
    assert probe(trial("zero\0byte.mp4")).status == "missing"
    assert probe(trial(clip, decoder="opencv")).message.startswith("data.loader.decoder must be one of")
    assert probe(trial(clip, decoder="opencv")).status == probe(trial(clip, frames=3)).status == "refused"

    def confused(*args: object, **kwargs: object) -> None:
        raise IndexError("no\nframe\x1b\ud800" + "x" * 2000)

    monkeypatch.setattr("vcr1.video.probing.read_clip", confused)
    failed = probe(trial(clip))
    assert failed.status == "failed"
    assert failed.message.startswith(
        f"{clip}: decoding failed with an error that is not foreseen, IndexError: "
    )
    assert "no?frame??xxx" in failed.message
    assert len(failed.message) == 1000


def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)  # to open it would wait for a writer
    assert [outcome.status for _, outcome in probe_all([trial(path)], 1)] == ["unreadable"]


def test_each_video_is_tried_once_and_in_parallel() -> None:
    trials = [trial(f"{number}.mp4") for number in range(50)]
    results = list(probe_all(trials, 3, probe=behave))
    assert sorted(int(outcome.message) for _, outcome in results) == list(range(50))
    assert all(Path(given.source.path).stem == outcome.message for given, outcome in results)
    processes = {outcome.duration for _, outcome in results}
    assert 1 <= len(processes) <= 3
    assert os.getpid() not in processes


@pytest.mark.parametrize("workers", [1, 3])
def test_a_process_that_hangs_or_dies_costs_its_file_only(workers: int) -> None:
    names = ["a", "hangs", "b", "segfaults", "c", "exits", "d", "computes", "e"]
    results = outcomes(names, workers, DecodeLimits(seconds=0.5, memory=0.1))
    bad = {name: outcome.status for name, outcome in results.items() if outcome.status != "ok"}
    assert bad == {"hangs": "timeout", "computes": "timeout", "segfaults": "crashed", "exits": "crashed"}
    assert sorted(results) == sorted(names)
    assert results["hangs"].message.startswith("hangs.mp4: the decoder hangs: it did nothing for 1 s")
    assert results["computes"].message.startswith(
        "computes.mp4: not decoded within 0.5 CPU seconds (data.load"
    )
    assert results["segfaults"].message.startswith("segfaults.mp4: the decoder died (SIGSEGV); convert")
    assert results["exits"].message.startswith("exits.mp4: the decoder died (exit status 3)")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_process_that_fills_the_memory_costs_its_file_only(workers: int) -> None:
    """Filling memory may take CPU time, so the limit of time is far away."""
    results = outcomes(["a", "grows", "b", "wants", "c"], workers, DecodeLimits(seconds=60.0, memory=0.1))
    bad = {name: outcome.status for name, outcome in results.items() if outcome.status != "ok"}
    assert bad == {"grows": "memory", "wants": "memory"}
    assert sorted(results) == ["a", "b", "c", "grows", "wants"]
    assert results["grows"].message.startswith("grows.mp4: takes more than 0.1 GiB of memory to decode (data")


def test_memory_that_is_freed_first_does_not_hide_what_is_gained_later() -> None:
    BALLAST.append(mmap.mmap(-1, 2 * 10**8, flags=mmap.MAP_PRIVATE))
    BALLAST[0].write(bytes(2 * 10**8))
    try:
        results = outcomes(["sheds"], 1, DecodeLimits(seconds=60.0, memory=0.1))
    finally:
        BALLAST.clear()
    assert results["sheds"].status == "memory"


def test_free_memory_of_the_parent_does_not_hide_what_is_gained() -> None:
    """A heap keeps what is freed in pieces, and a child that takes its copy of it needs no new pages."""
    pieces = [torch.ones(100_000, dtype=torch.uint8) for _ in range(4000)]
    last = torch.ones(100)  # at the end of the heap, which would shrink without it
    del pieces
    assert outcomes(["grows"], 1, DecodeLimits(seconds=60.0, memory=0.1))["grows"].status == "memory"
    del last


def test_no_process_is_left_behind() -> None:
    results = probe_all([trial(f"{number}.mp4") for number in range(4)], 2, probe=behave)
    process = int(next(results)[1].duration)
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_nothing_to_do_starts_nothing() -> None:
    assert list(probe_all([], 4)) == []


def test_real_files_are_tried(clip: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.mp4"
    write_mp4(good, stripes(8), fps=4)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(good.read_bytes()[:500])
    found = {
        Path(given.source.path).name: outcome for given, outcome in probe_all(map(trial, (good, cut)), 2)
    }
    assert {name: outcome.status for name, outcome in found.items()} == {
        "good.mp4": "ok",
        "cut.mp4": "unreadable",
    }
    assert (found["good.mp4"].frames, found["good.mp4"].duration) == (4, 2.0)
