"""Choosing from given answers: what the tasks share whose answer is right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from string import ascii_uppercase

from vcr1.readers.annotations import Annotations
from vcr1.readers.jsonl import Content
from vcr1.readers.multiple_choice import choose
from vcr1.readers.rows import Footage, Row
from vcr1.records import Completion, GroundedAnswer, Judgement, Sample
from vcr1.scoring.metrics import mean
from vcr1.scoring.rewards import Reward, accuracy, answer_format
from vcr1.tasks.base import QuestionNeeds, Task, accuracies, format_share, most_frequent


class ChoiceTask(Task):
    """Base of the tasks whose answer is one of a sample's options, as a letter or by its name.

    Args:
        think: whether the model is asked to reason before it answers.
        rewards: further reward parts, functions of (completion, sample).
        weights: weights of the rewards ``format`` and ``accuracy``.
    """

    metric_names = ("accuracy",)
    row_fields = ("query", "options", "answer")
    truth_fields = ("answer",)
    needs = QuestionNeeds(options=2)
    headline = "accuracy"

    def __init__(
        self,
        think: bool = True,
        rewards: Mapping[str, Reward] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        parts: dict[str, Reward] = {"format": partial(answer_format, think=think), "accuracy": accuracy}
        super().__init__(parts, rewards=rewards, weights=weights, think=think)

    def answer(self, sample: Sample) -> str:
        """Return the right choice; with ``think``, a sample's ``rationale`` stands before it."""
        return self.reasoned(sample, f"<answer>{sample.target}</answer>")

    def read_row(self, row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
        """Read the question, its options and the right one, as a letter."""
        return read_choice(row, attempt)

    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        """Return 1 where the choice is right."""
        return {"accuracy": accuracy(completion, sample)}

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Return accuracy, over all and per category, and the share of well-formed answers."""
        return accuracies(judgements) | format_share(judgements)

    def baselines(self, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """Return the choice that is right most often in the training set."""
        choice = most_frequent([sample.target for sample in train])
        return {"constant": {"accuracy": mean([float(sample.target == choice) for sample in test])}}


def read_choice(row: Row, attempt: Annotations) -> Content | None:
    """Read a line's question, options and right letter; None where the answer is none of the options.

    Raises:
        UserError: a field is missing or has a wrong form.
    """
    query, options, answer = row.text("query"), row.texts("options"), row.content.get("answer")
    if not isinstance(answer, str | int) or isinstance(answer, bool):
        raise row.fault("answer", "an option's text, its letter, or its number counted from 0")
    choice = choose(options, answer, attempt)
    return None if choice is None else Content(query, choice[1], choice[0])


def list_options(options: Sequence[str]) -> str:
    """Return one line per option, ``(A) …``; at most 26.

    Raises:
        ValueError: more options than letters.
    """
    if len(options) > len(ascii_uppercase):
        raise ValueError(f"{len(options)} options, but there are {len(ascii_uppercase)} letters")
    pairs = zip(ascii_uppercase, options, strict=False)
    return "\n".join(f"({letter}) {' '.join(option.split())}" for letter, option in pairs)


def letters_of(samples: Sequence[Sample]) -> list[str]:
    """Return the right letters."""
    targets = [sample.target for sample in samples]
    return [str(target.letter if isinstance(target, GroundedAnswer) else target) for target in targets]
