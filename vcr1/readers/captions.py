"""Captions of videos, for captioning."""

from __future__ import annotations

from vcr1.readers.annotations import Annotations
from vcr1.readers.jsonl import INSTRUCTION, Content, caption_content, sample_of
from vcr1.readers.rows import Footage, Row, read_objects
from vcr1.readers.videos import VideoFolder


def read_captions(
    annotations: str, videos: str, instruction: str = INSTRUCTION, limit: int | None = None
) -> Annotations:
    """JSONL of captions, such as FIBER-1k's: ``{"video": ..., "caption": ...}`` in each line.

    Optional fields: ``id`` (by default file name and line number), ``events`` (texts: what the caption
    tells), ``instruction`` (instead of the reader's), ``duration`` (seconds, of the whole file), ``start``
    and ``end`` (seconds: the caption is about this part), ``fps`` (of a folder of frames). Other fields are
    not read; for a stricter form see `vcr1.readers.jsonl`.

    Args:
        annotations: the JSONL file.
        videos: folder of the videos.
        instruction: what is asked.
        limit: read the first so many lines only.

    Raises:
        UserError: a missing or broken file (names line and field), two lines with one id (names both), a
            missing folder, no usable line.
    """

    def find(row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
        return caption_content(row, row.text("instruction", instruction), attempt)

    fields = ("video", "caption", "events", "instruction", "duration", "start", "end", "fps")
    folder, result = VideoFolder(videos), Annotations(annotations)
    for row in read_objects(annotations, limit):
        known = {name: row.content[name] for name in fields if name in row.content}
        attempt = Annotations(row.id)
        result.settle(attempt, sample_of(Row(row.place, row.id, known), folder, find, attempt))
    return result.checked()
