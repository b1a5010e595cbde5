"""What is asked: questions of the command line, of a folder of videos, or of a JSONL file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vcr1.errors import UserError
from vcr1.inference.truth import FIELDS, first_box, folders_of, truth_of
from vcr1.readers import VideoFolder
from vcr1.readers.files import read_lines
from vcr1.readers.videos import ENDINGS
from vcr1.records import Box, Sample, VideoSource
from vcr1.tasks import FREE, Task

MAX_OPTIONS = 26
"""There are so many letters."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one video.

    Attributes:
        id: unique in its batch.
        source: the video or the part of it.
        query: what is asked.
        task: the task that it belongs to.
        box: of the object in the first frame, where the task tracks.
        options: what there is to choose from.
        truth: the sample of a line that states its truth; it is compared with the answer, never shown.
        unused: why the truth that a line states is not used.
    """

    id: str
    source: VideoSource
    query: str
    task: Task = FREE
    box: Box | None = None
    options: tuple[str, ...] = ()
    truth: Sample | None = None
    unused: str | None = None

    def sample(self) -> Sample:
        """Return the question as tasks know it; its target is empty but for the given box."""
        target = None if self.box is None else (self.box,)
        extra = {} if self.box is None else {"first_box": self.box}
        return Sample(self.id, self.source, self.query, target, options=self.options, extra=extra)


@dataclass(frozen=True, slots=True)
class Failure:
    """A question that got no answer, and why: it is counted."""

    id: str
    video: str
    query: str
    reason: str


@dataclass(frozen=True, slots=True)
class QuestionDefaults:
    """Limits of questions, and defaults for what they leave out.

    Attributes:
        task: name of the task of questions that name none, or ``free``.
        tasks: name -> task.
        max_query: most characters of a query, and of all options.
        common: further fields, such as ``box`` and ``options``, of questions that do not have them.
        place: where questions come from that are in no file, as sentences name it.
        videos: folder of the videos that a JSONL file names; None looks beside the file, then in
            ``../videos``.
    """

    task: str = FREE.name
    tasks: Mapping[str, Task] = field(default_factory=dict)
    max_query: int = 8192
    common: Mapping[str, Any] = field(default_factory=dict)
    place: str = "the command line"
    videos: str | None = None

    def find(self, name: str, place: str) -> Task:
        """Return the task of a name.

        Raises:
            UserError: there is none; begins with ``place``.
        """
        if name == FREE.name:
            return FREE
        if name not in self.tasks:
            known = ", ".join([*self.tasks, FREE.name])
            raise UserError(f"{place}: task {name} is not among those of this run: {known}")
        return self.tasks[name]


def read_questions(video: str, queries: Sequence[str], manner: QuestionDefaults) -> list[Question | Failure]:
    """Return the questions about a video, about each video of a folder, or of a JSONL file, in order.

    Args:
        video: the video; a folder of videos; a folder of pictures, where ``manner`` has ``fps``; or a file
            that ends in ``.jsonl``, whose lines are objects with a ``video`` and others of ``FIELDS``,
            those that one trains on too.
        queries: what is asked about each video; of a JSONL file, what a line without a ``query`` asks.
        manner: defaults and limits.

    Returns:
        Questions; of a batch also the failures of those that cannot be asked.

    Raises:
        UserError: there is nothing to ask, a file cannot be read, or what holds for all questions is wrong.
    """
    # What is wrong with the command line is wrong with all of a batch.
    for query in queries:
        _check_query(query, "query", manner.max_query)
    if video.lower().endswith(".jsonl"):
        return _of_lines(video, queries, manner)
    place = Path(video)
    if manner.common.get("fps") is None and _is_folder(place):
        videos = [str(path) for path in sorted(place.iterdir()) if path.suffix.lower() in ENDINGS]
        if not videos:
            raise UserError(
                f"video={video}: the folder holds no videos ({', '.join(ENDINGS)}); for a folder of pictures "
                f"give their frames per second, fps=..."
            )
    else:
        videos = [video]
    asked: list[Question | Failure] = []
    task = manner.find(manner.task, manner.place)
    for path in videos:
        for number, query in enumerate(_asked(queries, task)):
            id_ = Path(path).stem if len(queries) < 2 else f"{Path(path).stem}-{number}"
            asked.append(_question({**manner.common, "query": query}, id_, path, manner, manner.place))
    return asked


def _of_lines(path: str, queries: Sequence[str], manner: QuestionDefaults) -> list[Question | Failure]:
    """Return the questions of a JSONL file."""
    asked: list[Question | Failure] = []
    ids: set[str] = set()
    folders = folders_of(path, manner.videos)
    fields = dict.fromkeys([*FIELDS, *(name for task in manner.tasks.values() for name in task.row_fields)])
    for number, line in read_lines(path):
        place = f"{path} line {number}"
        row: dict[str, Any] = {}
        try:
            row = _row(line, place, fields)
            video = row.get("video")
            if not isinstance(video, str) or not video:
                raise UserError(f"{place}: needs the field 'video', the path of a video")
            stated = {name: value for name, value in row.items() if value is not None}
            row = {**{name: value for name, value in manner.common.items() if value is not None}, **stated}
            row["box"], task = first_box(row), manner.find(str(row.get("task", manner.task)), place)
            own = [row["query"]] if "query" in row else _asked(queries, task)
            for position, query in enumerate(own):
                id_ = str(row.get("id", number)) + (f"-{position}" if len(own) > 1 else "")
                if id_ in ids:
                    raise UserError(f"{place}: the id {id_!r} stands above already; ids must differ")
                ids.add(id_)
                folder, source = _found(folders, video, place)
                question = _question({**row, "query": query}, id_, source, manner, place)
                truth = truth_of(stated, place, task, folder)
                known = {"unused": truth} if isinstance(truth, str) else {"truth": truth}
                asked.append(replace(question, **known))
        except UserError as error:
            known = {name: str(row.get(name, ""))[:200] for name in ("video", "query")}
            asked.append(Failure(str(row.get("id", number)), **known, reason=str(error)))
    return asked


def _found(folders: Sequence[VideoFolder], video: str, place: str) -> tuple[VideoFolder, str]:
    """Return the folder that has a video, and the video's path.

    Raises:
        UserError: none has it; says where it was looked for.
    """
    for folder in folders:
        if (path := folder.find(video) or folder.find_frames(video)) is not None:
            return folder, path
    raise UserError(f"{place}: {'; '.join(folder.tried(video) for folder in folders)}")


def _row(line: str, place: str, fields: Iterable[str]) -> dict[str, Any]:
    """Return the object of a line.

    Raises:
        UserError: it is none, or has a field that is not known.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise UserError(f"{place}: a line must be an object such as {{'video': ..., 'query': ...}}")
    if unknown := sorted(set(row) - set(fields)):
        raise UserError(f"{place}: unknown field {', '.join(unknown)}; there are {', '.join(fields)}")
    return row


