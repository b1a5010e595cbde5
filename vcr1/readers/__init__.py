"""Annotation files as they are published, and the user's own.

A reader is a function that returns `Annotations`; a config names it by its dotted path.
"""

from vcr1.readers.activitynet import read_activitynet
from vcr1.readers.annotations import (
    NO_QUESTIONS,
    VIDEO_REASONS,
    Annotations,
    LeftOut,
    Purpose,
    concatenate,
    reading_for,
)
from vcr1.readers.captions import read_captions
from vcr1.readers.charades_sta import read_charades_sta
from vcr1.readers.got10k import read_got10k, read_tracking_json
from vcr1.readers.jsonl import Content, read_jsonl
from vcr1.readers.multiple_choice import read_mvbench, read_perception_test, read_video_mme
from vcr1.readers.nextgqa import read_nextgqa, read_nextgqa_json
from vcr1.readers.quality import read_vidtab_quality
from vcr1.readers.synthetic import read_passes, read_synthetic
from vcr1.readers.videos import VideoFolder

__all__ = [
    "NO_QUESTIONS",
    "VIDEO_REASONS",
    "Annotations",
    "Content",
    "LeftOut",
    "Purpose",
    "VideoFolder",
    "concatenate",
    "read_activitynet",
    "read_captions",
    "read_charades_sta",
    "read_got10k",
    "read_jsonl",
    "read_mvbench",
    "read_nextgqa",
    "read_nextgqa_json",
    "read_passes",
    "read_perception_test",
    "read_synthetic",
    "read_tracking_json",
    "read_video_mme",
    "read_vidtab_quality",
    "reading_for",
]
