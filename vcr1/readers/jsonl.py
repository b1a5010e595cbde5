"""Your own data, for any task: a JSONL file, one object per line, one line per sample.

Fields of every task:

===========  ========  ====================================================================================
id           optional  text or whole number, different in every line; else ``{file name}-{line number}``
video        needed    a file below the folder ``videos``, with or without extension; or a folder of frames
start, end   optional  seconds: the sample is about this part of the file; each may be left out
fps          optional  frames per second of a folder of frames, and needed there; not read for a file
duration     optional  seconds: length of the whole file, not of its part
category     optional  text: the group in which a sample of qa and grounded_qa is counted by itself
rationale    optional  text: the reasoning that supervised fine-tuning shows before the answer
extra        optional  an object, kept as it is for rewards of your own
===========  ========  ====================================================================================

Fields of a task besides; all are needed where nothing else is said. Times are seconds from the start of the
video, or of the sample's part where ``start`` is given:

===========  =============================================================================================
grounding    ``query``: the event; ``interval``: ``[start, end]``
tracking     ``query``: the object; ``boxes``: ``[[x0, y0, x1, y1], ...]``, corners as fractions of the
             frame. Or in pixels: ``xywh``: ``[[x, y, w, h], ...]``, with ``width`` and ``height`` of the
             frame. Which frames the boxes belong to is told in one of three ways (`vcr1.readers.tracks`): by
             ``box_times``, their times in seconds; by their number, one for each frame of the video, or of
             its part; or one for each frame that the task shows (8 by default), evenly spaced, the first
             and the last frame among them
qa           ``query``: the question; ``options``: 2 to 26 texts, with or without letters; ``answer``: the
             text of one, its letter, or its number counted from 0
grounded_qa  as qa, and ``intervals``: ``[[start, end], ...]``, the time that shows the answer
captioning   ``caption``: the reference; optional ``query``: the instruction; optional ``events``: texts,
             what the reference tells
quality      ``query``: the question; ``options``: the names of the classes; ``answer``: one of them
===========  =============================================================================================

A field with the value ``null`` counts as left out. A field that is not listed here, a missing one or one of
another form is an error that names file, line and field, so that no typo passes. What annotators get wrong
costs no more than a row, and is counted. For training, a span that reaches out of the video, or a box out of
the frame, is clamped; a row is left out where its video is missing, its answer is no option, its span lies
outside the video or ends far behind it, or its boxes are reversed, have no area in the frame or are no
fractions. Held-out lines and those of evaluations keep their truth as it is written; see
`vcr1.readers.Purpose`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations, mend_interval
from vcr1.readers.rows import Footage, Row, find_footage, read_objects
from vcr1.readers.videos import VideoFolder
from vcr1.records import Interval, Sample

INSTRUCTION = "Describe what happens in the video, event by event."
"""Question of captioning where a line does not state it."""

COMMON = ("id", "video", "start", "end", "fps", "duration", "category", "rationale", "extra")
"""Fields of every task."""
_RESERVED = ("category", "events", "first_box", "rationale", "visible")
"""Keys of a sample's ``extra`` that the tasks read."""


@dataclass(frozen=True, slots=True)
class Content:
    """Fields of a `Sample` that a task finds in a row."""

    query: str
    target: Any
    options: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


