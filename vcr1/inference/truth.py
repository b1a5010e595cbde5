"""The truth in lines that one has trained on: shown beside the answers, and compared with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vcr1.errors import UserError
from vcr1.readers import Annotations, Purpose, VideoFolder, reading_for
from vcr1.readers.jsonl import COMMON, task_sample
from vcr1.readers.rows import Row
from vcr1.records import Sample
from vcr1.tasks import BUILTIN, Task

ASKED = ("id", "video", "task", "query", "box", "options", "start", "end", "fps")
"""Fields that say what is asked."""
FIELDS = tuple(dict.fromkeys([*ASKED, *COMMON, *(name for task in BUILTIN for name in task.row_fields)]))
"""Fields that a line may hold: those of the question, and those of training lines (`vcr1.readers.jsonl`)."""


def truth_of(row: Mapping[str, Any], place: str, task: Task, folder: VideoFolder) -> Sample | str | None:
    """Return the sample that training and evaluation would read in a line, with the truth as it is written.

    Args:
        row: the line's own fields, without nulls.
        place: file and line, for messages.
        task: of the question.
        folder: of the videos.

    Returns:
        The sample; a sentence, where the line states a truth that cannot be used; None where it states none.
    """
    known = {name for one in (*BUILTIN, task) for name in one.truth_fields}
    if not (stated := known & row.keys()):
        return None
    if not task.row_fields:
        return f"{', '.join(sorted(stated))} not used: name their task, such as task=grounding"
    if not stated & set(task.truth_fields):
        return f"{', '.join(sorted(stated))} not used: no truth of the task {task.name}"
    content = {name: row[name] for name in (*COMMON, *task.row_fields) if name in row}
    attempt = Annotations(place)
    try:
        with reading_for(Purpose.EVALUATION):
            sample = task_sample(Row(place, place, content), folder, task, attempt)
    except UserError as error:
        return f"truth not used: {error}"
    if sample is None:
        (first, *_) = attempt.left_out
        return f"truth not used: {first.detail or first.reason.replace('_', ' ')}"
    return sample


def first_box(row: Mapping[str, Any]) -> Any:
    """The object's box in the first frame: ``box``, or the first of a line's track; None without either."""
    boxes, pixels = row.get("boxes"), row.get("xywh")
    if "box" in row:
        return row["box"]
    if isinstance(boxes, list) and boxes:
        return boxes[0]
    try:
        (x, y, w, h), width, height = pixels[0], row["width"], row["height"]  # type: ignore[index]
        return [x / width, y / height, (x + w) / width, (y + h) / height]
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError):
        return None


def folders_of(path: str, videos: str | None) -> list[VideoFolder]:
    """Return the folders of a JSONL file's videos: the named one, else beside it and ``../videos``.

    In the last, training looks for the videos of ``my_data/TASK/val.jsonl``.

    Raises:
        UserError: the named folder does not exist.
    """
    if videos is not None:
        return [VideoFolder(videos)]
    beside = Path(path).parent
    shared = beside / ".." / "videos"
    return [VideoFolder(beside), *([VideoFolder(shared)] if shared.is_dir() else [])]
