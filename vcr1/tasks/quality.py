"""Quality assessment: which of a few named classes is a video of?"""

from __future__ import annotations

from vcr1.records import ParseFailure, Prompt, Sample
from vcr1.scoring.parsing import CLASS_FAILURES, parse_class
from vcr1.tasks.choice import ChoiceTask

FORM = "one of these answers between <answer> and </answer>: {classes}."


class QualityTask(ChoiceTask):
    """Classification by name, such as ``low quality``; a sample's options are the names."""

    name = "quality"
    failure_reasons = CLASS_FAILURES

    def prompt(self, sample: Sample) -> Prompt:
        """Question, then the names to choose from."""
        form = FORM.format(classes=", ".join(sample.options))
        return Prompt(f"{sample.query.strip()}\n{self.instruct(form)}")

    def parse(self, text: str, sample: Sample) -> str | ParseFailure:
        """The class that the answer names."""
        return parse_class(text, sample.options)

    def category(self, sample: Sample) -> str:
        """Each true class is counted by itself."""
        return str(sample.target)
