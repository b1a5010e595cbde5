"""What the judges of a process share: answers under way, answers on disk, one thread."""

import multiprocessing
import pickle
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judge_cases import LISTED, REFERENCE, judge_at, judged
from server import JudgeServer, Reply, Script, always, first

from vcr1.records import EventScores, JudgeFailure
from vcr1.scoring.judges import CaptionPair, EndpointJudge
from vcr1.scoring.judges.cache import FILE_NAME
from vcr1.scoring.judges.runtime import runtime


def test_equal_questions_at_the_same_time_are_sent_once(serve: Callable[[Script], JudgeServer]) -> None:
    server = serve(always(Reply(delay=0.05)))
    pairs = [CaptionPair(REFERENCE, f"He reads {number % 4} books.") for number in range(8)]
    judge = judge_at(server.url, precision=False)
    waiting = [judge.begin(pairs[:4]), judge.begin(pairs[4:])]
    assert [len(verdicts.result()) for verdicts in waiting] == [4, 4]
    assert sum("events" not in asked.data for asked in server.requests) == 1
    assert len(server.requests) == 1 + 4


def test_answers_are_kept_for_the_next_run(serve: Callable[[Script], JudgeServer], tmp_path: Path) -> None:
    server = serve(always(Reply()))
    pair = CaptionPair(REFERENCE, "He sits down. Il lit à côté.")
    first_run = judge_at(server.url, cache=str(tmp_path), backoff=0.01)
    next_run = judge_at(server.url, cache=str(tmp_path), backoff=0.02)  # shares nothing but the folder
    verdicts = judged(first_run, pair)
    assert len(server.requests) == 4
    assert judged(next_run, pair) == verdicts == [EventScores(1 / 3, 1 / 2)]
    assert len(server.requests) == 4
    judged(next_run, CaptionPair(REFERENCE, "He stands."))
    assert len(server.requests) == 4 + 3, "the reference's events are known"


def test_failures_are_not_kept(serve: Callable[[Script], JudgeServer], tmp_path: Path) -> None:
    server = serve(first(Reply(content="[true]"), times=3))
    judge = judge_at(server.url, cache=str(tmp_path), precision=False)
    assert judged(judge, LISTED) == [JudgeFailure("malformed")]
    (verdict,) = judged(judge, LISTED)
    assert isinstance(verdict, EventScores)


def test_an_answer_that_was_spoilt_on_disk_is_asked_for_again(
    serve: Callable[[Script], JudgeServer], tmp_path: Path
) -> None:
    server = serve(always(Reply()))
    judge = judge_at(server.url, cache=str(tmp_path), precision=False)
    judged(judge, LISTED)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("UPDATE answers SET answer = '[true, '")
    (verdict,) = judged(judge, LISTED)
    assert isinstance(verdict, EventScores)
    assert verdict.recall == 1 / 2
    assert len(server.requests) == 2


def test_a_broken_cache_does_not_stop_a_run(
    serve: Callable[[Script], JudgeServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "judge").write_text("a file where a folder should be")
    judge = judge_at(serve(always(Reply())).url, cache=str(tmp_path / "judge"))
    for _ in range(2):
        assert judged(judge, CaptionPair(REFERENCE, "He reads.")) == [EventScores(1 / 3, 1.0)]
    assert ["judge.cache" in record.getMessage() for record in caplog.records] == [True]


def test_it_pickles_as_its_settings_and_copies_share_one_runtime(
    serve: Callable[[Script], JudgeServer], tmp_path: Path
) -> None:
    server = serve(always(Reply()))
    judge = judge_at(server.url, cache=str(tmp_path))
    judged(judge, LISTED)
    data = pickle.dumps(judge)
    copy = pickle.loads(data)
    assert len(data) < 1000
    assert vars(copy) == vars(judge)
    assert runtime(copy.endpoint, copy.cache) is runtime(judge.endpoint, judge.cache)
    assert len([thread for thread in threading.enumerate() if thread.name == "judge"]) == 1


def judge_in_child(judge: EndpointJudge, results: Any) -> None:
    results.put(judged(judge, CaptionPair(REFERENCE, "He sleeps. He reads.")))


def test_a_forked_process_makes_its_own_runtime(
    serve: Callable[[Script], JudgeServer], tmp_path: Path
) -> None:
    server = serve(always(Reply()))
    judge = judge_at(server.url, cache=str(tmp_path))
    judged(judge, CaptionPair(REFERENCE, "He reads."))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=judge_in_child, args=(judge, results))
    child.start()
    assert results.get(timeout=60) == [EventScores(1 / 3, 1 / 2)]
    child.join(60)
    assert child.exitcode == 0
    assert judged(judge, CaptionPair(REFERENCE, "He sleeps. He reads.")) == [EventScores(1 / 3, 1 / 2)]
    assert len(server.requests) == 4 + 3, "the child knew the reference's events, the parent knows all"
