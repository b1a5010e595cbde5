"""CPU seconds and peak memory of parts of a program, in a process of its own.

CPU seconds, on one thread: wall time says little on a machine that others use too, and there two threads burn
up to ten times the CPU seconds of one on small operations, waiting for each other.
Memory is the resident set. Linux keeps its peak, and lets a process set that back.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

PRELOADED = ["torch", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "vcr1.policy", "vcr1.tiny"]
"""Imported once and shared by all fresh processes: an import costs more than many a measurement."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one thing.

    Attributes:
        median: their median.
        low: the smallest.
        high: the largest.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        """``median (low–high)``, each in the format of a float; of a single value that alone."""
        if self.low == self.high:
            return format(self.median, spec)
        low, high = format(self.low, spec), format(self.high, spec)
        return f"{format(self.median, spec)} ({low}–{high})"


@dataclass(slots=True)
class Meter:
    """What the phases of one run cost.

    Attributes:
        cpu: CPU seconds by phase.
        peak: MiB by phase: the most that was resident while it ran, above what was before the first.
    """

    cpu: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)
    _start: float | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what runs inside; of a name that comes again, seconds add up and the higher peak stays."""
        _return_free_memory()
        if self._start is None:
            self._start = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
        begin = time.process_time()
        yield
        seconds = time.process_time() - begin
        self.cpu[name] = self.cpu.get(name, 0.0) + seconds
        self.peak[name] = max(self.peak.get(name, 0.0), _status("VmHWM") - self._start)


def _status(field_name: str) -> float:
    """A size of this process as the kernel counts it, in MiB."""
    found = re.search(rf"^{field_name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {field_name}: this needs Linux")
    return int(found[1]) / 1024


def _return_free_memory() -> None:
    """Give back what the allocator keeps for later, or a phase would not be seen to need it."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def use_one_thread() -> None:
    """Compute on one thread in this process; before the first operation."""
    torch.set_num_threads(1)


def in_fresh_process(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Call an importable function in a process that has computed nothing before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with context.Pool(1, use_one_thread, maxtasksperchild=1) as pool:
        return pool.apply(function, args, kwargs)


def machine(*packages: str) -> str:
    """The machine and the versions that count, in a sentence."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", *packages))
    return (
        f"{os.cpu_count()} {platform.machine()} cores, of which one computes, "
        f"{memory:.0f} GiB of memory, {platform.system()}, Python {platform.python_version()}, {versions}, "
        f"{time.strftime('%Y-%m-%d')}."
    )
