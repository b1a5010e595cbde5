"""What every task has: a prompt, a parser, weighted rewards, metrics. One object for all uses."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ClassVar

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations
from vcr1.readers.jsonl import Content
from vcr1.readers.rows import Footage, Row
from vcr1.records import Box, Completion, Interval, Judgement, ParseFailure, Prompt, Sample
from vcr1.records.futures import after, finished
from vcr1.scoring.metrics import accuracy_by, mean
from vcr1.scoring.parsing import without_tags
from vcr1.scoring.rewards import Reward, weighted_total

THINK = "First write down your reasoning between <think> and </think>. Then give"
NO_THINK = "Give"


@dataclass(frozen=True, slots=True)
class QuestionNeeds:
    """Needs of a task's questions beside a video, as somebody who asks must meet them.

    Attributes:
        options: fewest options to choose from; 0 where the task does not choose.
        box: whether the object's box in the first frame is needed.
        query: question that is asked where none is given; None where one must be given.
    """

    options: int = 0
    box: bool = False
    query: str | None = None


class Task(ABC):
    """Base of the tasks. Training, evaluation and prediction use the same object.

    A subclass sets ``name``, ``metric_names``, ``failure_reasons`` and ``headline`` (the one of its metrics
    that stands for it in a picture), and writes the abstract methods. Objects travel into the processes that
    decode videos and come back with the batches: keep them small, and picklable.

    Attributes:
        name: part of the keys under which the task is logged; a run sets it to the task's place in ``tasks``.
        frames: how many frames the model is shown of a video, the first and the last among them; None leaves
            it to the frame budget.
        names_times: whether its answers are spans of time, an `Interval` or a `GroundedAnswer`, so that the
            model can look again at what it names.
        needs: what a question must state beside its video.
        row_fields: fields of its lines of JSON, besides those of every task (`vcr1.readers.jsonl`); none
            where it reads no lines.
        shown: label on the progress bar -> metric of a completion; the first of its metrics where empty.
        truth_fields: those of them that state the truth.
        published: ending of an annotation file as it is published -> dotted path of its reader.
        needs_judge: whether a judge scores the answers; prediction does without it.

    Args:
        parts: the task's own reward parts, pure functions of (completion, sample), in the order in which they
            are logged.
        rewards: the user's further parts; one of the same name stands in for the task's own.
        weights: part -> weight in the total; a part that is not named counts 1.
        think: whether the model is asked to reason before it answers.

    Raises:
        UserError: a weight for a part that the task does not have.
    """

    name: str
    metric_names: tuple[str, ...]
    failure_reasons: tuple[str, ...]
    headline: str
    frames: int | None = None
    names_times: bool = False
    needs: QuestionNeeds = QuestionNeeds()
    needs_judge: bool = False
    row_fields: tuple[str, ...] = ()
    truth_fields: tuple[str, ...] = ()
    shown: ClassVar[Mapping[str, str]] = {}
    published: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        parts: Mapping[str, Reward],
        *,
        rewards: Mapping[str, Reward] | None = None,
        weights: Mapping[str, float] | None = None,
        think: bool = True,
    ) -> None:
        self.rewards = dict(parts) | dict(rewards or {})
        unknown = set(weights or {}) - set(self.rewards)
        if unknown:
            raise UserError(
                f"tasks.{self.name}.weights names {', '.join(sorted(unknown))}; "
                f"the rewards of this task are {', '.join(self.rewards)}"
            )
        self.weights = dict.fromkeys(self.rewards, 1.0) | dict(weights or {})
        for part, weight in self.weights.items():
            if not isinstance(weight, int | float) or not math.isfinite(weight):
                raise UserError(f"tasks.{self.name}.weights.{part}={weight} is no number")
        for part, reward in self.rewards.items():
            if not callable(reward):
                raise UserError(
                    f"tasks.{self.name}.rewards.{part} is no function; give its dotted path as _target_, "
                    f"and _partial_: true"
                )
        self.think = think

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Return the reward parts, in order."""
        return tuple(self.rewards)

    @abstractmethod
    def prompt(self, sample: Sample) -> Prompt:
        """Return the question in the task's own words."""

    @abstractmethod
    def parse(self, text: str, sample: Sample) -> Any | ParseFailure:
        """Return the answer that a completion gives to a sample's question; never raises on model text."""

    @abstractmethod
    def answer(self, sample: Sample) -> str:
        """Return the completion that supervised fine-tuning shows the model."""

    @abstractmethod
    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        """Return the sample's metrics, a value for each of ``metric_names``; a parse failure scores 0."""

    @abstractmethod
    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Return the data set's metrics over all judgements."""

    def read_row(self, row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
        """Read a line of JSON; None where it is of no use, counted in ``attempt``.

        Args:
            row: the line.
            footage: its video, where there is one, and the video's length in seconds where it is known.
            attempt: counts what is mended or makes the line unusable.

        Raises:
            UserError: a field is missing or has a wrong form, see `Row.fault`.
        """
        raise NotImplementedError

    def spans(self, value: Any) -> tuple[Interval, ...]:
        """Return the spans of time that a value of this task names, in seconds; none by default."""
        return ()

    def boxes(self, value: Any) -> tuple[Box, ...]:
        """Return the boxes that a value of this task names, one for each shown frame; none by default."""
        return ()

    def shift(self, value: Any, seconds: float) -> Any:
        """Return a value whose times count from ``seconds`` earlier; by default it has no times."""
        return value

    def failure(self, value: Any) -> str | None:
        """Return why a value, or the first part of it that failed, could not be read; None where it could."""
        return value.reason if isinstance(value, ParseFailure) else None

    def baselines(self, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """Return what answers score on ``test`` that never look at the video; name -> the task's metrics."""
        return {}

    def probe(self) -> None:  # noqa: B027 - most tasks need nothing
        """See that what the task needs from outside, such as a judge, answers; called before a run begins.

        Raises:
            UserError: it does not.
        """

    def category(self, sample: Sample) -> str | None:
        """Return the group in which a sample is counted by itself, if any."""
        category = sample.extra.get("category")
        return None if category is None else str(category)

    def instruct(self, form: str) -> str:
        """Return how to answer: reasoning first where the task thinks, then ``form`` behind "Give"."""
        return f"{THINK if self.think else NO_THINK} {form}"

    def reasoned(self, sample: Sample, answer: str) -> str:
        """An answer to learn from; where the task thinks, the sample's ``rationale`` stands before it."""
        if not self.think:
            return answer
        rationale = without_tags(str(sample.extra.get("rationale", sample.query.strip())))
        return f"<think>{rationale}</think>{answer}"

    def complete(self, texts: Sequence[str], samples: Sequence[Sample]) -> Future[list[Completion]]:
        """Begin to find the values of completions, one per sample; parsing is all that it takes here."""
        pairs = zip(texts, samples, strict=True)
        completions = [Completion(text, self.parse(text, sample)) for text, sample in pairs]
        return finished(completions)

    def judge(self, texts: Sequence[str], samples: Sequence[Sample]) -> Future[list[Judgement]]:
        """Begin to parse and score completions, one per sample."""
        return after(
            self.complete(texts, samples),
            lambda completions: [self.score(*pair) for pair in zip(completions, samples, strict=True)],
        )

    def _number(self, part: str, completion: Completion, sample: Sample) -> float:
        """Return the value of a reward part.

        Raises:
            UserError: the part's function returned something else than a number.
        """
        value = self.rewards[part](completion, sample)
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"tasks.{self.name}.rewards.{part} returned {value!r} for sample {sample.id}: a reward is a "
                f"number, and NaN where there is none"
            ) from error

    def score(self, completion: Completion, sample: Sample) -> Judgement:
        """Return rewards and metrics of one completion."""
        parts = {name: self._number(name, completion, sample) for name in self.rewards}
        return Judgement(
            sample_id=sample.id,
            completion=completion,
            rewards=parts,
            total=weighted_total(parts, self.weights),
            metrics=self.measure(completion, sample),
            category=self.category(sample),
            failure=self.failure(completion.value),
        )


def mean_of(judgements: Sequence[Judgement], metric: str) -> float:
    """Return mean of a metric over the samples that could be judged; NaN where none could."""
    values = [judgement.metrics[metric] for judgement in judgements]
    numbers = [value for value in values if not math.isnan(value)]
    return mean(numbers) if numbers else math.nan


def format_share(judgements: Sequence[Judgement]) -> dict[str, float]:
    """Return share of well-formed answers."""
    return {"format": mean([judgement.rewards["format"] for judgement in judgements])}


def accuracies(judgements: Sequence[Judgement]) -> dict[str, float]:
    """Return ``accuracy``, and where samples have categories, that of each as ``accuracy/category``."""
    grouped = [judgement for judgement in judgements if judgement.category is not None]
    groups = accuracy_by(
        [judgement.metrics["accuracy"] for judgement in grouped],
        [str(judgement.category) for judgement in grouped],
    )
    by_category = {f"accuracy/{category}": value for category, value in groups.items()}
    return {"accuracy": mean_of(judgements, "accuracy")} | by_category


def most_frequent(answers: Sequence[Any]) -> Any:
    """Return the answer that occurs most often; of equals the first."""
    return Counter(answers).most_common(1)[0][0]
