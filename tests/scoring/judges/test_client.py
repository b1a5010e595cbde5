"""The real client against a real server that misbehaves: reasons, retries and bounds."""

import gzip
import logging
import socket
import threading
from collections.abc import Callable

import pytest
from judge_cases import LISTED, REFERENCE, judge_at, judged
from server import Asked, JudgeServer, Reply, Script, always, first

from vcr1.records import EventScores, JudgeFailure
from vcr1.scoring.judges import JUDGE_FAILURES, CaptionPair, EndpointJudge
from vcr1.scoring.judges import endpoint as endpoint_module
from vcr1.scoring.judges.client import Endpoint, retry_after
from vcr1.scoring.judges.runtime import in_background

# ------------------------------------------------------------------------------------------------ failures

FAILING = {
    "always 500": (Reply(status=500), "server_error", 3),
    "always 503, and asks for an hour": (
        Reply(status=503, headers={"Retry-After": "3600"}),
        "server_error",
        3,
    ),
    "always 429": (Reply(status=429), "rate_limited", 3),
    "400": (Reply(status=400), "refused", 1),
    "401": (Reply(status=401), "refused", 1),
    "404": (Reply(status=404), "refused", 1),
    "redirect": (Reply(status=302, headers={"Location": "/v2"}), "refused", 1),
    "no JSON": (Reply(body=b'{"choices": [{"mess'), "malformed", 3),
    "no text": (Reply(body=b'{"choices": [{"message": {"content": null}}]}'), "malformed", 3),
    "no choices": (Reply(body=b'{"choices": []}'), "malformed", 3),
    "another type": (Reply(body=b'["choices"]'), "malformed", 3),
    "not UTF-8": (Reply(body=b'"\xff\xfe"'), "malformed", 3),
    "endless brackets": (Reply(body=b"[" * 100_000), "malformed", 3),
    "empty": (Reply(body=b""), "malformed", 3),
    "compressed": (
        Reply(body=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}),
        "malformed",
        3,
    ),
    "huge body": (Reply(body=b" " * (3 << 20)), "malformed", 3),
    "huge answer": (Reply(content="[true, false]" + " " * 40_000), "malformed", 3),
    "chatter": (Reply(content="Sure! Both of them happen."), "malformed", 3),
    "too short a list": (Reply(content="[true]"), "malformed", 3),
    "too long a list": (Reply(content="[true, true, true]"), "malformed", 3),
    "reset": (Reply(reset=True), "unreachable", 3),
}


@pytest.mark.parametrize("kind", FAILING)
def test_failures_become_reasons_and_retries_end(
    kind: str, serve: Callable[[Script], JudgeServer], caplog: pytest.LogCaptureFixture
) -> None:
    reply, reason, requests = FAILING[kind]
    server = serve(always(reply))
    judge = judge_at(server.url, precision=False)
    assert judged(judge, LISTED) == [JudgeFailure(reason)]
    assert reason in JUDGE_FAILURES
    assert len(server.requests) == requests
    judged(judge, LISTED)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1, "each reason is said once"
    assert f"judge at {server.url} gave no verdict: {reason}" in warnings[0]


@pytest.mark.parametrize("reply", [Reply(delay=30), Reply(drip=0.05)], ids=["silent", "a byte at a time"])
def test_slow_answers_are_given_up(reply: Reply, serve: Callable[[Script], JudgeServer]) -> None:
    server = serve(always(reply))
    judge = judge_at(server.url, precision=False, timeout=0.2, retries=1)
    assert judged(judge, LISTED) == [JudgeFailure("timeout")]
    assert len(server.requests) == 2


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    judge = judge_at(f"http://127.0.0.1:{port}/v1")
    pairs = [CaptionPair(REFERENCE, text) for text in ("He reads.", "He sleeps.")]
    assert judged(judge, *pairs) == [JudgeFailure("unreachable")] * 2


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500),
        Reply(status=429),
        Reply(status=429, headers={"Retry-After": "0"}),
        Reply(status=429, headers={"Retry-After": "3600"}),
        Reply(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Reply(status=429, headers={"Retry-After": "soon"}),
        Reply(body=b"<html>"),
        Reply(content="Let me think."),
        Reply(content="[true]"),
        Reply(reset=True),
    ],
)
def test_one_failure_is_mended_by_one_retry(reply: Reply, serve: Callable[[Script], JudgeServer]) -> None:
    server = serve(first(reply))
    (verdict,) = judged(judge_at(server.url, precision=False), LISTED)
    assert isinstance(verdict, EventScores)
    assert verdict.recall == 1 / 2
    assert len(server.requests) == 2


