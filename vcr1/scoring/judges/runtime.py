"""What the judges of a process share: a thread with an event loop, and per endpoint a client and a cache."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from vcr1.records import JudgeFailure
from vcr1.scoring.judges.cache import AnswerCache
from vcr1.scoring.judges.client import ChatClient, Endpoint
from vcr1.scoring.judges.questions import JudgeQuestion

T = TypeVar("T")


class Runtime:
    """Answers questions from the cache or the endpoint; equal questions at the same time are sent once.

    Its coroutines run in the background thread (`in_background`) only.

    Args:
        endpoint: who is asked.
        cache: folder of the answers; None keeps none.

    Raises:
        UserError: the client cannot be made.
    """

    def __init__(self, endpoint: Endpoint, cache: str | None) -> None:
        self.client = ChatClient(endpoint)
        self._cache = AnswerCache(cache)
        self._under_way: dict[str, asyncio.Task[Any]] = {}

    async def ask(self, question: JudgeQuestion[T]) -> T | JudgeFailure:
        """Return the answer to a question, or why there is none."""
        key = question.key(self.client.endpoint.model)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._find(key, question))
            task.add_done_callback(lambda _: self._under_way.pop(key))
        # Others may wait for the same answer: one who gives up must not take it from them.
        answer: T | JudgeFailure = await asyncio.shield(task)
        return answer

    async def _find(self, key: str, question: JudgeQuestion[T]) -> T | JudgeFailure:
        kept = self._cache.get(key)
        answer = None if kept is None else question.read(kept)
        if answer is not None:
            return answer
        asked = await self.client.ask(question)
        if not isinstance(asked, JudgeFailure):
            self._cache.put(key, json.dumps(asked, ensure_ascii=False))
        return asked


_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}
_runtimes: dict[tuple[int, Endpoint, str | None], Runtime] = {}
# A forked process gets copies of these, but neither the thread nor, to itself, the connections: it makes its
# own under its own process id, and leaves the copies alone, as closing them could close the parent's.


def runtime(endpoint: Endpoint, cache: str | None) -> Runtime:
    """Return the process's one runtime for these settings.

    Raises:
        UserError: the client cannot be made.
    """
    place = (os.getpid(), endpoint, cache)
    with _lock:
        if place not in _runtimes:
            _runtimes[place] = Runtime(endpoint, cache)
        return _runtimes[place]


def in_background(work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Run a coroutine in the process's background thread."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            # A daemon: a run that ends does not wait for verdicts that nobody wants any more.
            threading.Thread(target=loop.run_forever, name="judge", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(work, loop)


def _new_lock() -> None:
    """Free the lock in a forked process: the thread that held it may be in the parent only."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)
