"""From a video file to the frames that the model sees, with their real times.

``sampling`` decides which frames and what size, ``timeline`` when each frame is shown, ``readers`` decodes,
``writing`` and ``synthetic`` make the clips of the embedded demo and of the tests.
"""

from vcr1.video.readers import DECODERS, read_clip
from vcr1.video.sampling import (
    FrameBudget,
    PatchGrid,
    count_frames,
    frame_size,
    sample_indices,
    sample_times,
)
from vcr1.video.synthetic import (
    COLORS,
    SHAPES,
    ClipSpec,
    ShapeEvent,
    build_world,
    draw_spec,
    render,
    write_clip,
)
from vcr1.video.timeline import Timeline, read_timeline, video_duration
from vcr1.video.writing import write_mp4

__all__ = [
    "COLORS",
    "DECODERS",
    "SHAPES",
    "ClipSpec",
    "FrameBudget",
    "PatchGrid",
    "ShapeEvent",
    "Timeline",
    "build_world",
    "count_frames",
    "draw_spec",
    "frame_size",
    "read_clip",
    "read_timeline",
    "render",
    "sample_indices",
    "sample_times",
    "video_duration",
    "write_clip",
    "write_mp4",
]
