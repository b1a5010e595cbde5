"""GOT-10k (arXiv 1810.11981) as it is published, and tracking rows in JSON as VideoChat-R1 ships them."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from vcr1.errors import UserError, VideoError
from vcr1.readers.annotations import Annotations, Purpose, keeps_truth, purpose
from vcr1.readers.boxes import corners_of, mend_boxes
from vcr1.readers.files import read_lines
from vcr1.readers.rows import read_rows, strict_number
from vcr1.readers.videos import VideoFolder
from vcr1.records import Sample, VideoSource
from vcr1.video.frames import SUFFIXES, list_frames, picture_size
from vcr1.video.sampling import evenly_spaced

FORMS = ("corners", "xywh_pixels")  # what four numbers of a JSON row may mean

Rectangle = tuple[float, float, float, float]
Size = tuple[float, float]  # width and height of a frame in pixels
Meta = dict[str, tuple[int, str]]  # key -> (line number, value) of a meta_info.ini

_SEQUENCE = re.compile(r"\w[\w. -]{0,199}")
_META_ROW = re.compile(r"([^:=]{1,100})[:=](.{0,2000})")
_RESOLUTION = re.compile(r"\( {0,4}([1-9][0-9]{0,4}) {0,4}, {0,4}([1-9][0-9]{0,4}) {0,4}\)")
_FPS = re.compile(r"([1-9][0-9]{0,3}(?:\.[0-9]{1,6})?) ?Hz", re.IGNORECASE)
_EXTRA = ("object_class", "major_class", "root_class", "motion_class", "motion_adverb")
_LONGEST_LINE = 200  # characters that four numbers may take


def read_got10k(
    folder: str, list_file: str | None = None, boxes: int = 8, fps: float = 10.0, limit: int | None = None
) -> Annotations:
    """Return a split of GOT-10k: a folder with ``list.txt`` and a folder of frames per sequence.

    Beside its frames a sequence holds ``groundtruth.txt`` (a line ``x,y,w,h`` in pixels per frame), and it
    may hold ``absence.label`` (0 or 1 per frame, 1 where the object is absent) and ``meta_info.ini`` (class
    of the object, frame rate, resolution). Without a resolution there, the first frame's is taken; without a
    class, the query is "the object", which counts as mended.

    Asked are ``boxes`` evenly spaced frames, the first and the last among them. A sequence is left out, with
    its reason counted, where its folder is missing, where it has no frames, another number of them than
    lines, or fewer than are asked. For training, it is left out, too, where in an asked frame the object is
    absent or its box has no area, and boxes that reach out of the frame are clamped (`mend_boxes`). Where the
    truth stays the file's, boxes do, and asked frames without the object do not count, as in the official
    toolkit; ``extra["visible"]`` says which have it.

    Args:
        folder: of the split, such as ``got10k/train``.
        list_file: names of the sequences to read, one per line; None for the folder's ``list.txt``.
        boxes: how many frames are asked; as many as ``tasks.tracking.boxes``.
        fps: frames per second of a sequence that does not state its own.
        limit: read the first so many sequences only.

    Raises:
        UserError: a missing folder or file, a broken line (names file and line), no usable sequence.
    """
    _check_arguments(boxes, fps)
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"folder {folder} does not exist; unpack a split of GOT-10k there")
    names = list_file or str(root / "list.txt")
    result = Annotations(str(folder))
    counts: Counter[str] = Counter()
    for number, line in read_lines(names)[:limit]:
        name = line.strip()
        if not _SEQUENCE.fullmatch(name):
            raise UserError(f"{names}, line {number}: expected the name of a sequence, not {name[:80]!r}")
        _add_sequence(result, _numbered(name, counts), root / name, boxes, fps)
    return result.checked()


def read_tracking_json(
    annotations: str,
    videos: str,
    boxes: int = 8,
    fps: float = 10.0,
    form: str = "corners",
    limit: int | None = None,
) -> Annotations:
    """Tracking rows ``[{path, object, gt: [[x0, y0, x1, y1], ...]}]``, as VideoChat-R1 ships GOT-10k.

    A row's boxes stand for evenly spaced frames of its video, the first and the last among them; dirty ones
    are treated by `mend_boxes`. A row is left out, with its reason counted, where its video is missing, its
    folder holds fewer frames than are asked, its object has no name, or it holds another number of boxes.
    The published file names folders of its authors' machine: ``path`` is found by its last parts below
    ``videos`` (`vcr1.readers.videos`).

    Args:
        annotations: the JSON file.
        videos: where ``path`` starts: a folder of frames, or a video file with or without its extension.
        boxes: how many boxes a row holds; as many as ``tasks.tracking.boxes``.
        fps: frames per second of the folders of frames.
        form: ``corners``, normalised; or ``xywh_pixels``, left, top, width and height in pixels, for which
            each row states the ``width`` and ``height`` of its frames.
        limit: read the first so many rows only.

    Raises:
        UserError: a missing or broken file (names the row), a missing folder, no usable row.
    """
    _check_arguments(boxes, fps)
    if form not in FORMS:
        raise UserError(f"form={form} of {annotations}: choose from {', '.join(FORMS)}")
    rows = read_rows(annotations)
    folder, result = VideoFolder(videos), Annotations(annotations)
    counts: Counter[str] = Counter()
    for number, row in enumerate(rows[:limit], 1):
        path, name, rectangles, size = _read_row(row, f"{annotations}, row {number}", form)
        id_, found = _numbered(path, counts), _find_video(folder, path, boxes, fps)
        attempt, target, query = Annotations(id_), None, name.replace("_", " ").strip()
        if isinstance(found, str):
            detail = folder.tried(path) if found == "missing_video" else ""
            attempt.drop(found, id_, detail=detail)
        elif len(rectangles) != boxes:
            attempt.drop("other_number_of_boxes", id_)
        elif not query:
            attempt.drop("empty_query", id_)
        else:
            corners = corners_of(rectangles, *size) if size else rectangles
            target = mend_boxes(corners, attempt, written=size is None)
        sample = None
        if target is not None and not isinstance(found, str):
            sample = Sample(id_, found[0], query, target, found[1], extra={"object_class": name.strip()})
        result.settle(attempt, sample)
    return result.checked()


def _check_arguments(boxes: int, fps: float) -> None:
    if boxes < 2 or not 0 < fps < math.inf:
        raise UserError(f"boxes={boxes} and fps={fps}: at least 2 boxes and a positive frame rate are needed")


def _numbered(name: str, counts: Counter[str]) -> str:
    """Return the name where it comes first, then ``name#2``, ``name#3``, passing over names already given."""
    id_ = name
    while id_ in counts:
        counts[name] += 1
        id_ = f"{name}#{counts[name]}"
    counts[id_] = 1
    return id_


