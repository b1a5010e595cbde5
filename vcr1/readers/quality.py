"""Quality assessment as VideoChat-R1 ships it, from VidTAB's quality access task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations
from vcr1.readers.rows import check_row, find_footage, read_rows
from vcr1.readers.videos import VideoFolder
from vcr1.records import Sample

_CHOICE = re.compile(r"\s?\b(?:Choice|Choose) one answer from \[([^\[\]]{1,4000})\]\.?")
_NAME = re.compile(r"""\s{0,8}(?:'([^'\\]{1,200})'|"([^"\\]{1,200})")\s{0,8}(,|$)""")
_FIELDS = {"video": str, "instruction": str, "answer": str}


def read_vidtab_quality(
    annotations: str, videos: str, classes: Sequence[str] | None = None, limit: int | None = None
) -> Annotations:
    """VideoChat-R1's JSON: ``[{video, instruction, answer}, ...]``, the classes named in the instruction.

    ``How about the quality of the video ...? Choice one answer from ['low quality', 'high quality'].``
    becomes the question before "Choice" and the classes in the brackets: the task's prompt lists these. The
    answer is a class whatever its capitals, as in that project's own evaluation.

    Args:
        annotations: the JSON file.
        videos: folder of the videos, named as in the file.
        classes: the classes, whatever the instructions name.
        limit: read the first so many rows only.

    Raises:
        UserError: a missing or broken file (names the row), an instruction that names no classes, a missing
            folder, no usable row.
    """
    folder, result = VideoFolder(videos), Annotations(annotations)
    given = None if classes is None else class_names(f"{annotations}: classes", classes)
    taken: dict[str, int] = {}
    for number, row in enumerate(read_rows(annotations)[:limit]):
        place = f"{annotations}, row {number}"
        check_row(place, row, _FIELDS)
        query, named = split_instruction(place, row["instruction"])
        options = named if given is None else given
        if not options:
            raise UserError(
                f"{place}: 'instruction' names no classes as \"Choice one answer from ['a', 'b'].\"; "
                "name them with the reader's argument classes"
            )
        id_ = _new_id(PurePosixPath(row["video"]).stem, taken)
        attempt = Annotations(id_)
        footage = find_footage(folder, row["video"], attempt)
        answer = next(
            (name for name in options if _plain(name) == _plain(row["answer"])), row["answer"].strip()
        )
        if answer not in options:
            attempt.drop("answer_is_no_option", attempt.source)
        if not query:
            attempt.drop("empty_query", attempt.source)
        sample = None
        if footage is not None and not attempt.dropped:
            sample = Sample(id_, footage[0], query, answer, options=options)
        result.settle(attempt, sample, answer)
    return result.checked()


def split_instruction(place: str, instruction: str) -> tuple[str, tuple[str, ...]]:
    """Return an instruction without its list of classes, and the classes; none where it has no such list.

    The list is of names in single or double quotes, without backslashes, parted by commas. It is read by this
    grammar alone and never evaluated.

    Args:
        place: where the instruction stands, for messages.
        instruction: the text.

    Raises:
        UserError: a list of another form, several lists, or names that are alike.
    """
    lists = list(_CHOICE.finditer(instruction))
    if not lists:
        return instruction.strip(), ()
    names, content, position = [], lists[0][1].strip(), 0
    while position < len(content):
        match = _NAME.match(content, position)
        if match is None or (match[3] == "," and match.end() == len(content)):
            break
        names.append(match[1] or match[2])
        position = match.end()
    if position < len(content) or len(lists) > 1:
        raise UserError(f"{place}: 'instruction' must hold one list of quoted names, not {content[:80]!r}")
    rest = instruction[: lists[0].start()] + instruction[lists[0].end() :]
    return rest.strip(), class_names(f"{place}: field 'instruction'", names)


def class_names(place: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return names of classes, stripped: two or more that differ in more than case and whitespace.

    Raises:
        UserError: they do not; ``place`` says where they stand.
    """
    stripped = tuple(name.strip() for name in names)
    plain = set(map(_plain, stripped))
    if len(stripped) < 2 or "" in plain or len(plain) < len(stripped):
        raise UserError(f"{place}: needs two or more different names, not {str(stripped)[:200]}")
    return stripped


def _plain(name: str) -> str:
    """Return a name without the difference of capitals and of whitespace."""
    return " ".join(name.lower().split())


def _new_id(stem: str, taken: dict[str, int]) -> str:
    """Return the stem, or where it is taken, the stem with the first free number from 2 on.

    Args:
        stem: the name of the video.
        taken: id -> the last number tried for it; what is given out is entered.
    """
    number = taken.get(stem, 0) + 1
    id_ = stem if number == 1 else f"{stem}-{number}"
    while id_ in taken:
        number += 1
        id_ = f"{stem}-{number}"
    taken[stem] = number
    taken.setdefault(id_, 1)
    return id_
