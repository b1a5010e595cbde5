"""Multiple-choice questions about a video: which option is right?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vcr1.records import ParseFailure, Prompt, Sample
from vcr1.scoring.parsing import LETTER_FAILURES, parse_option
from vcr1.tasks.choice import ChoiceTask, list_options

FORM = "the letter of the right option between <answer> and </answer>, for example <answer>B</answer>."


class QATask(ChoiceTask):
    """Multiple-choice question answering, 2 to 26 options; the answer is a letter."""

    name = "qa"
    shown: ClassVar[Mapping[str, str]] = {"QA": "accuracy"}
    published: ClassVar[Mapping[str, str]] = {
        ".json": "vcr1.readers.read_perception_test",
        ".parquet": "vcr1.readers.read_video_mme",
    }
    failure_reasons = LETTER_FAILURES

    def prompt(self, sample: Sample) -> Prompt:
        """Return question and options, then the form of the answer."""
        return Prompt(f"{sample.query.strip()}\n{list_options(sample.options)}\n{self.instruct(FORM)}")

    def parse(self, text: str, sample: Sample) -> str | ParseFailure:
        """Return the letter that the answer names, itself or by the option's words."""
        return parse_option(text, sample.options)
