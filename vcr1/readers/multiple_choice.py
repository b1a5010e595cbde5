"""Multiple-choice benchmarks: MVBench, Video-MME and Perception Test.

Samples are of the task ``qa``: options without letters, the right capital letter as target, and the group
whose accuracy is reported by itself as ``extra["category"]``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations, keeps_truth
from vcr1.readers.files import read_json
from vcr1.readers.rows import Footage, check_ids, check_row, find_footage, read_rows, texts_of
from vcr1.readers.videos import VideoFolder
from vcr1.records import Sample

TVQA_FPS = 3.0
"""Frames per second of MVBench's folders of frames, which come from TVQA."""

Choice = tuple[tuple[str, ...], str]
"""Options without letters, and the right letter."""

_PREFIX = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.)])\s*")
_LETTER = re.compile(r"\(([A-Za-z])\)|([A-Za-z])[.)]?")
_MVBENCH = {"video": str, "question": str, "candidates": list, "answer": str | int | float}
_VIDEO_MME = dict.fromkeys(
    ("videoID", "question_id", "question", "answer", "duration", "domain", "sub_category", "task_type"), str
) | {"options": list}
_PERCEPTION_TEST = {"id": int | str, "question": str, "options": list, "answer_id": int, "area": str}


# ---------------------------------------------------------------------------------------------- the readers


def read_mvbench(
    annotations: str,
    videos: str,
    category: str | None = None,
    limit: int | None = None,
    folders: Mapping[str, str] | None = None,
) -> Annotations:
    """MVBench, one JSON per category: ``[{video, question, candidates, answer}, ...]``.

    ``answer`` is the text of a candidate. ``start`` and ``end`` (seconds) ask about that part of the video;
    ``fps`` is the frame rate of a ``video`` that is a folder of frames, 3 where it is not stated. Other keys
    (``subtitle`` among them) are not read. Where the truth stays the file's, an answer that stands twice
    among the candidates means the last of them, as in MVBench's own code; for training the row is dropped.

    Args:
        annotations: a JSON file, or a folder of them, read in the order of their names.
        videos: folder of the videos.
        category: of a single file; its name without ``.json`` by default.
        limit: read the first so many rows only, over all files.
        folders: category -> folder below ``videos``, as the published archives unpack; by default none.

    Raises:
        UserError: a missing or broken file (names the row), a missing folder, no usable row.
    """
    files = [Path(annotations)]
    if files[0].is_dir():
        files = sorted(files[0].glob("*.json"))
        if not files or category is not None:
            problem = f"category={category} is for a single file" if files else "no *.json in this folder"
            raise UserError(f"{annotations}: {problem}")
    folder, result = VideoFolder(videos), Annotations(annotations)
    rows = [(file, number, row) for file in files for number, row in enumerate(read_rows(file))]
    for file, number, row in rows[:limit]:
        place = f"{file}, row {number}"
        check_row(place, row, _MVBENCH)
        group = file.stem if category is None else category
        place_of_group = folder.below((folders or {}).get(group, "."))
        part = (row.get("start"), row.get("end"), row.get("fps", TVQA_FPS))
        attempt = Annotations(f"{group}-{number}")
        candidates, answer = texts_of(place, row, "candidates"), str(row["answer"])
        choice = choose(candidates, answer, attempt, letters=False, last_of_equals=keeps_truth())
        footage = find_footage(place_of_group, row["video"], attempt, *part)
        extra = {"category": group}
        sample = question(f"{group}-{number}", row, choice, footage, extra, attempt)
        result.settle(attempt, sample, extra["category"])
    return result.checked()


def read_video_mme(annotations: str, videos: str, limit: int | None = None) -> Annotations:
    """Video-MME's parquet file; needs pyarrow.

    Columns read: ``videoID`` (the file's name without ``.mp4``), ``question_id``, ``question``, ``options``
    (``["A. ...", ...]``), ``answer`` (a letter), ``duration`` (short, medium or long: the category),
    ``domain``, ``sub_category`` and ``task_type``; ``video_id`` and ``url`` are not.

    Args:
        annotations: the parquet file.
        videos: folder of the videos, ``videoID.mp4``.
        limit: read the first so many rows only.

    Raises:
        UserError: pyarrow is not installed, a missing or broken file, column or folder, no usable row.
    """
    return video_mme_samples(annotations, _read_parquet(annotations, list(_VIDEO_MME)), videos, limit)


def video_mme_samples(
    source: str, rows: Sequence[Mapping[str, Any]], videos: str, limit: int | None = None
) -> Annotations:
    """`read_video_mme` from the file's rows on."""
    folder, result = VideoFolder(videos), Annotations(source)
    for number, row in enumerate(rows[:limit]):
        place = f"{source}, row {number}"
        check_row(place, row, _VIDEO_MME)
        attempt = Annotations(row["question_id"])
        # By its place in the alphabet: an option may itself read "C".
        choice = choose(texts_of(place, row, "options"), _place(row["answer"].strip()), attempt)
        footage = find_footage(folder, row["videoID"], attempt)
        extra = {key: row[key] for key in ("task_type", "domain", "sub_category")}
        extra["category"] = row["duration"]
        sample = question(row["question_id"], row, choice, footage, extra, attempt)
        result.settle(attempt, sample, extra["category"])
    return check_ids(result)


