"""The inside of a child process of :mod:`vcr1.video.children`, and how values leave it."""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import resource
import select
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from vcr1.video.limits import PATIENCE, lacks_memory

GIB = 2**30
NO_MEMORY = 77
"""Exit status of a child without memory."""

PAGE = os.sysconf("SC_PAGE_SIZE")
_KEPT = 2**26
"""Bytes of shared memory that a child keeps from call to call: pages that are there already are faster."""

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_DEFAULT = (
    *(signal.SIGALRM, signal.SIGPROF, signal.SIGCHLD),
    *(signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL),
)


def live(
    pipe: Connection, shared: int, parent: int, work: Callable[[Any], Any], memory: float | None
) -> NoReturn:
    """A child's life: calls in, values out, until the parent is gone. It never leaves this function."""
    try:
        _part(keep=(pipe.fileno(), shared))
        if memory is not None:
            held = int(Path("/proc/self/statm").read_text().split()[5]) * PAGE
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            soft = held + int((2 * memory + 1) * GIB)
            resource.setrlimit(
                resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
            )
        Thread(target=_leave_with, args=(pipe, parent), daemon=True).start()
        while True:
            call, seconds = pipe.recv()
            allow(seconds)
            value = work(call)
            allow(None)
            send(pipe, shared, value)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        os._exit(0)
    except BaseException as error:
        if lacks_memory(error):
            os._exit(NO_MEMORY)
        traceback.print_exc()
    finally:
        os._exit(1)


def _leave_with(pipe: Connection, parent: int) -> None:
    """End this child when its parent has ended, also in the middle of a call."""
    gone = select.poll()
    gone.register(pipe.fileno(), 0)  # a hang-up is reported unasked
    # Where another process holds the far end open, it does not close with the parent: then it takes longer.
    while not gone.poll(10_000) and os.getppid() == parent:
        pass
    os._exit(0)


def allow(seconds: float | None) -> None:
    """Give this child so many CPU seconds from now; None for no limit. To be called in a child only."""
    signal.setitimer(signal.ITIMER_PROF, seconds or 0)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * (seconds or 0))


def _part(keep: tuple[int, int]) -> None:
    """Let go of what is the parent's."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    for number in _DEFAULT:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    faulthandler.disable()
    gc.freeze()  # nothing of the parent's is ever collected here, and so nothing of it closed
    torch.set_num_threads(1)  # also because torch's own threads did not survive the fork
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # without memory the kernel should end this process, not the run
        Path("/proc/self/oom_score_adj").write_text("1000")
    # Replaced, not closed: an object that still closes its number must not close a video that got it since.
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        if int(name) not in (2, *keep):
            os.dup2(null, int(name))


class _Pickler(pickle.Pickler):
    """Leaves the content of tensors out of the pickle."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.from_numpy, (value.contiguous().numpy(),)
        return NotImplemented


def send(pipe: Connection, shared: int, value: Any) -> None:
    """Send a value: the content of tensors through shared memory, the rest through the pipe."""
    buffers: list[memoryview] = []
    head = BytesIO()
    _Pickler(head, protocol=5, buffer_callback=lambda buffer: buffers.append(buffer.raw())).dump(value)
    start = 0
    for view in buffers:
        done = 0
        while done < view.nbytes:
            done += os.pwrite(shared, view[done:], start + done)
        start += view.nbytes
    pipe.send((head.getvalue(), [view.nbytes for view in buffers]))


def receive(pipe: Connection, shared: int) -> Any:
    """Return what :func:`send` has sent."""
    head, sizes = pipe.recv()
    buffers, start = [], 0
    for size in sizes:
        view = np.empty(size, np.uint8).data
        done = 0
        while done < size:
            done += os.preadv(shared, [view[done:]], start + done)
        buffers.append(view)
        start += size
    if start > _KEPT:
        os.ftruncate(shared, 0)
    return pickle.loads(head, buffers=buffers)
