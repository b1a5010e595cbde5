"""The tasks: one file each. A task is a prompt, a parser, rewards and metrics."""

from vcr1.tasks.base import QuestionNeeds, Task
from vcr1.tasks.captioning import CaptioningTask
from vcr1.tasks.free import FREE, FreeTask
from vcr1.tasks.grounded_qa import GroundedQATask
from vcr1.tasks.grounding import GroundingTask
from vcr1.tasks.qa import QATask
from vcr1.tasks.quality import QualityTask
from vcr1.tasks.tracking import TrackingTask

BUILTIN = (GroundingTask, TrackingTask, GroundedQATask, QATask, CaptioningTask, QualityTask)
"""Tasks of the package."""

__all__ = [
    "BUILTIN",
    "FREE",
    "CaptioningTask",
    "FreeTask",
    "GroundedQATask",
    "GroundingTask",
    "QATask",
    "QualityTask",
    "QuestionNeeds",
    "Task",
    "TrackingTask",
]
