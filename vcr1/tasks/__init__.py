"""The tasks: one file each. A task is a prompt, a parser, rewards, metrics and readers."""

from vcr1.tasks.annotations import Annotations
from vcr1.tasks.base import Task
from vcr1.tasks.grounding import GroundingTask

__all__ = ["Annotations", "GroundingTask", "Task"]
