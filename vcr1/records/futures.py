"""Results that are under way, as `concurrent.futures.Future`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def finished(value: A) -> Future[A]:
    """Return a future that has its result already."""
    future: Future[A] = Future()
    future.set_result(value)
    return future


def after(future: Future[A], work: Callable[[A], B]) -> Future[B]:
    """Return the future of ``work(result)``; an error of either is the error of both.

    The work is done where the first future gets its result, at once where it has it.
    """
    following: Future[B] = Future()

    def go_on(first: Future[A]) -> None:
        try:
            following.set_result(work(first.result()))
        except BaseException as error:  # it is raised where the result is asked for
            following.set_exception(error)

    future.add_done_callback(go_on)
    return following
