"""How the ranks of a job hear of one another, whatever their main threads wait for: signs kept in a store."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass

import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined] # documented there

from vcr1.distributed import ranks

NEVER_HEARD = 600.0
"""Seconds that a rank may take to give its first sign: it may still import its libraries."""
REFUSED = 3
"""Failures in a row after which the store counts as gone."""
PATIENCE = 60.0
"""Seconds that the keeper of the store waits at the end for ranks that have not left."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Why a job ends.

    Attributes:
        text: one or more lines.
        faulty: it is a fault of the user's, which a stack would not explain.
        halted: nothing moved, so that the stacks are all there is to see.
    """

    text: str
    faulty: bool = False
    halted: bool = False


class Lifeline:
    """One rank's end of it.

    Args:
        store: a connection of its own: what waits on another must not stop this one.
        rank: of this process.
        world: number of ranks.
        keeper: the store lives in this process, and ends with it.
        silence: seconds after which a rank without a sign counts as dead.
    """

    def __init__(
        self, store: Store, rank: int, world: int, keeper: bool = False, silence: float = 40.0
    ) -> None:
        self.rank, self.world, self.keeper, self.silence = rank, world, keeper, silence
        self._store = store
        self._next = (rank + 1) % world
        self._heard = (0, time.monotonic())  # signs of the next rank, and since when there are so many
        self._failures = 0

    @property
    def who(self) -> str:
        """This rank, in words."""
        return f"rank {self.rank} of {self.world}"

    def listen(self) -> Notice | None:
        """Give a sign of life, and say whether the job must end; ``None`` while all is well."""
        try:
            self._store.add(f"signs/{self.rank}", 1)
            notice = self._announced() or self._silent()
            self._failures = 0
        except RuntimeError as error:  # a DistError, or an older one of the store
            self._failures += 1
            if self._failures < REFUSED:
                return None
            reason = str(error).splitlines()[0]
            return Notice(
                f"{self.who} has lost the process that holds the ranks together, rank 0 or torchrun on "
                f"{os.environ.get('MASTER_ADDR')}: it was killed, or its machine is gone ({reason})"
            )
        if notice is not None:
            self._store.add("heard", 1)
        return notice

    def announce(self, notice: Notice, seconds: float) -> Notice:
        """Tell all ranks to end, and stay until they have heard it or ``seconds`` are over.

        Returns:
            The notice that was first: this one, or that of another rank.
        """
        try:
            kept = self._store.compare_set("notice", "", json.dumps(asdict(notice))).decode()
            until = time.monotonic() + seconds
            while self._store.add("heard", 0) < self.world - 1 and time.monotonic() < until:
                time.sleep(0.1)
        except RuntimeError:
            return notice
        return Notice(**json.loads(kept))

    def leave(self) -> None:
        """Part in peace: this rank's work is done. The keeper of the store leaves last."""
        try:
            self._store.add(f"left/{self.rank}", 1)
            left = self._store.add("left", 1)
            until = time.monotonic() + PATIENCE
            while self.keeper and left < self.world and time.monotonic() < until:
                time.sleep(0.1)
                left = self._store.add("left", 0)
        except RuntimeError:
            return  # nobody is there to part from

    def _announced(self) -> Notice | None:
        if not self._store.check(["notice"]):
            return None
        return Notice(**json.loads(self._store.get("notice").decode()))

    def _silent(self) -> Notice | None:
        """Return a notice about the next rank where it has given no sign for too long."""
        if self._next == self.rank:
            return None
        now, (signs, since) = time.monotonic(), self._heard
        if (found := self._store.add(f"signs/{self._next}", 0)) != signs:
            self._heard = (found, now)
            return None
        if now - since <= (self.silence if signs else max(NEVER_HEARD, self.silence)):
            return None
        if self._store.add(f"left/{self._next}", 0):
            self._next, self._heard = (self._next + 1) % self.world, (0, now)
            return None
        notice = Notice(
            f"rank {self._next} of {self.world} has died: no sign of life for {now - since:.0f} seconds. It "
            f"was killed (no memory left?), or its machine is gone"
        )
        kept = self._store.compare_set("notice", "", json.dumps(asdict(notice))).decode()
        return Notice(**json.loads(kept))


def connect(silence: float = 40.0, job: int = 0) -> Lifeline | None:
    """A lifeline to the other ranks, once there is a store to meet at; None before, and for one rank alone.

    Args:
        silence: seconds after which a rank without a sign counts as dead.
        job: number of this job among those of the process: under torchrun all of them share a store.

    Raises:
        UserError: torchrun's store does not answer.
    """
    if (world := ranks.world_size() or 0) > 1 and (store := ranks.agent_store()) is not None:
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        prefixed = PrefixStore(f"vcr1/distributed/lifeline/{attempt}/{job}", store)
        return Lifeline(prefixed, ranks.rank(), world, silence=silence)
    if not (dist.is_available() and dist.is_initialized()) or (world := dist.get_world_size()) < 2:
        return None
    if (store := ranks.open_store()) is None:
        return None
    rank = dist.get_rank()
    return Lifeline(PrefixStore("vcr1/lifeline", store), rank, world, rank == 0, silence)
