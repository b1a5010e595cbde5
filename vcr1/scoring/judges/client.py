"""The HTTP client of a judging model: bounded in time, in size and in how much it asks at once."""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import os
import random
import time
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from vcr1.errors import UserError
from vcr1.records import JudgeFailure
from vcr1.scoring.judges.questions import MAX_ANSWER, JudgeQuestion

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BODY = 1 << 20
"""Bytes of a response that are read; a larger one is malformed."""
MAX_DETAIL = 200
"""Characters of a response that a message quotes."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model answers, and how patiently it is asked. Holds no key, only the name of its variable.

    Attributes:
        url: of the API, without ``/chat/completions``.
        model: name by which the endpoint knows the model.
        key_variable: environment variable that holds the key; unset for a server that wants none.
        concurrency: requests at the same time.
        timeout: seconds for one request, from connecting to the last byte.
        retries: further attempts after the first.
        backoff: seconds before the first retry; doubled before each further one.
        max_wait: seconds before any retry at most, whatever the endpoint asks for.
    """

    url: str
    model: str
    key_variable: str
    concurrency: int
    timeout: float
    retries: int
    backoff: float
    max_wait: float

    @property
    def attempts_time(self) -> float:
        """Return seconds that the requests of one question take at most."""
        return (self.retries + 1) * self.timeout

    @property
    def question_time(self) -> float:
        """Return seconds until one question is settled at most, where it need not queue."""
        return self.attempts_time + self.retries * self.max_wait

    def pause(self, attempt: int, asked: float | None, jitter: float) -> float:
        """Return seconds to wait after a failed attempt.

        Args:
            attempt: its number, from 0.
            asked: seconds that the endpoint asked for (``Retry-After``), if it did.
            jitter: in 0..1; spreads the retries of many, so that they do not come all at once again.
        """
        if asked is not None:
            return min(asked + self.backoff * jitter, self.max_wait)
        return min(self.backoff * 2.0 ** min(attempt, 32), self.max_wait) * (1 + jitter) / 2


