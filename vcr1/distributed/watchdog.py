"""Ends a job whose ranks would wait for ever: one has failed or died, or nothing moves."""

from __future__ import annotations

import faulthandler
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from vcr1.distributed.lifeline import Lifeline, Notice, connect
from vcr1.errors import UserError

TICK = 1.0
"""Seconds between two looks."""
FAREWELL = 5.0
"""Seconds that a failing rank stays, so that all others hear of it."""
CONFIRM = 10.0
"""Seconds of silence that are enough where a broken connection says the same."""
DEADLINE = 45.0
"""Seconds that a failed rank may take to clean up."""


_jobs = itertools.count()


class Watchdog:
    """A thread that looks after this process, and in a job of several ranks after the others.

    Each rank gives signs of life and listens for those of the next one. A rank that fails says so; one that
    dies falls silent, or takes the place where signs are kept with it. Whoever hears of either writes all
    stacks of its process to ``stacks-rank-N.txt`` and ends, whatever it is waiting for.

    Args:
        folder: the run's folder.
        minutes: without a beat after which the process counts as halted; 0 for never. It counts from a
            first :meth:`beat` to :meth:`rest`.
        silence: seconds after which a rank without a sign of life counts as dead.

    Raises:
        UserError: a time that is negative or no number.
    """

    def __init__(self, folder: str | Path, minutes: float = 20.0, silence: float = 40.0) -> None:
        if not isinstance(minutes, int | float) or not minutes >= 0:
            raise UserError(f"watchdog.minutes={minutes} is no number of at least 0; 0 waits for ever")
        if not isinstance(silence, int | float) or not silence > 2 * TICK:
            raise UserError(f"watchdog.silence={silence} is no number above {2 * TICK:g}")
        self.folder, self.minutes, self.silence = Path(folder), minutes, silence
        self._beat: tuple[float, str] | None = None
        self._job = next(_jobs)
        self._life: Lifeline | None = None
        self._lock = threading.Lock()  # held by whoever decides how this process ends
        self._stop = threading.Event()
        self._deadline: threading.Timer | None = None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> Watchdog:
        """Begin to look."""
        self._thread.start()
        return self

    def look_after(self, children: Sequence[subprocess.Popen[Any]]) -> None:
        """Say of ranks that this process has started when one dies: ``children`` are ranks 1, 2, ...

        Lightning ends this process a few seconds later, with a line of its own.
        """
        for rank, child in enumerate(children, start=1):
            name = f"watchdog of rank {rank}"
            threading.Thread(target=self._wait_for, args=(rank, child), name=name, daemon=True).start()

    def _wait_for(self, rank: int, child: subprocess.Popen[Any]) -> None:
        """Wait for a child without taking its exit status from whoever started it."""
        try:
            ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:  # somebody was faster
            return
        if ended is None or ended.si_status == 0:
            return
        how = f"exit status {ended.si_status}"
        if ended.si_code != os.CLD_EXITED:
            how = f"signal {signal.Signals(ended.si_status).name}"
        where = f"rank {rank} (process {child.pid} on {socket.gethostname()})"
        with self._lock:
            if not self._stop.is_set():
                says = f"{where} was ended by {how}, and the others end with it; ckpt_path=auto goes on"
                self._end(Notice(says))

    def beat(self, what: str) -> None:
        """Something has moved: ``what`` is said if nothing follows."""
        self._beat = (time.monotonic(), what)

    def rest(self) -> None:
        """Nothing is expected to move for now."""
        self._beat = None

    # ---------------------------------------------------------------------------------- this rank's end

    def report(self, error: BaseException) -> None:
        """Say that this rank has failed: here, and then to the other ranks, which end.

        The user's faults are said by the entry point. Does nothing in a job of one rank.
        """
        self.rest()
        if (life := self._connected()) is None:
            return
        if _is_about_connections(error):  # what another rank's death looks like from here: let that be found
            life.silence = min(life.silence, CONFIRM)
            time.sleep(CONFIRM + FAREWELL)
        with self._lock:
            self._stop.set()
        self._deadline = threading.Timer(DEADLINE, os._exit, (1,))
        self._deadline.daemon = True
        self._deadline.start()
        about = f"{life.who} on {socket.gethostname()}"
        faulty = isinstance(error, UserError)
        if not faulty:
            stack = "".join(traceback.format_exception(error))
            print(f"vcr1: {about} failed:\n{stack}", end="", file=sys.stderr, flush=True)
        says = f"{about}: {error}" if faulty else f"{about} failed: {type(error).__name__}: {error}"
        life.announce(Notice(says, faulty), FAREWELL)

    def close(self) -> None:
        """Stop looking. Where this process keeps the signs of life, it waits for the other ranks' end."""
        with self._lock:
            failed = self._stop.is_set()
            self._stop.set()
        self._thread.join(10 * TICK)
        if not failed and (life := self._connected()) is not None:
            life.leave()
        if self._deadline is not None:
            self._deadline.cancel()
        faulthandler.cancel_dump_traceback_later()

    # ---------------------------------------------------------------------------------------- the thread

    def _watch(self) -> None:
        while not self._stop.wait(TICK):
            if (notice := self._heard()) is not None:
                with self._lock:
                    if not self._stop.is_set():
                        self._end(notice)

    def _connected(self) -> Lifeline | None:
        """Return the way to the other ranks, as soon as there is one."""
        if self._life is None:
            try:
                self._life = connect(self.silence, self._job)
            except UserError:  # they are gone, and so is whatever started this rank
                return None
        return self._life

    def _heard(self) -> Notice | None:
        """Return why this process must end, if it must."""
        if (life := self._connected()) is not None and (notice := life.listen()) is not None:
            return notice
        if (notice := self._halted()) is None or life is None:
            return notice
        return life.announce(notice, FAREWELL)

    def _halted(self) -> Notice | None:
        """Return what to say if nothing has moved for too long."""
        beat = self._beat
        if not self.minutes or beat is None:
            faulthandler.cancel_dump_traceback_later()
            return None
        seconds = 60 * self.minutes
        # For a halt in which no thread of Python gets its turn, this one neither.
        faulthandler.dump_traceback_later(seconds + 10 * TICK, exit=True, file=sys.__stderr__ or 2)
        if time.monotonic() - beat[0] < seconds:
            return None
        who = "this run" if self._life is None else f"{self._life.who} on {socket.gethostname()}"
        return Notice(
            f"{who} has come to a halt: nothing moved for watchdog.minutes={self.minutes:g} "
            f"after {beat[1]}; the stacks say where it stands",
            halted=True,
        )

    def _end(self, notice: Notice) -> None:
        """Say why, leave the stacks, and end this process at once: its main thread may wait for ever."""
        print(f"vcr1: {notice.text}", file=sys.stderr, flush=True)
        if not notice.faulty:
            rank = 0 if self._life is None else self._life.rank
            path = self.folder / f"stacks-rank-{rank}.txt"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with path.open("w") as file:
                    faulthandler.dump_traceback(file, all_threads=True)
                print(f"vcr1: rank {rank} ends here; its stacks are in {path}", file=sys.stderr, flush=True)
            except OSError as error:
                print(f"vcr1: rank {rank} ends here; no stacks in {path}: {error}", file=sys.stderr)
            if notice.halted:
                faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        os._exit(2 if notice.faulty else 1)


