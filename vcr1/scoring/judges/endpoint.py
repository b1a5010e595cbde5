"""A judge that asks a language model, at any OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from threading import Timer
from typing import Any

import httpx

from vcr1.errors import UserError
from vcr1.records import EventScores, JudgeFailure
from vcr1.scoring.judges.base import CaptionPair, Verdict
from vcr1.scoring.judges.client import Endpoint, RequestFailed, authorization
from vcr1.scoring.judges.questions import check_events, list_events, tidy_events
from vcr1.scoring.judges.runtime import Runtime, in_background, runtime

URL_VARIABLE = "VCR1_JUDGE_URL"
MODEL_VARIABLE = "VCR1_JUDGE_MODEL"

GRACE = 5.0
"""Seconds that a verdict may be late beyond its own limit, where the machine or its disk is slow."""


class EndpointJudge:
    """Has a language model list the events of the reference, and say which of them the prediction entails.

    A reference's events are asked for once and then kept, so that a prediction costs one request. With
    ``precision`` the same is asked the other way round, and it costs three: in training, where only recall is
    rewarded, turn it off. Requests run in the background from `begin` on. Whatever goes wrong outside costs
    a verdict, never the run.

    It holds settings only, and so it pickles; all copies in a process share one client and one cache.

    Args:
        url: of the API, up to and without ``/chat/completions``; None takes it from ``VCR1_JUDGE_URL``.
        model: name of the model there; None takes it from ``VCR1_JUDGE_MODEL``.
        key_variable: environment variable that holds the key. Where it is unset none is sent, as local
            servers need none. The key is read at each request and kept nowhere.
        concurrency: requests of a process at the same time.
        timeout: seconds for one request.
        retries: further attempts after a lost connection, a timeout, status 429 or 5xx, or an answer that
            cannot be read. Any other status is final.
        backoff: seconds before the first retry; doubled before each further one.
        max_wait: seconds before any retry at most, also where the endpoint asks for more (``Retry-After``).
        cache: folder in which answers are kept for later runs and other processes; None keeps none.
        precision: whether the share of the prediction's events that the reference tells is asked for.
        max_events: events of a caption that count; the first so many.

    Raises:
        UserError: a setting that cannot be, named ``judge.<setting>``.
    """

    def __init__(
        self,
        url: str | None = None,
        model: str | None = None,
        key_variable: str = "VCR1_JUDGE_KEY",
        concurrency: int = 16,
        timeout: float = 60.0,
        retries: int = 4,
        backoff: float = 1.0,
        max_wait: float = 30.0,
        cache: str | None = None,
        precision: bool = True,
        max_events: int = 32,
    ) -> None:
        self.endpoint = Endpoint(
            url=_checked_url(_given("url", url, URL_VARIABLE)),
            model=_given("model", model, MODEL_VARIABLE),
            key_variable=key_variable,
            concurrency=_whole("concurrency", concurrency, 1),
            timeout=_seconds("timeout", timeout, above_zero=True),
            retries=_whole("retries", retries, 0),
            backoff=_seconds("backoff", backoff),
            max_wait=_seconds("max_wait", max_wait),
        )
        authorization(key_variable)  # a key that cannot be sent shows here, not in the middle of a run
        self.cache = None if cache is None else str(cache)
        self.precision = bool(precision)
        self.max_events = _whole("max_events", max_events, 1)

    def begin(self, pairs: Sequence[CaptionPair]) -> Future[list[Verdict]]:
        """Begin to judge in the background; the result is there after `limit` and `GRACE` at most.

        Calls under way at the same time share the slots: each leaves the others less of their time.
        """
        limit, verdicts = self.limit(len(pairs)), Future[list[Verdict]]()
        asked = in_background(self._judge_all(runtime(self.endpoint, self.cache), list(pairs), limit))

        def settle(done: Future[list[Verdict]] | None = None) -> None:
            with suppress(InvalidStateError):  # the other of the two was first
                if done is None or done.cancelled():  # the background itself is stuck
                    asked.cancel()
                    verdicts.set_result([JudgeFailure("timeout") for _ in pairs])
                elif (error := done.exception()) is not None:
                    verdicts.set_exception(error)
                else:
                    verdicts.set_result(done.result())

        clock = Timer(limit + GRACE, settle)
        clock.daemon = True
        clock.start()
        verdicts.add_done_callback(lambda _: clock.cancel())
        asked.add_done_callback(settle)
        return verdicts

    def limit(self, pairs: int) -> float:
        """Return seconds after `begin` at which verdicts on so many pairs are there, or are given up.

        A pair takes four questions at most, of which two come after the other two. All the work, shared out
        over ``concurrency``, and the longest chain of it bound the time that any order takes.
        """
        work = 4 * pairs * self.endpoint.attempts_time / self.endpoint.concurrency
        return work + 2 * self.endpoint.question_time

    def probe(self) -> None:
        """Ask one small question, once.

        Raises:
            UserError: the endpoint does not answer, or not as it should. One that is busy passes.
        """
        client = runtime(self.endpoint, self.cache).client
        asked = in_background(client.attempt(list_events("A man opens a door.", self.max_events)))
        try:
            asked.result(self.endpoint.timeout + GRACE)
        except (RequestFailed, TimeoutError) as error:
            if isinstance(error, RequestFailed) and error.reason == "rate_limited":
                return
            asked.cancel()
            cause = str(error) or "timeout"
            raise UserError(
                f"judge.url={self.endpoint.url} judge.model={self.endpoint.model}: the endpoint does not "
                f"answer as it should ({cause}). Check both, and the key in "
                f"{self.endpoint.key_variable}; judge=lexical needs none of them."
            ) from error

    async def _judge_all(self, asked: Runtime, pairs: list[CaptionPair], limit: float) -> list[Verdict]:
        """Return one verdict per pair; those that are not there in ``limit`` seconds are given up."""
        tasks = [asyncio.create_task(self._judge(asked, pair)) for pair in pairs]
        if not tasks:
            return []
        _, late = await asyncio.wait(tasks, timeout=limit)
        for task in late:
            task.cancel()
        return [JudgeFailure("timeout") if task in late else task.result() for task in tasks]

    async def _judge(self, asked: Runtime, pair: CaptionPair) -> Verdict:
        given = None if pair.events is None else tidy_events(pair.events, self.max_events)
        if given == [] or (given is None and not pair.reference.strip()):
            return JudgeFailure("no_events")
        wanted, told = await asyncio.gather(
            self._events(asked, pair.reference, given),
            self._events(asked, pair.prediction, None if self.precision else []),
        )
        if isinstance(wanted, JudgeFailure):
            return wanted
        if not wanted:
            return JudgeFailure("no_events")
        own = [] if isinstance(told, JudgeFailure) else told
        recall, precision = await asyncio.gather(
            _share(asked, wanted, pair.prediction), _share(asked, own, pair.reference)
        )
        if isinstance(recall, JudgeFailure):
            return recall
        # Precision is no reward: where it failed, perhaps by the prediction's own doing, recall still counts.
        if isinstance(told, JudgeFailure) or isinstance(precision, JudgeFailure) or not self.precision:
            return EventScores(recall, math.nan)
        return EventScores(recall, precision)

    async def _events(
        self, asked: Runtime, caption: str, known: list[str] | None
    ) -> list[str] | JudgeFailure:
        """Return the events of a caption, where they are not known already."""
        if known is not None:
            return known
        if not caption.strip():
            return []
        question = list_events(caption, self.max_events)
        return await asked.ask(question)


async def _share(asked: Runtime, events: list[str], caption: str) -> float | JudgeFailure:
    """Return share of the events that a caption entails; 0 for no events."""
    if not events or not caption.strip():
        return 0.0
    flags = await asked.ask(check_events(events, caption))
    return flags if isinstance(flags, JudgeFailure) else sum(flags) / len(flags)


# --------------------------------------------------------------------------------------------- settings


def _given(name: str, value: str | None, variable: str) -> str:
    """Return a setting, or else the environment's."""
    chosen = (value if value is not None else os.environ.get(variable, "")).strip()
    if not chosen:
        raise UserError(f"judge.{name} is not set: give judge.{name}=..., or set {variable}")
    return chosen


def _checked_url(url: str) -> str:
    """The URL without a slash at its end. What it holds besides an address may be secret: it is not shown."""
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise UserError("judge.url is no URL; it looks like http://localhost:8000/v1") from error
    if parts.userinfo or parts.query or parts.fragment:
        raise UserError(
            "judge.url must hold neither a user, nor a query, nor a fragment; a key goes into the variable "
            "that judge.key_variable names"
        )
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UserError(f"judge.url={url}: expected http:// or https:// and a host")
    return url.rstrip("/").removesuffix("/chat/completions")


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"judge.{name}={value}: expected a whole number, {least} or more")
    return value


def _seconds(name: str, value: Any, above_zero: bool = False) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf or (above_zero and value == 0):
        least = "more than 0" if above_zero else "0 or more"
        raise UserError(f"judge.{name}={value}: expected a finite number of seconds, {least}")
    return float(value)