def _count_frames(folder: Path) -> int:
    """Number of pictures. `list_frames` finds the same ones, but sorting 1.4 million names takes its time."""
    with os.scandir(folder) as entries:
        return sum(entry.name.lower().endswith(SUFFIXES) and entry.name[0] != "." for entry in entries)


def _add_sequence(result: Annotations, id_: str, folder: Path, boxes: int, fps: float) -> None:
    """Add one sequence, or count why it is left out."""
    if not folder.is_dir():
        result.drop("missing_folder", id_)
        return
    rectangles, meta = _read_groundtruth(folder / "groundtruth.txt"), _read_meta(folder / "meta_info.ini")
    absent = _read_absence(folder / "absence.label") or [False] * len(rectangles)
    asked, frames = evenly_spaced(len(rectangles), boxes), _count_frames(folder)
    if purpose() is Purpose.SCORING:  # no picture is needed
        frames = frames or len(rectangles)
    reason = None
    if not frames:
        reason = "no_frames"
    elif frames != len(rectangles):
        reason = "other_number_of_frames_than_boxes"
    elif frames != len(absent):
        reason = "other_number_of_labels_than_frames"
    elif frames < boxes:
        reason = "fewer_frames_than_asked"
    elif any(absent[index] for index in asked) and not keeps_truth():
        reason = "object_absent"
    elif all(absent[index] for index in asked[1:]):
        reason = "never_visible"
    elif not (size := _stated(folder, meta, "resolution", _RESOLUTION) or _size_of_first(folder)):
        reason = "unreadable_frame"
    attempt, sample = Annotations(id_), None
    if reason is not None:
        attempt.drop(reason, id_)
        result.settle(attempt, None)
        return
    visible = tuple(not absent[index] for index in asked)
    corners = corners_of([rectangles[index] for index in asked], size[0], size[1])
    target = mend_boxes(corners, attempt, visible, written=False)
    if target is not None:
        extra: dict[str, Any] = {key: meta[key][1] for key in _EXTRA if key in meta and meta[key][1]}
        query = extra.get("object_class", "").replace("_", " ").strip()
        attempt.mended.update([] if query else ["object_not_named"])
        extra |= {} if all(visible) else {"visible": visible}
        (rate,) = _stated(folder, meta, "anno_fps", _FPS) or [fps]
        video = VideoSource(str(folder), fps=rate)
        sample = Sample(id_, video, query or "the object", target, frames / rate, extra=extra)
    result.settle(attempt, sample)


