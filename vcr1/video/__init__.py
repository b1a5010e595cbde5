"""From a video file to the frames that the model sees, with their real times.

``sampling`` decides which frames and what size, ``timeline`` when each frame is shown, ``parts`` which of
them a part of a video has, ``decoding`` gives them with PyAV and ``decord_reading`` with decord, ``frames``
reads folders of pictures, and ``readers`` makes clips of all that. ``opening`` is the only place where a file
is opened, ``completeness`` tells whether all of it is there, ``access`` where decoding may begin. ``guard``
lets a run decode in ``children`` (``forked`` from it), which may crash or hang within ``limits``; ``probing``
tries many videos in them, ``journal`` remembers what became of them, ``comparing`` holds pictures against
their times. ``writing`` and ``synthetic`` make the clips of the embedded demo and of the tests.
"""

from vcr1.video.guard import GuardedReader, current_reader, reading_with
from vcr1.video.limits import DecodeLimits
from vcr1.video.readers import DECODERS, frame_times, read_clip, video_duration
from vcr1.video.sampling import (
    FrameBudget,
    PatchGrid,
    count_frames,
    evenly_spaced,
    frame_size,
    sample_indices,
    sample_times,
)
from vcr1.video.synthetic import (
    COLORS,
    DEGRADATIONS,
    SHAPES,
    ClipSpec,
    ShapeEvent,
    render,
    write_clip,
)
from vcr1.video.timeline import Timeline, read_timeline
from vcr1.video.worlds import (
    DIRECTIONS,
    WORLDS,
    build_world,
    direction_of,
    draw_long,
    draw_motion,
    draw_quality,
    draw_spec,
)
from vcr1.video.writing import write_mp4

__all__ = [
    "COLORS",
    "DECODERS",
    "DEGRADATIONS",
    "DIRECTIONS",
    "SHAPES",
    "WORLDS",
    "ClipSpec",
    "DecodeLimits",
    "FrameBudget",
    "GuardedReader",
    "PatchGrid",
    "ShapeEvent",
    "Timeline",
    "build_world",
    "count_frames",
    "current_reader",
    "direction_of",
    "draw_long",
    "draw_motion",
    "draw_quality",
    "draw_spec",
    "evenly_spaced",
    "frame_size",
    "frame_times",
    "read_clip",
    "read_timeline",
    "reading_with",
    "render",
    "sample_indices",
    "sample_times",
    "video_duration",
    "write_clip",
    "write_mp4",
]