class RequestFailed(Exception):
    """One request that brought no answer.

    Args:
        reason: one of `vcr1.scoring.judges.JUDGE_FAILURES`.
        detail: what happened, for people; without the key.
        asked: seconds that the endpoint wants to be left alone, if it said so.
    """

    def __init__(self, reason: str, detail: str, asked: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.asked = asked


class ChatClient:
    """Asks an OpenAI-compatible endpoint; to be used from one event loop only.

    Raises:
        UserError: a proxy or certificates of the environment that cannot be used.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._slots = asyncio.Semaphore(endpoint.concurrency)
        self._random = random.Random()  # its own: the run's seeded one must not depend on the network
        self._warned: set[str] = set()
        for name in ("httpx", "httpcore"):  # a line per request would drown the run's log
            if logging.getLogger(name).level == logging.NOTSET:
                logging.getLogger(name).setLevel(logging.WARNING)
        # Its own time limits start anew with every byte; `attempt` sets one for the whole.
        limits = httpx.Limits(max_connections=endpoint.concurrency)
        try:
            self._http = httpx.AsyncClient(timeout=None, limits=limits)
        except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
            raise UserError(
                "judge.url: the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or the certificates in "
                f"SSL_CERT_FILE or SSL_CERT_DIR, cannot be used ({error})"
            ) from error

    async def ask(self, question: JudgeQuestion[T]) -> T | JudgeFailure:
        """The model's answer; a failure once the retries are spent, or at once where none would help."""
        for attempt in range(self.endpoint.retries + 1):
            try:
                return await self.attempt(question)
            except RequestFailed as error:
                failure = error
            if failure.reason == "refused" or attempt == self.endpoint.retries:
                break
            await asyncio.sleep(self.endpoint.pause(attempt, failure.asked, self._random.random()))
        self._warn(failure)
        return JudgeFailure(failure.reason)

    async def attempt(self, question: JudgeQuestion[T]) -> T:
        """Return the model's answer to one request.

        Raises:
            RequestFailed: there is none.
        """
        body = {"model": self.endpoint.model, "messages": question.messages, "temperature": 0}
        async with self._slots:
            status, headers, content = await self._post(json.dumps(body).encode())
        detail = f"HTTP status {status}: {self._excerpt(content)}"
        asked = retry_after(headers.get("retry-after", ""), time.time())
        if status == 429:
            raise RequestFailed("rate_limited", detail, asked)
        if status >= 500:
            raise RequestFailed("server_error", detail, asked)
        if not 200 <= status < 300:
            raise RequestFailed("refused", detail)
        text = message_of(content)
        answer = None if text is None else question.read(text)
        if answer is None:
            raise RequestFailed("malformed", f"no answer of the wanted form in {self._excerpt(content)}")
        return answer

    async def _post(self, body: bytes) -> tuple[int, httpx.Headers, bytes]:
        """Return status, headers and the first `MAX_BODY` bytes of the response."""
        try:
            # Not compressed: a small response could unfold to any size.
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            headers |= authorization(self.endpoint.key_variable)
            url = f"{self.endpoint.url}/chat/completions"
            async with (
                asyncio.timeout(self.endpoint.timeout),
                self._http.stream("POST", url, content=body, headers=headers) as response,
            ):
                content = bytearray()
                async for chunk in response.aiter_raw():
                    content += chunk
                    if len(content) > MAX_BODY:
                        raise RequestFailed("malformed", f"a response of more than {MAX_BODY} bytes")
                return response.status_code, response.headers, bytes(content)
        except UserError as error:
            raise RequestFailed("refused", str(error)) from error
        except (TimeoutError, httpx.TimeoutException) as error:
            detail = f"no full answer within {self.endpoint.timeout} s"
            raise RequestFailed("timeout", detail) from error
        except (httpx.HTTPError, OSError) as error:
            detail = f"{type(error).__name__}: {self._hide_key(str(error))[:MAX_DETAIL]}"
            raise RequestFailed("unreachable", detail) from error

    def _excerpt(self, content: bytes) -> str:
        """The beginning of a response on one line; some servers repeat the key that they were given."""
        text = content[: 8 * MAX_DETAIL].decode("utf-8", "replace")
        return " ".join(self._hide_key(text).split())[:MAX_DETAIL] or "(empty)"

    def _hide_key(self, text: str) -> str:
        key = os.environ.get(self.endpoint.key_variable, "").strip()
        return text.replace(key, "[key]") if key else text

    def _warn(self, failure: RequestFailed) -> None:
        """Say each reason once; how often it came is in the run's metrics."""
        if failure.reason not in self._warned:
            self._warned.add(failure.reason)
            log.warning(
                "judge at %s gave no verdict: %s (said once; the share of completions without a verdict "
                "is in the metrics)",
                self.endpoint.url,
                failure,
            )


def authorization(key_variable: str) -> dict[str, str]:
    """Return the header that holds the key; none where the variable is unset or blank.

    Raises:
        UserError: a key that no header can hold.
    """
    key = os.environ.get(key_variable, "").strip()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"judge.key_variable: the key in {key_variable} has characters that are not printable ASCII"
        )
    return {"Authorization": f"Bearer {key}"}


def message_of(body: bytes) -> str | None:
    """Return the text of the model's message in a response; None where there is none, or too much."""
    try:
        content: Any = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, RecursionError, TypeError, LookupError):
        return None
    return content if isinstance(content, str) and len(content) <= MAX_ANSWER else None


def retry_after(header: str, now: float) -> float | None:
    """Return seconds of a ``Retry-After`` header: a number of seconds or a date; None where it is neither.

    Args:
        header: its value.
        now: seconds since the epoch.
    """
    header = header.strip()[:64]
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        return max(email.utils.parsedate_to_datetime(header).timestamp() - now, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