def _is_about_connections(error: BaseException) -> bool:
    """Return True for what a rank sees when another one is gone."""
    words = ("connection closed by peer", "connection reset by peer", "gloo", "nccl", "broken pipe")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


class Heartbeats(Callback):
    """Tells a watchdog whenever anything has moved in a Trainer: batches of any kind, passes, checkpoints."""

    def __init__(self, watchdog: Watchdog) -> None:
        self.watchdog = watchdog

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look after the ranks that Lightning has started."""
        self.watchdog.look_after(getattr(trainer.strategy.launcher, "procs", None) or [])

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Between two uses of a Trainer nothing need move."""
        self.watchdog.rest()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """An error is said where it is caught."""
        self.watchdog.rest()


def _beating(hook: str) -> Any:
    def beat(self: Heartbeats, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self.watchdog.beat(f"{hook} at step {trainer.global_step}")

    beat.__doc__ = "Something has moved."
    return beat


for _hook in (
    "setup",
    "on_save_checkpoint",
    "on_load_checkpoint",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    *(
        f"on_{stage}_{point}"
        for stage in ("train", "validation", "test", "predict")
        for point in ("start", "end", "epoch_start", "epoch_end", "batch_start", "batch_end")
    ),
):
    setattr(Heartbeats, _hook, _beating(_hook))
