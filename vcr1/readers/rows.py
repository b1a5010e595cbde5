"""Rows of annotation files: their fields, their videos, and the account of each."""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations, clamp_interval
from vcr1.readers.files import read_json, read_lines
from vcr1.readers.videos import VideoFolder
from vcr1.records import VideoSource

Footage = tuple[str | VideoSource, float | None]
"""A sample's video, and the length in seconds, where it is known, of what is shown: the part or the whole."""


def seconds_of(footage: Footage | None) -> float | None:
    """Return the seconds of a sample's video, where they are known."""
    return None if footage is None else footage[1]


def read_rows(path: str | Path) -> list[Any]:
    """Return the rows of a JSON file that is a list.

    Raises:
        UserError: a missing or broken file, or one that holds no list.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a list of rows, found a {type(content).__name__}")
    return content


def check_row(place: str, row: object, kinds: Mapping[str, type | UnionType]) -> None:
    """Check that a row is an object with these fields; ``place`` names it.

    Raises:
        UserError: a field is missing or of another kind.
    """
    for field, kind in kinds.items():
        value = row.get(field) if isinstance(row, Mapping) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            form = getattr(kind, "__name__", str(kind))
            raise UserError(f"{place}: needs the field {field!r} ({form}); found a {type(value).__name__}")


def texts_of(place: str, row: Mapping[str, Any], field: str) -> list[str]:
    """Return a field's list of texts, numbers written out.

    Raises:
        UserError: something in it is neither.
    """
    if not all(isinstance(item, str | int | float) for item in row[field]):
        raise UserError(f"{place}: {field!r} must list texts")
    return [str(item) for item in row[field]]


def find_footage(
    folder: VideoFolder,
    name: str,
    attempt: Annotations,
    start: object = None,
    end: object = None,
    fps: object = None,
    duration: float | None = None,
) -> Footage | None:
    """Return a sample's video; None where there is none, counted in ``attempt``.

    Args:
        folder: where it lies.
        name: of a file, or of a folder of frames below it.
        attempt: counts what is mended or makes the row unusable.
        start: seconds into the video at which the sample's part begins; None for the beginning.
        end: seconds at which it ends; None for the end.
        fps: frames per second of a folder of frames; not read for a file.
        duration: of the whole video in seconds, where it is known.
    """
    path = folder.find(name) if name.strip() else None
    rate: float | None = None
    if path is None and name.strip() and (path := folder.find_frames(name)) is not None:
        rate = 0.0 if fps is None else _number(fps)
    if path is None:
        attempt.drop("missing_video", attempt.source, detail=folder.tried(name))
    elif rate is not None and not 0 < rate < math.inf:
        attempt.drop("frames_without_fps" if fps is None else "fps_not_positive", attempt.source)
    elif duration is not None and not 0 < duration < math.inf:
        attempt.drop("duration_not_positive", attempt.source)
    elif start is None and end is None:
        return (path if rate is None else VideoSource(path, fps=rate)), duration
    else:
        return _part(path, rate, 0.0 if start is None else _number(start), end, duration, attempt)
    return None


def _part(
    path: str, fps: float | None, start: float, end: object, duration: float | None, attempt: Annotations
) -> Footage | None:
    """Return the footage from ``start`` to ``end`` seconds; see `find_footage`."""
    if end is None and duration is None:
        if 0 <= start < math.inf:
            return VideoSource(path, start, fps=fps), None
        attempt.drop("not_a_span", attempt.source)
        return None
    last = _number(duration if end is None else end)
    span = clamp_interval(start, last, duration, attempt, anyhow=True)
    if span is None:
        return None
    return VideoSource(path, span.start, None if end is None else span.end, fps), span.length


def strict_number(value: object) -> float:
    """As a float.

    Raises:
        TypeError: no number, such as a text or a truth value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a {type(value).__name__} where a number should be")
    return float(value)


