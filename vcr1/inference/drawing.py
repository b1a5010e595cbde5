"""One answer as a picture: frames over a timeline with the named times, or the frames with their boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from vcr1.inference.answers import Answer
from vcr1.records import VideoClip, VideoSource
from vcr1.reporting.pictures import STRIP_FRAMES, TimelineEntry, TrackEntry, timelines, tracks
from vcr1.video import FrameBudget, GuardedReader, PatchGrid

GRID = PatchGrid()
SHOWN = FrameBudget(max_frames=STRIP_FRAMES, total_pixels=STRIP_FRAMES // GRID.temporal * 360 * 240)
"""What a picture shows of a video: enough for people, whatever the model saw."""
FRAME = FrameBudget(min_pixels=480 * 320, total_pixels=640 * 480)
"""What is shown of a single frame."""
IN_A_ROW = 4
"""Frames with boxes beside each other."""


def draw_answer(answer: Answer, path: Path, reader: GuardedReader) -> None:
    """Write a picture of an answer.

    A tracked object's boxes are drawn into the frames that were asked; of any other answer there is a strip
    of frames, over a timeline where the task asks for times.

    Args:
        answer: to a question about a video that is still there.
        path: the PNG; written whole or not at all.
        reader: decodes the video.

    Raises:
        VideoError: the video cannot be read.
    """
    boxes = answer.boxes
    count = len(answer.clip.indices) if boxes else None
    clip = reader.clip(answer.question.source, SHOWN, GRID, frames=count)
    if boxes:
        rows = range(0, len(clip.indices), IN_A_ROW)
        tracks(
            [
                TrackEntry(part, _times(part), {"answer": boxes[first : first + IN_A_ROW]})
                for first, part in ((first, _frames(clip, first, first + IN_A_ROW)) for first in rows)
            ],
            path,
        )
        return
    spans = {"answer": answer.spans} if answer.spans else {}
    timelines([TimelineEntry(clip, answer.question.query[:90], spans)], path)


def first_frame(source: VideoSource, reader: GuardedReader) -> np.ndarray:
    """Return the first frame of a video, or of a part of one: ``[H, W, 3]`` uint8, RGB.

    Raises:
        VideoError: the video cannot be read.
    """
    clip = reader.clip(source, FRAME, GRID, frames=GRID.temporal)
    return np.ascontiguousarray(clip.frames[0].permute(1, 2, 0).numpy())


def _frames(clip: VideoClip, first: int, last: int) -> VideoClip:
    """Return some frames of a clip."""
    part = slice(first, last)
    return replace(
        clip, frames=clip.frames[part], indices=clip.indices[part], timestamps=clip.timestamps[part]
    )


def _times(clip: VideoClip) -> str:
    return ", ".join(f"{time:.1f}" for time in clip.timestamps) + " s"
