"""Free questions: the model is asked as it stands, and its text is the answer."""

from __future__ import annotations

from collections.abc import Sequence

from vcr1.records import Completion, Judgement, Prompt, Sample
from vcr1.tasks.base import Task


class FreeTask(Task):
    """Questions that belong to no task. There is no truth to learn from or to score against."""

    name = "free"
    metric_names = ()
    failure_reasons = ()
    headline = ""

    def __init__(self) -> None:
        super().__init__({}, think=False)

    def prompt(self, sample: Sample) -> Prompt:
        """Return the question without a word added."""
        return Prompt(sample.query.strip())

    def parse(self, text: str, sample: Sample) -> str:
        """Return the text."""
        return text

    def answer(self, sample: Sample) -> str:
        """Return the target, which is a text."""
        return str(sample.target)

    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        """Measure nothing."""
        return {}

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Summarise nothing."""
        return {}


FREE = FreeTask()
"""The task of questions that name none."""
