"""Text files of annotations: JSON, and files of lines."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from vcr1.errors import UserError


def read_json(path: str | Path) -> Any:
    """Return content of a JSON file. One that holds a JSON object in each line is read as the list of them.

    Raises:
        UserError: names the file, and the line where it is broken.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, str(path)))
    except json.JSONDecodeError as error:
        lines = [line for line in text.split("\n") if line.strip()]
        if error.msg == "Extra data" and len(lines) > 1 and _is_object(lines[0]):
            return [_line(path, *numbered) for numbered in read_lines(path)]
        raise UserError(f"{path}: not valid JSON at line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, endless brackets
        raise UserError(f"{path}: not usable JSON: {error}") from error


def read_lines(path: str | Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are not blank."""
    # Not splitlines, which also splits at U+2028 and its like: JSON's texts may hold them as they are.
    return [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]


def read_text(path: str | Path) -> str:
    """Return a text file's content, without the mark of byte order that some editors write.

    Raises:
        UserError: no such file, an empty one, or no UTF-8.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"annotation file {path} does not exist")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 text file ({error.reason} at byte {error.start})") from error
    if not text.strip():
        raise UserError(f"annotation file {path} is empty")
    return text


def _unique(pairs: list[tuple[str, Any]], place: str) -> dict[str, Any]:
    """An object; the decoder would keep the last of two equal keys and lose the other without a word."""
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise UserError(f"{place}: the key {key!r} stands {count} times in one object; merge its entries")
    return dict(pairs)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _line(path: str | Path, number: int, line: str) -> Any:
    """Return the content of one line of JSON."""
    place = f"{path}, line {number}"
    try:
        return json.loads(line, object_pairs_hook=lambda pairs: _unique(pairs, place))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not valid JSON: {error}") from error
