"""Charades-STA in its authors' own text format."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from vcr1.errors import UserError, VideoError
from vcr1.readers.annotations import Annotations, add_span, keeps_missing
from vcr1.readers.files import read_lines
from vcr1.readers.videos import VideoFolder
from vcr1.video import GuardedReader, current_reader

_CHARADES_ROW = re.compile(r"(\S{1,200})\s+(\S{1,40})\s+(\S{1,40})\s*##(.*)", re.DOTALL)


def read_charades_sta(
    annotations: str, videos: str, limit: int | None = None, threads: int = 8
) -> Annotations:
    """Charades-STA's own text format, ``VIDEO start end##sentence``; durations come from the videos.

    Args:
        annotations: the text file.
        videos: folder of the videos, ``VIDEO.mp4``.
        limit: read the first so many rows only.
        threads: videos whose duration is read at the same time.

    Raises:
        UserError: a missing or broken file (names the line), a missing folder, no usable row.
    """
    folder = VideoFolder(videos)
    rows: list[tuple[str, float, float, str]] = []
    for line_number, line in read_lines(annotations)[:limit]:
        match = _CHARADES_ROW.fullmatch(line.strip())
        try:
            if match is None:
                raise ValueError("no '##'")
            rows.append((match[1], float(match[2]), float(match[3]), match[4]))
        except ValueError as error:
            raise UserError(
                f"{annotations}, line {line_number}: expected 'VIDEO start end##sentence', not {line[:80]!r}"
            ) from error
    paths = {video: folder.find(video) for video in dict.fromkeys(row[0] for row in rows)}
    reader = current_reader()
    with ThreadPoolExecutor(threads) as pool:
        durations = dict(zip(paths, pool.map(partial(_duration, reader), paths.values()), strict=True))
    result = Annotations(annotations)
    counts: dict[str, int] = {}
    for video, start, end, sentence in rows:
        number = counts[video] = counts.get(video, -1) + 1
        if paths[video] is not None and durations[video] is None and not keeps_missing():
            result.drop("unreadable_video", f"{video}-{number}")
            continue
        detail = folder.tried(video) if paths[video] is None else ""
        add_span(result, f"{video}-{number}", paths[video], sentence, start, end, durations[video], detail)
    return result.checked()


def _duration(reader: GuardedReader, path: str | None) -> float | None:
    """Return seconds of a video; None where it is missing or unreadable."""
    if path is None:
        return None
    try:
        return reader.duration(path)
    except VideoError:
        return None