def _read_groundtruth(path: Path) -> list[Rectangle]:
    """``x, y, w, h`` in pixels per frame; NaN where the file has it."""
    rectangles: list[Rectangle] = []
    for number, line in read_lines(path):
        try:
            x, y, w, h = map(float, line.split(",") if len(line) <= _LONGEST_LINE else ())
        except ValueError as error:
            raise UserError(f"{path}, line {number}: expected 'x,y,w,h', not {line[:80]!r}") from error
        rectangles.append((x, y, w, h))
    return rectangles


def _read_absence(path: Path) -> list[bool]:
    """Return whether the object is absent, per frame; empty without such a file."""
    lines = read_lines(path) if path.is_file() else []
    for number, line in lines:
        if line.strip() not in ("0", "1"):
            raise UserError(f"{path}, line {number}: expected 0 or 1, not {line[:80]!r}")
    return [line.strip() == "1" for _, line in lines]


def _read_meta(path: Path) -> Meta:
    """The section ``METAINFO``; empty without such a file. No `configparser`: its patterns are quadratic."""
    meta: Meta = {}
    inside = False
    for number, line in read_lines(path) if path.is_file() else []:
        row = line.strip()
        if row.startswith("["):
            inside = row == "[METAINFO]"
        elif inside and not row.startswith(("#", ";")):
            if (match := _META_ROW.fullmatch(row)) is None:
                raise UserError(f"{path}, line {number}: expected 'key: value', not {row[:80]!r}")
            meta[match[1].strip().lower()] = (number, match[2].strip())
    return meta


def _stated(folder: Path, meta: Meta, key: str, grammar: re.Pattern[str]) -> list[float]:
    """Return the numbers of a value; none where the key is missing."""
    if key not in meta:
        return []
    number, value = meta[key]
    if (match := grammar.fullmatch(value)) is None:
        where, form = folder / "meta_info.ini", "(1920, 1080)" if key == "resolution" else "10Hz"
        raise UserError(f"{where}, line {number}: expected '{key}: {form}', not {value[:80]!r}")
    return [float(text) for text in match.groups()]


def _size_of_first(folder: Path) -> list[float]:
    """Return width and height of the first frame in pixels; empty where it is no picture."""
    try:
        height, width = picture_size(folder / list_frames(folder)[0])
    except VideoError:
        return []
    return [float(width), float(height)]


def _read_row(row: Any, where: str, form: str) -> tuple[str, str, list[Rectangle], Size | None]:
    """Return path, name of the object, boxes and, for pixels, size of the frame."""
    sides = ("width", "height") if form == "xywh_pixels" else ()
    try:
        path, name, gt = row["path"], row["object"], row["gt"]
        if not (isinstance(path, str) and path.strip() and isinstance(name, str) and isinstance(gt, list)):
            raise TypeError("path and object are texts, gt is a list")
        rectangles = [
            (strict_number(a), strict_number(b), strict_number(c), strict_number(d)) for a, b, c, d in gt
        ]
        size = [strict_number(row[side]) for side in sides]
        if not all(0 < side < math.inf for side in size):
            raise ValueError(f"no size of a frame: {size}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        needs = ", ".join(("path", "object", *sides))
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{where}: needs {needs} and gt [[four numbers], ...] ({reason})") from error
    return path, name, rectangles, (size[0], size[1]) if size else None


def _find_video(
    folder: VideoFolder, name: str, boxes: int, fps: float
) -> tuple[VideoSource, float | None] | str:
    """Return a row's video and its length in seconds where that is known; or why there is none."""
    if (file := folder.find(name)) is not None:
        return VideoSource(file), None
    if (path := folder.find_frames(name)) is None:
        return "missing_video"
    try:
        frames = _count_frames(Path(path))
    except OSError:  # no permission
        return "missing_video"
    return "fewer_frames_than_asked" if frames < boxes else (VideoSource(path, fps=fps), frames / fps)