def read_perception_test(annotations: str, videos: str, limit: int | None = None) -> Annotations:
    """Perception Test's multiple-choice JSON: ``{video: {metadata, mc_question: [...]}}``.

    Keys read of a question: ``id``, ``question``, ``options``, ``answer_id`` (counted from 0), ``area`` (the
    category), ``reasoning`` and ``tag``; of ``metadata``: ``num_frames`` and ``frame_rate``, whose quotient
    is the duration where both are stated.

    Args:
        annotations: the JSON file of a split whose answers are published.
        videos: folder of the videos, named as in the file.
        limit: read the first so many questions only.

    Raises:
        UserError: a missing or broken file (names the video), a missing folder, no usable row.
    """
    content = read_json(annotations)
    if not isinstance(content, dict):
        raise UserError(
            f"{annotations}: expected {{video: {{mc_question}}}}, found a {type(content).__name__}"
        )
    for video, entry in content.items():
        check_row(f"{annotations}, video {video!r}", entry, {"mc_question": list})
    rows = [(video, entry, row) for video, entry in content.items() for row in entry["mc_question"]]
    folder, result = VideoFolder(videos), Annotations(annotations)
    for video, entry, row in rows[:limit]:
        place = f"{annotations}, a question of video {video!r}"
        check_row(place, row, _PERCEPTION_TEST)
        attempt = Annotations(f"{video}-{row['id']}")
        choice = choose(texts_of(place, row, "options"), row["answer_id"], attempt)
        footage = find_footage(folder, video, attempt, duration=_frames_duration(entry.get("metadata")))
        extra = {key: row[key] for key in ("reasoning", "tag") if key in row} | {"category": row["area"]}
        sample = question(f"{video}-{row['id']}", row, choice, footage, extra, attempt)
        result.settle(attempt, sample, extra["category"])
    return check_ids(result)


def _frames_duration(metadata: object) -> float | None:
    """Return seconds, of frames and their rate; None where they are not stated."""
    if not isinstance(metadata, dict):
        return None
    frames, rate = metadata.get("num_frames"), metadata.get("frame_rate")
    if not all(isinstance(number, int | float) and 0 < number < 1e9 for number in (frames, rate)):
        return None
    return float(frames) / float(rate)  # type: ignore[arg-type]


def _read_parquet(path: str, columns: list[str]) -> list[dict[str, Any]]:
    if not Path(path).is_file():
        raise UserError(f"annotation file {path} does not exist")
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(f"{path}: parquet files need pyarrow; pip install pyarrow") from error
    try:
        with parquet.ParquetFile(path) as file:
            missing = sorted(set(columns) - set(file.schema_arrow.names))
            rows: list[dict[str, Any]] = [] if missing else file.read(columns=columns).to_pylist()
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own errors are of these kinds
        raise UserError(f"{path}: not a readable parquet file: {error}") from error
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; is it Video-MME's file?")
    return rows


# ------------------------------------------------------------------------------------- options and answers


def option_texts(written: Sequence[str]) -> tuple[str, ...]:
    """Return options without their letters: ``A. text``, ``(A) text`` or ``A) text``.

    Letters are taken off only where every option has its own, in order; what merely looks like one is text.
    """
    texts = [option.strip() for option in written]
    matches = [match for match in map(_PREFIX.match, texts) if match]
    if [match[1] or match[2] for match in matches] == list(ascii_uppercase[: len(texts)]):
        return tuple(text[match.end() :] for text, match in zip(texts, matches, strict=True))
    return tuple(texts)


def choose(
    written: Sequence[str],
    answer: str | int,
    attempt: Annotations,
    letters: bool = True,
    last_of_equals: bool = False,
) -> Choice | None:
    """The options without letters and the right letter; None where there is none, counted in ``attempt``.

    Args:
        written: the options as the file has them.
        answer: an option's text, its letter (``B``, ``(B)``), or its number counted from 0. A text that
            several options have, or that is one option's text and another's letter, is ambiguous.
        attempt: counts what makes the question unusable.
        letters: whether a text may be a letter.
        last_of_equals: an answer that several options have means the last of them, as MVBench's own code
            has it; else the question is unusable.
    """
    options = option_texts(written)
    if not 2 <= len(options) <= len(ascii_uppercase):
        attempt.drop("not_2_to_26_options", attempt.source)
    elif not all(options):
        attempt.drop("empty_option", attempt.source)
    else:
        right = _meant(answer, written, options, letters)
        if len(right) == 1 or (right and last_of_equals):
            attempt.noticed.update(["answer_stands_twice"] if len(right) > 1 else [])
            return options, ascii_uppercase[max(right)]
        attempt.drop("ambiguous_answer" if right else "answer_is_no_option", attempt.source)
    return None


def _meant(answer: str | int, written: Sequence[str], options: Sequence[str], letters: bool) -> set[int]:
    """Return every option, counted from 0, that an answer may mean."""
    if isinstance(answer, int):
        return {answer} & set(range(len(options)))
    text = answer.strip()
    pairs = zip(options, written, strict=True)
    found = {number for number, (option, whole) in enumerate(pairs) if text in (option, whole.strip())}
    letter = _LETTER.fullmatch(text) if letters else None
    return found | (
        {_place((letter[1] or letter[2]).upper())} & set(range(len(options))) if letter else set()
    )


def _place(letter: str) -> int:
    """Of a capital letter in the alphabet, counted from 0; -1 for anything else."""
    return ascii_uppercase.find(letter) if len(letter) == 1 else -1


def question(
    id_: str,
    row: Mapping[str, Any],
    choice: Choice | None,
    footage: Footage | None,
    extra: Mapping[str, Any],
    attempt: Annotations,
) -> Sample | None:
    """The sample of a row with a ``question``; None where a part is missing, counted in ``attempt``."""
    query = row["question"].strip()
    if not query:
        attempt.drop("empty_query", attempt.source)
    if not query or choice is None or footage is None:
        return None
    (options, letter), (video, duration) = choice, footage
    return Sample(id_, video, query, letter, duration, options, extra)
