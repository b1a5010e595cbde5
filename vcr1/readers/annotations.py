"""What a reader of annotations returns: samples, and an account of every row that it changed or left out."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vcr1.errors import UserError
from vcr1.geometry import clip_interval
from vcr1.records import Interval, Sample

VIDEO_REASONS = ("missing_video", "missing_folder", "no_frames", "unreadable_frame", "unreadable_video")
"""Reasons for which a row is left out that lie in its video, not in the annotation."""

_MISSING: ContextVar[str] = ContextVar("missing", default="dropped")


@contextmanager
def missing_videos_kept(unseen: bool = False) -> Iterator[None]:
    """Within, readers keep rows whose video is missing: an evaluation counts them as failures.

    Args:
        unseen: the videos are not needed at all, nor the folder that they would lie in.
    """
    token = _MISSING.set("unseen" if unseen else "kept")
    try:
        yield
    finally:
        _MISSING.reset(token)


def keeps_missing() -> bool:
    """Whether rows with a missing video are samples here; see `missing_videos_kept`."""
    return _MISSING.get() != "dropped"


@dataclass(slots=True)
class Annotations:
    """Samples of one annotation file.

    Attributes:
        source: the file, for messages.
        samples: usable rows.
        mended: reason -> rows that were changed and kept.
        dropped: reason -> rows that were left out.
        without_video: names the rows that were left out for want of a video that can be read.
        categories: of those rows, by the name; only of those whose annotation says it.
    """

    source: str
    samples: list[Sample] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    without_video: list[str] = field(default_factory=list)
    categories: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, row: str, category: str | None = None) -> None:
        """Count a row that is left out; ``row`` names it, ``category`` is its sample's, if any."""
        self.dropped[reason] += 1
        if reason in VIDEO_REASONS:
            self.without_video.append(row)
            if category is not None:
                self.categories[row] = category

    def __str__(self) -> str:
        def listing(counts: Counter[str]) -> str:
            return ", ".join(
                f"{reason.replace('_', ' ')}: {count}" for reason, count in sorted(counts.items())
            )

        text = f"{self.source}: {len(self.samples)} samples"
        if self.mended:
            text += f"; mended {self.mended.total()} ({listing(self.mended)})"
        if self.dropped:
            text += f"; dropped {self.dropped.total()} ({listing(self.dropped)})"
        return text

    def checked(self) -> Annotations:
        """The annotations themselves where they hold samples.

        Raises:
            UserError: nothing usable is left.
        """
        if not self.samples:
            raise UserError(f"{self} - nothing to work with")
        return self


def concatenate(parts: Sequence[Annotations], seed: int | None = None) -> Annotations:
    """Several annotations as one, part after part; ``data.loader.shuffle=false`` trains in that order.

    Args:
        parts: in their order; equal ones are passes over the same samples.
        seed: gives every part an inner order of its own; None leaves it as it is.
    """
    result = Annotations(" + ".join(part.source for part in parts))
    rng = random.Random(seed)
    for part in parts:
        result.samples += part.samples if seed is None else rng.sample(part.samples, len(part.samples))
        result.mended += part.mended
        result.dropped += part.dropped
        result.without_video += part.without_video
        result.categories |= part.categories
    return result.checked()


def mend_interval(
    start: float, end: float, duration: float | None, annotations: Annotations
) -> Interval | None:
    """The rule for dirty spans; counts what it does in ``annotations``.

    1. A duration that is not positive, an end that is no finite number, or ``start >= end``: dropped.
    2. A span that lies outside ``[0, duration]``: dropped.
    3. A span that reaches over 0 or the duration: clamped to it.

    Args:
        start: seconds.
        end: seconds.
        duration: of the video in seconds; None where it is unknown, then no end is too late.
        annotations: where mended and dropped rows are counted.
    """
    if duration is not None and not 0 < duration < math.inf:
        annotations.dropped["duration_not_positive"] += 1
        return None
    try:
        start, end = float(start), float(end)
        if start >= end:
            annotations.dropped["start_not_before_end"] += 1
            return None
        interval = Interval(start, end)
    except (TypeError, ValueError, OverflowError):
        annotations.dropped["not_a_span"] += 1
        return None
    clipped = clip_interval(interval, max(interval.end, 0.0) if duration is None else duration)
    if clipped is None or clipped.length <= 0:
        annotations.dropped["outside_the_video"] += 1
        return None
    if clipped != interval:
        annotations.mended["clamped_to_the_video"] += 1
    return clipped


def read_json(path: str | Path) -> Any:
    """Content of a JSON file.

    Raises:
        UserError: names the file, and the line where it is broken.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # The decoder would keep the last of two equal keys and lose the other without a word.
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise UserError(
                    f"{path}: the key {key!r} stands {count} times in one object; merge its entries"
                )
        return dict(pairs)

    try:
        return json.loads(_text(path), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON at line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, endless brackets
        raise UserError(f"{path}: not usable JSON: {error}") from error


def read_lines(path: str | Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are not blank."""
    # Not splitlines, which also splits at U+2028 and its like: JSON's texts may hold them as they are.
    return [(number, line) for number, line in enumerate(_text(path).split("\n"), 1) if line.strip()]


def _text(path: str | Path) -> str:
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


class VideoFolder:
    """Finds a data set's videos by name.

    Args:
        folder: where the videos lie.
        extensions: tried in this order after the name.

    Raises:
        UserError: the folder does not exist.
    """

    def __init__(
        self, folder: str | Path, extensions: Iterable[str] = (".mp4", ".mkv", ".webm", ".avi")
    ) -> None:
        self.folder = Path(folder)
        self.extensions = tuple(extensions)
        if not self.folder.is_dir() and _MISSING.get() != "unseen":
            raise UserError(f"video folder {folder} does not exist")

    def find(self, name: str) -> str | None:
        """Path of the video called ``name``, with or without its extension; None where there is none.

        Where missing videos are kept, the path that it would have; None still of a folder of frames.
        """
        try:
            found = next((str(path) for path in self._candidates(name) if path.is_file()), None)
            if found is None and keeps_missing() and not (self.folder / name).is_dir():
                return str(self.folder / name)
            return found
        except (OSError, ValueError):  # no name that a file can have
            return None

    def _candidates(self, name: str) -> Iterator[Path]:
        yield self.folder / name
        for extension in self.extensions:
            yield self.folder / f"{name}{extension}"


def add_span(
    result: Annotations,
    id_: str,
    path: str | None,
    sentence: str,
    start: float,
    end: float,
    duration: float | None,
) -> None:
    """Add one sample of temporal grounding, or count why it is left out.

    Args:
        result: where the sample or the reason goes.
        id_: id of the sample.
        path: of the video; None where it is missing.
        sentence: the query.
        start: seconds.
        end: seconds.
        duration: of the video in seconds, where it is known.
    """
    query = sentence.strip() if isinstance(sentence, str) else ""
    if path is None:
        result.drop("missing_video", id_)
    elif not query:
        result.dropped["empty_query"] += 1
    elif (interval := mend_interval(start, end, duration, result)) is not None:
        result.samples.append(Sample(id_, path, query, interval, duration))