def _number(value: object) -> float:
    """As a float; NaN where it is no number."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def check_ids(result: Annotations) -> Annotations:
    """Return the annotations where they hold samples, each with an id of its own.

    Raises:
        UserError: two samples have the same id, or nothing usable is left.
    """
    id_, count = Counter(sample.id for sample in result.checked().samples).most_common(1)[0]
    if count > 1:
        raise UserError(f"{result.source}: {count} rows have the id {id_!r}; ids must differ")
    return result


# ------------------------------------------------------------------------------------------ lines of JSON


@dataclass(frozen=True, slots=True)
class Row:
    """One line's object, without the fields that are null.

    Attributes:
        place: file and line, for messages.
        id: its id, or the one that it gets by default.
        content: field -> value.
    """

    place: str
    id: str
    content: dict[str, Any]

    def fault(self, name: str, form: str) -> UserError:
        """Return the error that a field is missing or has another form than ``form``."""
        if name not in self.content:
            return UserError(f"{self.place}: needs the field {name!r}: {form}")
        return UserError(
            f"{self.place}: field {name!r} must be {form}, not {reprlib.repr(self.content[name])}"
        )

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text, stripped; ``default`` where it is left out, else the field is needed."""
        value = self.content.get(name, default)
        if not isinstance(value, str):
            raise self.fault(name, "a text")
        return value.strip()

    def texts(self, name: str) -> list[str]:
        """Return a list of texts."""
        value = self.content.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fault(name, "a list of texts")
        return value

    def number(self, name: str) -> float | None:
        """Return a number, not necessarily a finite one; None where it is left out."""
        if name not in self.content:
            return None
        if not _is_number(self.content[name]):
            raise self.fault(name, "a number")
        return as_float(self.content[name])

    def numbers(self, name: str, size: int, form: str) -> list[list[float]]:
        """Return a list of lists of ``size`` numbers; ``form`` describes it in messages."""
        value = self.content.get(name)
        if not isinstance(value, list) or not value or not all(are_numbers(item, size) for item in value):
            raise self.fault(name, form)
        return [[as_float(number) for number in item] for item in value]


def read_objects(path: str, limit: int | None = None) -> Iterator[Row]:
    """The objects of a JSONL file's lines; blank lines are passed over. A JSON list of objects is read too.

    Raises:
        UserError: a missing file, a line that is no JSON object, or two lines with one id.
    """
    lines: dict[str, int] = {}
    for number, place, content in _contents(path, limit):
        id_ = content.get("id", f"{Path(path).stem}-{number}")
        if not isinstance(id_, str | int) or isinstance(id_, bool) or not str(id_).strip():
            raise Row(place, "", content).fault("id", "a text or a whole number")
        id_ = str(id_).strip()
        if id_ in lines:
            raise UserError(f"{path}: lines {lines[id_]} and {number} have the same id {reprlib.repr(id_)}")
        lines[id_] = number
        yield Row(place, id_, content)


def _contents(path: str, limit: int | None) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(number, place for messages, object without its nulls) of each line, or of each row of a list."""
    lines = read_lines(path)
    if not lines[0][1].lstrip().startswith("["):
        for number, line in lines[:limit]:
            place = f"{path}, line {number}"
            yield number, place, _object(place, _parse(place, line))
        return
    content = read_json(path)
    for number, row in enumerate(content[:limit] if isinstance(content, list) else [content], 1):
        place = f"{path}, row {number}"
        yield number, place, _object(place, row)


def _parse(place: str, line: str) -> Any:
    """Return the content of a line."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1:
                raise UserError(f"{place}: the field {reprlib.repr(name)} stands {count} times in one object")
        return dict(pairs)

    try:
        content = json.loads(line, object_pairs_hook=unique)
        if "\\u" in line:  # may be half a character, which neither files nor tokenizers take
            json.dumps(content, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not valid JSON at column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, endless brackets
        raise UserError(f"{place}: not usable JSON: {error}") from error
    return content


def _object(place: str, content: Any) -> dict[str, Any]:
    """Return an object without its nulls."""
    if not isinstance(content, dict):
        raise UserError(f"{place}: expected an object {{...}}, found a {type(content).__name__}")
    return {name: value for name, value in content.items() if value is not None}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def are_numbers(value: object, size: int) -> bool:
    """Return whether a value is a list of ``size`` numbers."""
    return isinstance(value, list) and len(value) == size and all(map(_is_number, value))


def as_float(number: int | float) -> float:
    """As a float, where it is too large an infinite one."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
