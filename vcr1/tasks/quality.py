"""Quality assessment: which of a few named classes is a video of?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vcr1.readers.annotations import Annotations
from vcr1.readers.jsonl import Content
from vcr1.readers.quality import class_names
from vcr1.readers.rows import Footage, Row
from vcr1.records import ParseFailure, Prompt, Sample
from vcr1.scoring.parsing import CLASS_FAILURES, parse_class
from vcr1.tasks.choice import ChoiceTask

FORM = "one of these answers between <answer> and </answer>: {classes}."


class QualityTask(ChoiceTask):
    """Classification by name, such as ``low quality``; a sample's options are the names."""

    name = "quality"
    shown: ClassVar[Mapping[str, str]] = {"quality": "accuracy"}
    published: ClassVar[Mapping[str, str]] = {".json": "vcr1.readers.read_vidtab_quality"}
    failure_reasons = CLASS_FAILURES

    def prompt(self, sample: Sample) -> Prompt:
        """Return question, then the names to choose from."""
        form = FORM.format(classes=", ".join(sample.options))
        return Prompt(f"{sample.query.strip()}\n{self.instruct(form)}")

    def read_row(self, row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
        """Read the question, the names of the classes and the right one."""
        query, answer = row.text("query"), row.text("answer")
        options = class_names(f"{row.place}: field 'options'", row.texts("options"))
        if answer in options:
            return Content(query, answer, options)
        attempt.drop("answer_is_no_option", attempt.source)
        return None

    def parse(self, text: str, sample: Sample) -> str | ParseFailure:
        """Return the class that the answer names."""
        return parse_class(text, sample.options)

    def category(self, sample: Sample) -> str:
        """Each true class is counted by itself."""
        return str(sample.target)