def _asked(queries: Sequence[str], task: Task) -> Sequence[str]:
    """Return the queries, or the one that the task asks by itself.

    Raises:
        UserError: there is nothing to ask.
    """
    if not queries and task.needs.query is None:
        raise UserError('nothing is asked: give query="..."')
    return queries or [str(task.needs.query)]


def _question(row: Mapping[str, Any], id_: str, video: str, manner: QuestionDefaults, place: str) -> Question:
    """Return a question whose fields have been seen to fit.

    Raises:
        UserError: they do not; names the place and the field.
    """
    task = manner.find(str(row.get("task", manner.task)), place)
    query = row["query"]
    _check_query(query, f"{place}: query", manner.max_query)
    options = row.get("options") or []
    if not isinstance(options, list) or not all(isinstance(item, str | int | float) for item in options):
        raise UserError(f"{place}: options must be a list of texts, such as options=[red,blue]")
    if not task.needs.options <= len(options) <= MAX_OPTIONS:
        raise UserError(f"{place}: {task.name} takes 2 to {MAX_OPTIONS} options, found {len(options)}")
    _check_query("".join(map(str, options)) or "-", f"{place}: options", manner.max_query)
    box = None if row.get("box") is None else _box(row["box"], place)
    if task.needs.box and box is None:
        raise UserError(f"{place}: {task.name} needs the object's first box, box=[left,top,right,bottom]")
    return Question(id_, _source(video, row, place), query, task, box, tuple(map(str, options)))


def _check_query(query: object, place: str, longest: int) -> None:
    if not isinstance(query, str) or not query.strip():
        raise UserError(f"{place} must be a text that is not empty")
    if len(query) > longest:
        raise UserError(
            f"{place} has {len(query)} characters, more than limits.query={longest}; ask more briefly"
        )


def _box(values: Any, place: str) -> Box:
    """Return a box of fractions of the frame."""
    numbers = values if isinstance(values, list) else []
    fits = len(numbers) == 4 and all(_is_number(number) and -1 <= number <= 2 for number in numbers)
    try:
        if fits and (box := Box(*map(float, numbers))).area > 0:
            return box
    except ValueError:  # its second corner lies before its first
        pass
    raise UserError(
        f"{place}: box={values} must be [left,top,right,bottom], fractions of the frame's width and height, "
        f"such as box=[0.1,0.2,0.4,0.6]"
    )


def _source(video: str, row: Mapping[str, Any], place: str) -> VideoSource:
    """Return the video, or the part of it from ``start`` to ``end`` seconds."""
    for name in ("start", "end", "fps"):
        if row.get(name) is not None and not _is_number(row[name]):
            raise UserError(f"{place}: {name}={row[name]} is no number")
    try:
        return VideoSource(video, row.get("start") or 0.0, row.get("end"), row.get("fps"))
    except ValueError as error:
        raise UserError(f"{place}: {error}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no name that a folder can have
        return False