def test_slots_come_back_after_timeouts(serve: Callable[[Script], JudgeServer]) -> None:
    server = serve(first(Reply(delay=30), times=2))
    judge = judge_at(server.url, precision=False, timeout=1.0, retries=4, concurrency=2)
    verdicts = judged(judge, LISTED, CaptionPair(REFERENCE, "He reads.", ("He reads",)))
    assert [v.recall for v in verdicts if isinstance(v, EventScores)] == [1 / 2, 1]
    assert len(server.requests) == 4


def test_one_pair_s_failure_is_not_another_s(serve: Callable[[Script], JudgeServer]) -> None:
    server = serve(lambda number, asked: Reply(status=400 if "sleeps" in asked.data["caption"] else 200))
    pairs = [CaptionPair(REFERENCE, text) for text in ("He sleeps.", "He reads.")]
    assert judged(judge_at(server.url), *pairs) == [JudgeFailure("refused"), EventScores(1 / 3, 1.0)]


# -------------------------------------------------------------------------------------------------- bounds


def test_no_more_requests_at_once_than_allowed(serve: Callable[[Script], JudgeServer]) -> None:
    def together(number: int, asked: Asked) -> Reply:
        """Holds every request until three are there at the same time."""
        with server.changed:
            assert server.changed.wait_for(lambda: server.peak >= 3, timeout=20)
        return Reply(delay=0.01)

    server = serve(together)
    pairs = [CaptionPair(REFERENCE, f"He reads {number} books.") for number in range(12)]
    verdicts = judged(judge_at(server.url, concurrency=3), *pairs)
    assert all(isinstance(verdict, EventScores) for verdict in verdicts)
    assert len(server.requests) == 1 + 12 + 12 + 12
    assert server.peak == 3


def test_pauses_grow_and_are_bounded() -> None:
    endpoint = Endpoint("", "", "", concurrency=2, timeout=3.0, retries=4, backoff=1.0, max_wait=5.0)
    assert [endpoint.pause(attempt, None, jitter=1.0) for attempt in range(4)] == [1, 2, 4, 5]
    assert [endpoint.pause(attempt, None, jitter=0.0) for attempt in range(4)] == [0.5, 1, 2, 2.5]
    assert endpoint.pause(10**9, None, jitter=1.0) == 5
    assert [endpoint.pause(0, asked, jitter=0.5) for asked in (0.0, 2.0, 3600.0)] == [0.5, 2.5, 5]
    assert (endpoint.attempts_time, endpoint.question_time) == (15, 35)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("", None),
        ("-3", None),
        ("1.5", None),
        ("nan", None),
        ("²", None),
        ("Thu, 99 Jan 99999 00:00:10 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after(header, now=40.0) == seconds


def test_the_limit_follows_from_the_settings() -> None:
    judge = EndpointJudge("http://h/v1", "m", concurrency=2, timeout=3, retries=4, max_wait=5)
    # 4 questions of 15 s over 2 slots, then 2 questions of 35 s one after the other
    assert judge.limit(1) == 30 + 70
    assert judge.limit(8) == 240 + 70


def test_verdicts_that_are_late_are_given_up(
    serve: Callable[[Script], JudgeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EndpointJudge, "limit", lambda self, pairs: 2.0)
    server = serve(lambda number, asked: Reply(delay=30 if "sleeps" in asked.data["caption"] else 0))
    pairs = [CaptionPair(REFERENCE, text) for text in ("He sleeps.", "He reads.")]
    assert judged(judge_at(server.url), *pairs) == [JudgeFailure("timeout"), EventScores(1 / 3, 1.0)]


def test_waiting_ends_even_where_the_background_is_stuck(
    serve: Callable[[Script], JudgeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "GRACE", 0.1)
    monkeypatch.setattr(EndpointJudge, "limit", lambda self, pairs: 0.1)
    free = threading.Event()

    async def block() -> None:
        free.wait(30)

    blocked = in_background(block())
    try:
        assert judged(judge_at(serve(always(Reply())).url), LISTED, LISTED) == [JudgeFailure("timeout")] * 2
    finally:
        free.set()
        blocked.result(30)
