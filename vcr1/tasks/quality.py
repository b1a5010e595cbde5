"""Quality assessment: which of a few named classes is a video of?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from vcr1.metrics import mean
from vcr1.parsing import CLASS_FAILURES, parse_class
from vcr1.records import Completion, Judgement, ParseFailure, Prompt, Sample
from vcr1.rewards import Reward, accuracy, answer_format
from vcr1.tasks.base import Task, accuracies, format_share, most_frequent

FORM = "one of these answers between <answer> and </answer>: {classes}."


class QualityTask(Task):
    """Classification by name, such as ``low quality`` or ``high quality``; a sample's options are the names.

    Args:
        think: whether the model is asked to reason before it answers.
        rewards: further reward parts, functions of (completion, sample).
        weights: weights of the rewards ``format`` and ``accuracy``.
    """

    name = "quality"
    metric_names = ("accuracy",)
    failure_reasons = CLASS_FAILURES
    headline = "accuracy"

    def __init__(
        self,
        think: bool = True,
        rewards: Mapping[str, Reward] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        parts: dict[str, Reward] = {"format": partial(answer_format, think=think), "accuracy": accuracy}
        super().__init__(parts, rewards=rewards, weights=weights, think=think)

    def prompt(self, sample: Sample) -> Prompt:
        """Question, then the names to choose from."""
        form = FORM.format(classes=", ".join(sample.options))
        return Prompt(f"{sample.query.strip()}\n{self.instruct(form)}")

    def parse(self, text: str, sample: Sample) -> str | ParseFailure:
        """The class that the last answer block names."""
        return parse_class(text, sample.options)

    def answer(self, sample: Sample) -> str:
        """The right name; with ``think``, a sample's ``rationale`` stands before it."""
        return self.reasoned(sample, f"<answer>{sample.target}</answer>")

    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        """1 where the class is right."""
        return {"accuracy": accuracy(completion, sample)}

    def category(self, sample: Sample) -> str:
        """Each true class is counted by itself."""
        return str(sample.target)

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Accuracy, over all and per true class, and the share of well-formed answers."""
        return accuracies(judgements) | format_share(judgements)

    def baselines(self, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """The training set's most frequent class."""
        name = most_frequent([sample.target for sample in train])
        return {"constant": {"accuracy": mean([float(sample.target == name) for sample in test])}}