class RowTask(Protocol):
    """The part of a task that reads lines.

    Attributes:
        name: of the task.
        row_fields: fields that a line may hold besides `COMMON`.
    """

    name: str
    row_fields: tuple[str, ...]

    def read_row(self, row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
        """Read a line; return None where it is of no use, counted in ``attempt``."""


def read_jsonl(annotations: str, videos: str, task: RowTask, limit: int | None = None) -> Annotations:
    """Read your own samples of one task; the module's documentation describes the file.

    Args:
        annotations: the JSONL file.
        videos: folder of the videos.
        task: task of the lines; in a config ``task: ${tasks.NAME}``.
        limit: read the first so many lines only.

    Raises:
        UserError: no task, a missing or broken file (names line and field), two lines with one id (names
            both), a missing folder, no usable line.
    """
    if not hasattr(task, "read_row"):
        raise UserError(f"task={task!r} is no task; in a config write task: ${{tasks.{task}}}")
    folder, result = VideoFolder(videos), Annotations(annotations)
    for row in read_objects(annotations, limit):
        attempt = Annotations(row.id)
        result.settle(attempt, task_sample(row, folder, task, attempt), row.content.get("category"))
    return result.checked()


def task_sample(row: Row, folder: VideoFolder, task: RowTask, attempt: Annotations) -> Sample | None:
    """Return the sample of a line; None where it is of no use, counted in ``attempt``.

    Raises:
        UserError: a field is unknown or missing, or has a wrong form; or the task reads no lines.
    """
    if not task.row_fields:
        raise UserError(
            f"{row.place}: the task {task.name} reads no lines of JSON; give its class row_fields and "
            f"read_row, as vcr1.tasks.GroundingTask does"
        )
    unknown = [name for name in row.content if name not in (*COMMON, *task.row_fields)]
    if unknown:
        raise UserError(
            f"{row.place}: unknown field {reprlib.repr(unknown[0])}; task {task.name} takes "
            f"{', '.join((*COMMON, *task.row_fields))}; what is your own goes into extra"
        )
    return sample_of(row, folder, task.read_row, attempt)


ReadRow = Callable[[Row, Footage | None, Annotations], Content | None]


def sample_of(row: Row, folder: VideoFolder, read: ReadRow, attempt: Annotations) -> Sample | None:
    """Return a row's sample; None where it is of no use, counted in ``attempt``.

    Raises:
        UserError: a field is missing or has a wrong form.
    """
    seconds = {name: row.number(name) for name in ("start", "end", "fps", "duration")}
    extra = row.content.get("extra", {})
    if not isinstance(extra, dict) or any(name in extra for name in _RESERVED):
        raise row.fault("extra", f"an object without {', '.join(_RESERVED)}")
    named = {name: row.text(name) for name in ("category", "rationale") if name in row.content}
    footage = find_footage(folder, row.text("video"), attempt, **seconds)
    # Also where the video is missing: the form of a row is checked whatever becomes of it.
    content = read(row, footage, attempt)
    if content is not None and not content.query:
        attempt.drop("empty_query", attempt.source)
    if footage is None or content is None or not content.query:
        return None
    video, duration = footage
    extra = extra | named | content.extra
    return Sample(row.id, video, content.query, content.target, duration, content.options, extra)


def mend_intervals(
    spans: Sequence[Sequence[float]], duration: float | None, attempt: Annotations
) -> tuple[Interval, ...]:
    """Return the usable spans of a row, by the rule of `mend_interval`; drop the row if there is none."""
    account = Annotations(attempt.source)
    found = [mend_interval(start, end, duration, account) for start, end in spans]
    intervals = tuple(interval for interval in found if interval is not None)
    attempt.mended.update(account.mended)
    attempt.noticed.update(account.noticed)
    if not intervals:
        attempt.drop(next(iter(account.dropped)), attempt.source)
    elif len(intervals) < len(spans):
        attempt.mended["spans_left_out"] += 1
    return intervals


def caption_content(row: Row, query: str, attempt: Annotations) -> Content | None:
    """Return a row's ``caption`` and its ``events``; None for an empty caption, counted in ``attempt``.

    Raises:
        UserError: a field is missing or has a wrong form.
    """
    events = [event.strip() for event in row.texts("events")] if "events" in row.content else []
    events = [event for event in events if event]
    caption = row.text("caption")
    if not caption:
        attempt.drop("empty_caption", attempt.source)
        return None
    return Content(query, caption, extra={"events": tuple(events)} if events else {})
