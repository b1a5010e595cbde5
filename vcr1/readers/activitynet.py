"""ActivityNet Captions, and Charades-STA as VideoChat-R1 ships it."""

from __future__ import annotations

import math

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations, add_span
from vcr1.readers.files import read_json
from vcr1.readers.videos import VideoFolder


def read_activitynet(annotations: str, videos: str, limit: int | None = None) -> Annotations:
    """Captions JSON of ActivityNet and of VideoChat-R1: ``{video: {duration, timestamps, sentences}}``.

    Time-R1's files of Charades-STA call the duration ``video_duration``; it is read where there is no other.

    Args:
        annotations: the JSON file.
        videos: folder of the videos, named as in the file.
        limit: read the first so many rows only.

    Raises:
        UserError: a missing or broken file, a missing folder, no usable row.
    """
    content = read_json(annotations)
    if not isinstance(content, dict):
        form = "{video: {duration, timestamps, sentences}}"
        raise UserError(f"{annotations}: expected {form}, found a {type(content).__name__}")
    folder = VideoFolder(videos)
    result = Annotations(annotations)
    left = math.inf if limit is None else limit
    for video, entry in content.items():
        try:
            duration = float(entry["duration"] if "duration" in entry else entry["video_duration"])
            spans, sentences = list(entry["timestamps"]), list(entry["sentences"])
            rows = [
                (number, *span, text)
                for number, (span, text) in enumerate(zip(spans, sentences, strict=True))
            ]
            if any(len(row) != 4 for row in rows):
                raise ValueError("a timestamp is not a pair")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{annotations}: video {video!r} needs duration, and timestamps [[start, end], ...] "
                f"and sentences of equal number ({type(error).__name__}: {error})"
            ) from error
        path = folder.find(video)
        for number, start, end, sentence in rows:
            left -= 1
            if left < 0:
                return result.checked()
            detail = folder.tried(video) if path is None else ""
            add_span(result, f"{video}-{number}", path, sentence, start, end, duration, detail)
    return result.checked()
