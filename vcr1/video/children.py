"""Child processes that do one call at a time, bounded in time and memory.

A decoder of hostile files may crash, hang or fill the memory. `multiprocessing` forbids children to the
workers of a DataLoader, and `concurrent.futures` can neither stop a worker that hangs nor outlive one that
crashes. So each child here is forked by hand and sits at the end of a pipe.

Three limits hold for each call, and all of them end the child at once, whatever it is doing in C:

- CPU seconds, by the child's own ``ITIMER_PROF``: a busy machine does not change which files pass;
- seconds without any work, watched by the parent: a hang. A hundred times the CPU seconds by the clock end
  the child in any case (``ITIMER_REAL``);
- memory, watched by the parent: the anonymous memory that the child has gained over its least. A limit of
  the kernel (``RLIMIT_DATA``, above twice as high) stands behind it. It does not judge alone: FFmpeg takes a
  refused allocation for damaged data ("Invalid data found"), and would blame the file for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, NamedTuple

from vcr1.video.forked import GIB, NO_MEMORY, PAGE, live, receive
from vcr1.video.limits import stall_seconds

POLL = 0.05
"""Seconds between two looks at a child's memory. At 3 GB/s it gains 150 MB meanwhile."""

GRACE = 5.0
"""Seconds that a child whose pipe is closed may take to end."""


class Done(NamedTuple):
    """A call that came back."""

    value: Any


class Ended(NamedTuple):
    """A call that ended its child.

    Attributes:
        status: ``timeout``, ``memory``, ``crashed``, or ``killed`` where another process has sent SIGKILL.
        cause: ``cpu``, ``stall`` or ``wall`` of a timeout, else how the process ended.
    """

    status: str
    cause: str


class Child:
    """A process that does one call after the other; it is forked at the first, and again after it has died.

    A call that ends a child which has served others before is tried once more in a fresh one: what was done
    before must not be charged to it. Not so a timeout, since CPU time is a call's own.

    A child ignores signals to the job (its parent decides), holds none of the parent's sockets, locks and
    pipes, runs none of its exit handlers, and ends soon after it.

    Args:
        work: what a call does. It returns what can be pickled; tensors travel without being pickled.
        memory: GiB that the child may gain; None for no limit.
    """

    def __init__(self, work: Callable[[Any], Any], memory: float | None = None) -> None:
        self.work = work
        self.memory = memory
        self.pipe: Connection | None = None
        self.busy = False
        self._call: tuple[Any, float | None] = (None, None)
        self._pid = self._memory = self._served = 0
        self._worked = (0, 0.0)  # its CPU time, and since when that has not grown

    def give(self, call: Any, seconds: float | None = None) -> None:
        """Begin a call that may take so many CPU seconds; None for no limit."""
        if self.pipe is None or _reap(self._pid, 0) is not None:  # killed while it had nothing to do
            self.kill()
            self._start()
        assert self.pipe is not None
        self.busy, self._call = True, (call, seconds)
        self._worked = (0, time.monotonic())
        with suppress(OSError):  # killed this very moment: to be seen at the pipe's other end
            self.pipe.send(self._call)

    def take(self) -> Done | Ended | None:
        """Return what came of the call; None while it runs."""
        assert self.pipe is not None
        if self.pipe.poll():
            try:
                done = Done(receive(self.pipe, self._shared))
            except (EOFError, OSError):
                ended = _cause(_reap(self._pid, GRACE))
            else:
                self.busy = False
                self._served += 1
                return done
        elif self.memory is not None and self._gained() > self.memory * GIB:
            ended = Ended("memory", "")
        elif self._stalled():
            ended = Ended("timeout", "stall")
        else:
            return None
        again = self._served > 0 and ended.status != "timeout"
        self.kill()
        if not again:
            return ended
        self.give(*self._call)
        return None

    def ask(self, call: Any, seconds: float | None = None) -> Done | Ended:
        """Do a call, and wait for what comes of it."""
        self.give(call, seconds)
        while (found := self.take()) is None:
            wait([self.pipe], POLL)  # type: ignore[list-item] # open while the child is busy
        return found

    def kill(self) -> None:
        """End the process at once, whatever it is doing; the next call starts another."""
        self.busy = False
        if self.pipe is not None:
            self._end()
            self.pipe = None

    def _gained(self) -> int:
        """Return the bytes gained over the least that the child has had: it may free what its parent held."""
        held = _anonymous(self._pid)
        self._memory = min(self._memory, held)
        return held - self._memory

    def _stalled(self) -> bool:
        """Return whether the child has slept for too long; waiting for a busy machine does not count."""
        (ticks, since), now, seconds = self._worked, time.monotonic(), self._call[1]
        found, ready = _cpu_time(self._pid)
        if found != ticks or ready:
            self._worked = (found, now)
            return False
        return seconds is not None and now - since > stall_seconds(seconds)

    def _start(self) -> None:
        """Fork the process. It is forked, as those of a DataLoader are, so that it costs no imports."""
        self.pipe, theirs = Pipe()
        self._shared = os.memfd_create("vcr1-decoded")
        parent = os.getpid()
        _trim()
        self._pid = os.fork()
        if self._pid == 0:
            live(theirs, self._shared, parent, self.work, self.memory)
        theirs.close()  # else the end of the process would not close the pipe
        self._served, self._memory = 0, _anonymous(self._pid)
        self._end = weakref.finalize(self, _end, self._pid, self.pipe, self._shared, parent)
        # Processes of `multiprocessing`, as a DataLoader's, run no other handlers at their end. A child that
        # is waited for counts among the seconds of the run.
        Finalize(None, self._end, exitpriority=0)


def _trim() -> None:
    """Give free memory back to the system: a child that used its copy of it would seem to gain nothing."""
    with suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _end(pid: int, pipe: Connection, shared: int, parent: int) -> None:
    """Kill a child; a fork of its parent, which inherits this duty, only lets go of it."""
    if os.getpid() == parent:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _reap(pid, 1.0)
    pipe.close()
    os.close(shared)


def _reap(pid: int, seconds: float) -> int | None:
    """The exit status of a child, negative for a signal; None where it has not ended within some seconds.

    Not waited for longer: a process that sits in the kernel, as on a network drive that is gone, outlives
    even SIGKILL.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # someone else has asked
            return 1
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.001)


def _cause(code: int | None) -> Ended:
    """Return why a child ended by itself."""
    known = {
        -signal.SIGPROF: Ended("timeout", "cpu"),
        -signal.SIGALRM: Ended("timeout", "wall"),
        -signal.SIGKILL: Ended("killed", "SIGKILL"),
        NO_MEMORY: Ended("memory", ""),
    }
    if code is None or code >= 0:
        return known.get(code or 0, Ended("crashed", f"exit status {code}"))
    return known.get(code, Ended("crashed", signal.Signals(-code).name))


def _cpu_time(pid: int) -> tuple[int, bool]:
    """CPU time of a process in clock ticks, and whether it would work if it were let; (0, False) of none."""
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return 0, False
    return int(numbers[10]) + int(numbers[11]), state == "R"


def _anonymous(pid: int) -> int:
    """Return bytes of a process's memory that are no file's; 0 where there is no such process."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * PAGE
