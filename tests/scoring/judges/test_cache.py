"""Answers on disk: kept whole, shared by processes, and never in a run's way."""

import logging
import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from vcr1.scoring.judges import cache as cache_module
from vcr1.scoring.judges.cache import FILE_NAME, AnswerCache


def test_answers_survive_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    first = AnswerCache(folder)
    assert first.get("key") is None
    first.put("key", '["a"]')
    first.put("other", "é 日本")
    first.put("key", '["b"]')
    first.close()
    again = AnswerCache(str(folder))
    assert (again.get("key"), again.get("other"), again.get("third")) == ('["b"]', "é 日本", None)


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = AnswerCache(None)
    cache.put("key", "answer")
    assert cache.get("key") is None
    assert list(tmp_path.iterdir()) == []


def test_two_open_caches_see_each_other_s_answers(tmp_path: Path) -> None:
    one, other = AnswerCache(tmp_path), AnswerCache(tmp_path)
    assert other.get("key") is None
    one.put("key", "answer")
    assert other.get("key") == "answer"


def break_header(folder: Path) -> None:
    (folder / FILE_NAME).write_bytes(b"this is no database " * 500)


def make_it_a_folder(folder: Path) -> None:
    (folder / FILE_NAME).mkdir()


def give_it_another_table(folder: Path) -> None:
    with sqlite3.connect(folder / FILE_NAME) as connection:
        connection.execute("CREATE TABLE answers (number REAL)")


def break_pages(folder: Path) -> None:
    cache = AnswerCache(folder)
    for number in range(200):
        cache.put(str(number), "x" * 200)
    cache.close()
    file = folder / FILE_NAME
    content = file.read_bytes()
    file.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


@pytest.mark.parametrize("spoil", [break_header, make_it_a_folder, give_it_another_table, break_pages])
def test_a_broken_file_is_said_once_and_left_alone(
    spoil: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(tmp_path)
    cache = AnswerCache(tmp_path)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            assert cache.get(str(number)) is None
            cache.put(str(number), "answer")
    (record,) = caplog.records
    assert f"judge.cache: {tmp_path / FILE_NAME} cannot be used" in record.getMessage()


def test_a_folder_that_cannot_be_made_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = AnswerCache(tmp_path / "file" / "folder")
    cache.put("key", "answer")
    assert cache.get("key") is None
    assert len(caplog.records) == 1


def test_a_value_that_is_no_text_is_no_answer(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    cache.put("key", "answer")
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("UPDATE answers SET answer = x'00ff'")
    assert cache.get("key") is None
    cache.put("key", "better")
    assert cache.get("key") == "better"


def test_a_file_that_others_hold_costs_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache_module, "BUSY_SECONDS", 0.05)
    cache = AnswerCache(tmp_path)
    cache.put("before", "1")
    other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache.put("meanwhile", "2")
    assert cache.get("before") == "1"
    other.execute("ROLLBACK")
    cache.put("after", "3")
    assert [cache.get(key) for key in ("before", "meanwhile", "after")] == ["1", None, "3"]
    assert caplog.records == []


def write_many(folder: Path, writer: int) -> None:
    cache = AnswerCache(folder)
    for number in range(40):
        cache.put(f"{number}", f"answer {number}")
        cache.put(f"{writer}/{number}", "x" * number)


def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(tmp_path, writer)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    cache = AnswerCache(tmp_path)
    assert [cache.get(f"{number}") for number in range(40)] == [f"answer {number}" for number in range(40)]
    kept = [cache.get(f"{writer}/{number}") for writer in range(4) for number in range(40)]
    assert kept == ["x" * number for _ in range(4) for number in range(40)]
