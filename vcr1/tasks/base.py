"""What every task has: a prompt, a parser, weighted rewards, metrics. One object for all uses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from vcr1.errors import UserError
from vcr1.records import Completion, Judgement, ParseFailure, Prompt, Sample
from vcr1.rewards import Reward, weighted_total


class Task(ABC):
    """Base of the tasks. Training, evaluation and prediction use the same object.

    A subclass sets ``name``, ``metric_names``, ``failure_reasons`` and ``headline`` (the one of its metrics
    that stands for it in a picture), and writes the abstract methods.

    Args:
        rewards: part -> pure function of (completion, sample), in the order in which they are logged.
        weights: part -> weight in the total; a part that is not named counts 1.

    Raises:
        UserError: a weight for a part that the task does not have.
    """

    name: str
    metric_names: tuple[str, ...]
    failure_reasons: tuple[str, ...]
    headline: str

    def __init__(self, rewards: Mapping[str, Reward], weights: Mapping[str, float] | None = None) -> None:
        self.rewards = dict(rewards)
        unknown = set(weights or {}) - set(self.rewards)
        if unknown:
            raise UserError(
                f"tasks.{self.name}.weights names {', '.join(sorted(unknown))}; "
                f"the rewards of this task are {', '.join(self.rewards)}"
            )
        self.weights = dict.fromkeys(self.rewards, 1.0) | dict(weights or {})

    @property
    def reward_names(self) -> tuple[str, ...]:
        """The reward parts, in order."""
        return tuple(self.rewards)

    @abstractmethod
    def prompt(self, sample: Sample) -> Prompt:
        """The question in the task's own words."""

    @abstractmethod
    def parse(self, text: str) -> Any | ParseFailure:
        """The answer that a completion gives; never raises on model text."""

    @abstractmethod
    def answer(self, sample: Sample) -> str:
        """The completion that supervised fine-tuning shows the model."""

    @abstractmethod
    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        """The sample's metrics, a value for each of ``metric_names``; a parse failure scores 0."""

    @abstractmethod
    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """The data set's metrics over all judgements."""

    def baselines(self, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """What answers score on ``test`` that never look at the video; name -> the task's metrics."""
        return {}

    def judge(self, text: str, sample: Sample) -> Judgement:
        """Parse and score one completion."""
        completion = Completion(text, self.parse(text))
        parts = {name: reward(completion, sample) for name, reward in self.rewards.items()}
        return Judgement(
            sample_id=sample.id,
            completion=completion,
            rewards=parts,
            total=weighted_total(parts, self.weights),
            metrics=self.measure(completion, sample),
        )
