"""The records that pass between the stages.

Shape letters, used in every docstring of the package:

====  ==========================================================
P     prompts in a micro-batch
G     completions of one prompt (the group)
L     prompt tokens, vision placeholders included
C     completion tokens
T     frames of a clip
H, W  height and width of a frame in pixels
R     reward parts of a task
V     vocabulary
====  ==========================================================

Times are seconds from the start of the video; boxes are normalised corners in 0..1.
"""

from vcr1.records.batches import (
    Batch,
    Completion,
    Judgement,
    RolloutGroups,
    Scorer,
)
from vcr1.records.samples import (
    LostSample,
    Prompt,
    PromptInputs,
    Sample,
    VideoClip,
    VideoSource,
    to_device,
)
from vcr1.records.values import (
    Box,
    EventScores,
    GroundedAnswer,
    Interval,
    JudgedCaption,
    JudgeFailure,
    ParseFailure,
    Tracklet,
    json_value,
)

__all__ = [
    "Batch",
    "Box",
    "Completion",
    "EventScores",
    "GroundedAnswer",
    "Interval",
    "JudgeFailure",
    "JudgedCaption",
    "Judgement",
    "LostSample",
    "ParseFailure",
    "Prompt",
    "PromptInputs",
    "RolloutGroups",
    "Sample",
    "Scorer",
    "Tracklet",
    "VideoClip",
    "VideoSource",
    "json_value",
    "to_device",
]
