"""NExT-GQA (arXiv 2309.01327) as it is published, and in JSON as VideoChat-R1 ships it."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations, keeps_truth, mend_interval
from vcr1.readers.files import read_json, read_lines
from vcr1.readers.rows import read_rows, strict_number
from vcr1.readers.videos import VideoFolder
from vcr1.records import GroundedAnswer, Interval, Sample

OPTIONS = ("a0", "a1", "a2", "a3", "a4")
COLUMNS = ("video_id", "question", "answer", "qid", "type", *OPTIONS)

_ROUNDING = 0.5  # seconds: durations in the files are whole
_FRAME_COUNT = re.compile(r"[0-9]{0,9}")
_LETTER = re.compile(r"\(([A-Z])\)")

Pairs = Sequence[tuple[Any, Any]]
"""Start and end of spans in seconds, as the file has them."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A question as a file states it.

    Attributes:
        id: of the sample.
        video: its name.
        question: its text.
        options: texts without letters.
        answer: place of the right option, counted from 0; None where there is none.
        kind: type of the question, such as ``CW``.
        spans: that show the answer.
        duration: of the video in seconds, where it is stated.
        exact: whether the duration is more than a number of whole seconds.
    """

    id: str
    video: str
    question: str
    options: tuple[str, ...]
    answer: int | None
    kind: str
    spans: Pairs
    duration: float | None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class _VideoSpans:
    """One video in the file of spans: seconds, frames per second, question -> spans."""

    duration: float | None
    fps: float | None
    location: Mapping[str, Pairs]


def read_nextgqa(
    questions: str, spans: str, videos: str, id_map: str | None = None, limit: int | None = None
) -> Annotations:
    """NExT-GQA's own files: questions in CSV, the spans that show their answers in JSON.

    A question without spans is no sample and counts as dropped. For training, dropped are, too, a question
    whose video is missing, whose answer is none of the options or stands twice among them, and one without a
    usable span. Where the truth stays the file's, the first of equal options is right, as in the authors' own
    code (``TempCLIP/dataloader/vqa_loader.py``), and the spans are those of the file.

    For training, spans are mended one by one (`mend_interval`). They are put in order, but never merged, even
    where they touch: NExT-GQA's own metrics take the best over the spans as they are given. A video's length
    is its frames over its frame rate: durations in the file are rounded to whole seconds, so that good spans
    end up to half a second after them. Without either of the two, the whole seconds count, and a span may end
    half a second later.

    Args:
        questions: ``val.csv`` or ``test.csv``, one question per line.
        spans: ``gsub_val.json`` or ``gsub_test.json``, ``{video: {duration, fps, location: {qid: spans}}}``.
        videos: folder of the videos.
        id_map: ``map_vid_vidorID.json``, video -> its path in the folder without extension; None where videos
            are named by their ids.
        limit: read the first so many questions only.

    Raises:
        UserError: a missing or broken file (names line or video), a missing folder, no usable question.
    """
    paths = {} if id_map is None else _read_map(id_map)
    located = _read_spans(spans)
    folder, result = VideoFolder(videos), Annotations(questions)
    seen: set[str] = set()
    for number, cells in _read_questions(questions, limit):
        video, frames = cells["video_id"], cells.get("frame_count", "").strip()
        if not _FRAME_COUNT.fullmatch(frames):
            raise UserError(f"{questions}, line {number}: frame_count is no number: {frames[:80]!r}")
        entry = located.get(video, _VideoSpans(None, None, {}))
        length = int(frames or 0) / entry.fps if entry.fps else 0.0
        options, answer = tuple(cells[name].strip() for name in OPTIONS), cells["answer"].strip()
        row = _Row(
            id=f"{video}_{cells['qid']}",
            video=paths.get(video, video),
            question=cells["question"],
            options=options,
            answer=options.index(answer) if answer in options else None,
            kind=cells["type"],
            spans=entry.location.get(cells["qid"], ()),
            duration=length or entry.duration,
            exact=length > 0,
        )
        _add(result, row, folder, seen)
    return result.checked()


def read_nextgqa_json(annotations: str, videos: str, limit: int | None = None) -> Annotations:
    """NExT-GQA as VideoChat-R1 ships it: ``[{id, video, question, options, duration, glue, type, answer}]``.

    ``options`` begin with ``(A)``, ``(B)``, … in this order, ``answer`` is such a letter, ``glue`` holds the
    spans. Dropped and mended is what `read_nextgqa` drops and mends. Durations are whole seconds: a span
    that ends up to half a second later is taken for good and shows the video's length.

    Args:
        annotations: the JSON file.
        videos: folder of the videos.
        limit: read the first so many rows only.

    Raises:
        UserError: a missing or broken file (names the row), a missing folder, no usable row.
    """
    content = read_rows(annotations)
    folder, result = VideoFolder(videos), Annotations(annotations)
    seen: set[str] = set()
    for number, row in enumerate(content[:limit], 1):
        try:
            options = _options(row["options"])
            fields = {name: _text(row[name]) for name in ("id", "video", "question", "type", "answer")}
            spans, duration = _pairs(row["glue"]), strict_number(row["duration"])
            if (letter := _LETTER.fullmatch(fields["answer"].strip())) is None:
                raise ValueError(f"the answer is no letter in brackets: {fields['answer'][:80]!r}")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{annotations}, row {number}: needs id, video, question, type, options ['(A) ...', ...], "
                f"answer '(A)', duration and glue [[start, end], ...] ({type(error).__name__}: {error})"
            ) from error
        place = ascii_uppercase.index(letter[1])
        row = _Row(
            fields["id"],
            fields["video"],
            fields["question"],
            options,
            place if place < len(options) else None,
            fields["type"],
            spans,
            duration,
        )
        _add(result, row, folder, seen)
    return result.checked()


def _add(result: Annotations, row: _Row, folder: VideoFolder, seen: set[str]) -> None:
    """Add a question, or count why it is left out."""
    attempt, kind, path = Annotations(row.id), row.kind.strip(), folder.find(row.video)
    repeated = row.answer is not None and row.options.count(row.options[row.answer]) > 1
    reason = None
    if row.id in seen:
        reason = "repeated_id"
    elif not row.spans:
        reason = "no_spans"
    elif path is None:
        reason = "missing_video"
    elif not row.question.strip():
        reason = "empty_query"
    elif "" in row.options and not keeps_truth():
        reason = "empty_option"
    elif row.answer is None:
        reason = "answer_is_no_option"
    elif repeated and not keeps_truth():
        reason = "answer_stands_twice"
    seen.add(row.id)
    sample = None
    if reason is not None:
        attempt.drop(reason, row.id, detail=folder.tried(row.video) if reason == "missing_video" else "")
    elif (mended := _mend_spans(row, attempt)) is not None:
        intervals, duration = mended
        assert path is not None
        assert row.answer is not None
        attempt.noticed.update(["answer_stands_twice"] if repeated else [])
        target = GroundedAnswer(ascii_uppercase[row.answer], intervals)
        extra = {"category": kind} if kind else {}
        sample = Sample(row.id, path, row.question.strip(), target, duration, row.options, extra)
    result.settle(attempt, sample, kind or None)


def _mend_spans(row: _Row, attempt: Annotations) -> tuple[tuple[Interval, ...], float | None] | None:
    """The spans in order of time, and the video's seconds; None without a usable span, which is counted."""
    duration = row.duration
    if duration is not None and duration.is_integer() and not row.exact:
        ends = [end for _, end in row.spans if duration < end <= duration + _ROUNDING]
        duration = max([duration, *map(float, ends)])
    account = Annotations(row.id)
    found = [mend_interval(start, end, duration, account) for start, end in row.spans]
    usable = [interval for interval in found if interval is not None]
    if not usable:
        attempt.drop(next(iter(account.dropped)), row.id)
        return None
    reasons = {
        "duration_was_rounded": duration != row.duration,
        "span_left_out": len(usable) < len(found),
    }
    attempt.mended.update([*account.mended, *(reason for reason, holds in reasons.items() if holds)])
    attempt.noticed.update(account.noticed.keys())
    usable.sort(key=lambda span: (span.start, span.end))
    return tuple(usable), duration if duration is not None and 0 < duration < math.inf else None


