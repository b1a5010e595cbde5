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
             frame. Which frames the boxes belong to is told in one of three ways (`sample_boxes`): by
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

import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations, mend_interval
from vcr1.readers.boxes import corners_of, mend_boxes
from vcr1.readers.multiple_choice import choose
from vcr1.readers.quality import class_names
from vcr1.readers.rows import Footage, Row, are_numbers, as_float, find_footage, read_objects
from vcr1.readers.tracks import sample_boxes
from vcr1.readers.videos import VideoFolder
from vcr1.records import GroundedAnswer, Interval, Sample, VideoSource

INSTRUCTION = "Describe what happens in the video, event by event."
"""What captioning asks where a line does not say it."""

_RESERVED = (
    "category",
    "events",
    "first_box",
    "rationale",
    "visible",
)  # what the tasks read in a sample's `extra`


@dataclass(frozen=True, slots=True)
class Content:
    """What a task finds in a row: the fields of a `Sample` that are its own."""

    query: str
    target: Any
    options: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


def read_jsonl(
    annotations: str, videos: str, task: str, limit: int | None = None, boxes: int | None = None
) -> Annotations:
    """Your own samples of one task; the module's documentation describes the file.

    Args:
        annotations: the JSONL file.
        videos: folder of the videos.
        task: ``grounding``, ``tracking``, ``grounded_qa``, ``qa``, ``captioning`` or ``quality``.
        limit: read the first so many lines only.
        boxes: how many frames tracking shows; as many as ``tasks.tracking.boxes``. None takes all boxes of
            a line, whatever frames they belong to.

    Raises:
        UserError: an unknown task, a missing or broken file (names line and field), two lines with one id
            (names both), a missing folder, no usable line.
    """
    if task not in TASKS:
        raise UserError(f"task={task!r}; read_jsonl reads the tasks {', '.join(TASKS)}")
    folder, result = VideoFolder(videos), Annotations(annotations)
    for row in read_objects(annotations, limit):
        attempt = Annotations(row.id)
        result.settle(attempt, task_sample(row, folder, task, attempt, boxes), row.content.get("category"))
    return result.checked()


def task_sample(
    row: Row, folder: VideoFolder, task: str, attempt: Annotations, boxes: int | None = None
) -> Sample | None:
    """The sample of a line of one task; None where it is of no use, counted in ``attempt``.

    Raises:
        UserError: a field is unknown or missing, or has a wrong form.
    """
    find, own = TASKS[task]
    unknown = [name for name in row.content if name not in (*COMMON, *own)]
    if unknown:
        raise UserError(
            f"{row.place}: unknown field {reprlib.repr(unknown[0])}; task {task} takes "
            f"{', '.join((*COMMON, *own))}; what is your own goes into extra"
        )
    return sample_of(row, folder, partial(_tracking, count=boxes) if task == "tracking" else find, attempt)


Find = Callable[[Row, Footage | None, Annotations], Content | None]
"""``(row, its video where there is one, its account) -> content``; None where the row is of no use."""


