"""Child processes: what travels, and what they leave behind."""

import os
import resource
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from vcr1.video.children import Child, Done, Ended

KEPT: list[Child] = []


def test_tensors_travel_whole_and_may_be_written_to() -> None:
    def work(count: int) -> dict[str, Any]:
        return {
            "pixels": torch.full((count,), 7, dtype=torch.uint8),
            "odd": torch.ones(3, 4).T,
            "name": "\ud800",
        }

    child = Child(work)
    for count in (0, 10, 70 * 2**20, 1000):
        done = child.ask(count)
        assert isinstance(done, Done)
        assert done.value["pixels"].shape == (count,)
        assert bool((done.value["pixels"] == 7).all())
        assert done.value["odd"].equal(torch.ones(4, 3))
        assert done.value["name"] == "\ud800"
        done.value["pixels"] += 1


def test_an_error_that_is_not_caught_ends_the_child() -> None:
    def work(_: None) -> None:
        raise ZeroDivisionError

    assert Child(work).ask(None) == Ended("crashed", "exit status 1")


def test_a_child_leaves_no_descriptor_open() -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    child = Child(lambda value: os._exit(3) if value else value)
    for value in (0, 1, 0, 1):
        child.ask(value)
    child.kill()
    Child(abs).ask(-1)
    assert opened() == before


def test_what_a_workers_child_computes_counts_among_the_runs_seconds() -> None:
    def burn(seconds: float) -> float:
        while time.process_time() < seconds:
            pass
        return time.process_time()

    def work() -> None:
        KEPT.append(Child(burn))  # as the data set of a DataLoader keeps it, to the end of the process
        KEPT[0].ask(0.3)

    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = seconds()
    worker = get_context("fork").Process(target=work, daemon=True)
    worker.start()
    worker.join()
    assert seconds() - before >= 0.3
