"""Multiple-choice questions about a video: which option is right?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from vcr1.metrics import mean
from vcr1.parsing import LETTER_FAILURES, parse_letter
from vcr1.records import Completion, Judgement, ParseFailure, Prompt, Sample
from vcr1.rewards import Reward, accuracy, answer_format
from vcr1.tasks.base import Task, accuracies, format_share, most_frequent
from vcr1.tasks.options import letters_of, list_options

FORM = "the letter of the right option between <answer> and </answer>, for example <answer>B</answer>."


class QATask(Task):
    """Multiple-choice question answering, 2 to 26 options.

    Args:
        think: whether the model is asked to reason before it answers.
        rewards: further reward parts, functions of (completion, sample).
        weights: weights of the rewards ``format`` and ``accuracy``.
    """

    name = "qa"
    metric_names = ("accuracy",)
    failure_reasons = LETTER_FAILURES
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
        """Question and options, then the form of the answer."""
        return Prompt(f"{sample.query.strip()}\n{list_options(sample.options)}\n{self.instruct(FORM)}")

    def parse(self, text: str, sample: Sample) -> str | ParseFailure:
        """The letter of the last answer block."""
        return parse_letter(text, len(sample.options))

    def answer(self, sample: Sample) -> str:
        """The right letter; with ``think``, a sample's ``rationale`` stands before it."""
        return self.reasoned(sample, f"<answer>{sample.target}</answer>")

    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        """1 where the letter is right."""
        return {"accuracy": accuracy(completion, sample)}

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Accuracy, over all and per category, and the share of well-formed answers."""
        return accuracies(judgements) | format_share(judgements)

    def baselines(self, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """The training set's most frequent letter."""
        letter = most_frequent(letters_of(train))
        return {"constant": {"accuracy": mean([float(sample.target == letter) for sample in test])}}