def sample_of(row: Row, folder: VideoFolder, find: Find, attempt: Annotations) -> Sample | None:
    """A row's sample; None where it is of no use, counted in ``attempt``.

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
    content = find(row, footage, attempt)
    if content is not None and not content.query:
        attempt.drop("empty_query", attempt.source)
    if footage is None or content is None or not content.query:
        return None
    video, duration = footage
    extra = extra | named | content.extra
    return Sample(row.id, video, content.query, content.target, duration, content.options, extra)


# ------------------------------------------------------------------------------------------------ the tasks


def _grounding(row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
    if not are_numbers(row.content.get("interval"), 2):
        raise row.fault("interval", "[start, end] in seconds")
    start, end = map(as_float, row.content["interval"])
    query, interval = row.text("query"), mend_interval(start, end, _seconds(footage), attempt)
    return None if interval is None else Content(query, interval)


def _seconds(footage: Footage | None) -> float | None:
    """Seconds of a video, where they are stated."""
    return None if footage is None else footage[1]


def _tracking(
    row: Row, footage: Footage | None, attempt: Annotations, count: int | None = None
) -> Content | None:
    query, corners, times = row.text("query"), _corners(row, attempt), _box_times(row)
    if corners is None or footage is None:
        return None
    if times is not None and len(times) != len(corners):
        raise UserError(
            f"{row.place}: {len(corners)} boxes, but {len(times)} box_times; give one for each box"
        )
    shown: Sequence[Sequence[float]] | None = corners
    if count is not None:
        source = footage[0] if isinstance(footage[0], VideoSource) else VideoSource(footage[0])
        shown = sample_boxes(corners, times, count, source, attempt)
    boxes = None if shown is None else mend_boxes(shown, attempt, written="boxes" in row.content)
    return None if boxes is None else Content(query, boxes)


def _corners(row: Row, attempt: Annotations) -> list[Sequence[float]] | None:
    """A row's boxes as corners in fractions; None for a frame without a size, counted in ``attempt``."""
    sizes = [name for name in ("xywh", "width", "height") if name in row.content]
    if "boxes" in row.content or not sizes:
        if sizes:
            raise UserError(f"{row.place}: has 'boxes' and also {sizes[0]!r}; keep fractions or pixels")
        form = "[[x0, y0, x1, y1], ...], or pixels as xywh with width and height"
        corners: list[Sequence[float]] = list(row.numbers("boxes", 4, form))
    else:
        rectangles = row.numbers("xywh", 4, "[[x, y, w, h], ...] in pixels, with width and height")
        width, height = row.number("width"), row.number("height")
        if width is None or height is None:
            raise row.fault("width" if width is None else "height", "of the frame in pixels")
        if not (0 < width < math.inf and 0 < height < math.inf):
            attempt.drop("frame_size_not_positive", attempt.source)
            return None
        corners = list(corners_of(rectangles, width, height))
    if len(corners) < 2:
        raise row.fault("xywh" if sizes else "boxes", "two boxes or more")
    return corners


def _box_times(row: Row) -> list[float] | None:
    """The times of a row's boxes in seconds, ascending; None where it does not state them."""
    if "box_times" not in row.content:
        return None
    values, form = row.content["box_times"], "seconds in ascending order, one for each box"
    if not isinstance(values, list) or not are_numbers(values, len(values)):
        raise row.fault("box_times", form)
    times = [as_float(value) for value in values]
    if not all(map(math.isfinite, times)) or any(a >= b for a, b in pairwise(times)):
        raise row.fault("box_times", form)
    return times


def _qa(row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
    query, options, answer = row.text("query"), row.texts("options"), row.content.get("answer")
    if not isinstance(answer, str | int) or isinstance(answer, bool):
        raise row.fault("answer", "an option's text, its letter, or its number counted from 0")
    choice = choose(options, answer, attempt)
    return None if choice is None else Content(query, choice[1], choice[0])


def _grounded_qa(row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
    spans = row.numbers("intervals", 2, "[[start, end], ...] in seconds")
    content, intervals = _qa(row, footage, attempt), mend_intervals(spans, _seconds(footage), attempt)
    if content is None or not intervals:
        return None
    return Content(content.query, GroundedAnswer(content.target, intervals), content.options)


def mend_intervals(
    spans: Sequence[Sequence[float]], duration: float | None, attempt: Annotations
) -> tuple[Interval, ...]:
    """The usable ones of a row's spans, by the rule of `mend_interval`; without any, the row is dropped."""
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


def _captioning(row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
    return caption_content(row, row.text("query", INSTRUCTION), attempt)


def caption_content(row: Row, query: str, attempt: Annotations) -> Content | None:
    """A row's ``caption`` and its ``events``, if any; None for an empty caption, counted in ``attempt``.

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


def _quality(row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
    query, answer = row.text("query"), row.text("answer")
    options = class_names(f"{row.place}: field 'options'", row.texts("options"))
    if answer not in options:
        attempt.drop("answer_is_no_option", attempt.source)
        return None
    return Content(query, answer, options)


COMMON = ("id", "video", "start", "end", "fps", "duration", "category", "rationale", "extra")
"""Fields of every task."""

TASKS: dict[str, tuple[Find, tuple[str, ...]]] = {
    "grounding": (_grounding, ("query", "interval")),
    "tracking": (_tracking, ("query", "boxes", "xywh", "width", "height", "box_times")),
    "grounded_qa": (_grounded_qa, ("query", "options", "answer", "intervals")),
    "qa": (_qa, ("query", "options", "answer")),
    "captioning": (_captioning, ("query", "caption", "events")),
    "quality": (_quality, ("query", "options", "answer")),
}
"""Task -> how its fields are read, and their names."""