# ----------------------------------------------------------------------------------------- NExT-GQA's files


def _read_questions(path: str, limit: int | None) -> list[tuple[int, dict[str, str]]]:
    """(line number, column -> cell); a question takes one line."""
    (first, header), *lines = read_lines(path)
    names = _cells(path, first, header)
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise UserError(f"{path}, line {first}: the columns {', '.join(missing)} are missing")
    rows = []
    for number, line in lines[:limit]:
        cells = _cells(path, number, line)
        if len(cells) != len(names):
            raise UserError(f"{path}, line {number}: {len(cells)} cells, but there are {len(names)} columns")
        rows.append((number, dict(zip(names, cells, strict=True))))
    return rows


def _cells(path: str, number: int, line: str) -> list[str]:
    """A line at a time, so that a quote left open is found where it stands, not at the end of the file."""
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, line {number}: not valid CSV: {error}") from error


def _read_spans(path: str) -> dict[str, _VideoSpans]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected {{video: {{...}}}}, found a {type(content).__name__}")
    located = {}
    for video, entry in content.items():
        try:
            duration, fps = (
                None if entry.get(name) is None else strict_number(entry[name])
                for name in ("duration", "fps")
            )
            if fps is not None and not 0 < fps < math.inf:
                raise ValueError(f"fps is {fps}")
            location = {qid: _pairs(spans) for qid, spans in entry["location"].items()}
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{path}: video {video!r} needs duration, fps and location {{question: [[start, end], ...]}} "
                f"({type(error).__name__}: {error})"
            ) from error
        located[video] = _VideoSpans(duration, fps, location)
    return located


def _read_map(path: str) -> dict[str, str]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise UserError(f"{path}: expected {{video: path}} of texts")
    return content


# ------------------------------------------------------------------------------------------------- values


def _options(values: Any) -> tuple[str, ...]:
    """Return texts of options that begin with their letters, in order; 2 to 26."""
    if not isinstance(values, list) or not 2 <= len(values) <= len(ascii_uppercase):
        raise ValueError("options are a list of 2 to 26 texts")
    for letter, text in zip(ascii_uppercase, values, strict=False):
        if not _text(text).startswith(f"({letter}) "):
            raise ValueError(f"option {letter} does not begin with '({letter}) ': {text[:80]!r}")
    return tuple(text[len("(A) ") :].strip() for text in values)


def _pairs(values: Any) -> list[tuple[float, float]]:
    if not isinstance(values, list):
        raise TypeError(f"spans are a list, not a {type(values).__name__}")
    return [(strict_number(start), strict_number(end)) for start, end in values]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where a text should be")
    return value
