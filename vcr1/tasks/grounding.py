"""Temporal grounding: when does an event happen? The answer is one interval in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from vcr1.readers.annotations import Annotations, mend_interval
from vcr1.readers.jsonl import Content
from vcr1.readers.rows import Footage, Row, are_numbers, as_float, seconds_of
from vcr1.records import Completion, Interval, Judgement, ParseFailure, Prompt, Sample
from vcr1.scoring.metrics import constant_baselines, summarise_iou
from vcr1.scoring.parsing import INTERVAL_FAILURES, format_interval, parse_interval
from vcr1.scoring.rewards import Reward, answer_format, temporal_iou
from vcr1.tasks.base import Task, format_share

QUESTION = 'When does this event happen in the video: "{query}"?'
FORM = (
    "the start and the end of the event, in seconds with one decimal, between <answer> and </answer>,"
    " for example <answer>12.5 to 17.8</answer>."
)


class GroundingTask(Task):
    """Temporal grounding.

    Args:
        think: whether the model is asked to reason before it answers.
        rewards: further reward parts, functions of (completion, sample).
        weights: weights of the rewards ``format`` and ``iou``.
    """

    name = "grounding"
    shown: ClassVar[Mapping[str, str]] = {"IoU": "iou"}
    metric_names = ("iou",)
    failure_reasons = INTERVAL_FAILURES
    published: ClassVar[Mapping[str, str]] = {
        ".txt": "vcr1.readers.read_charades_sta",
        ".json": "vcr1.readers.read_activitynet",
    }
    headline = "mIoU"
    names_times = True
    row_fields = ("query", "interval")
    truth_fields = ("interval",)

    def __init__(
        self,
        think: bool = True,
        rewards: Mapping[str, Reward] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        parts: dict[str, Reward] = {"format": partial(answer_format, think=think), "iou": temporal_iou}
        super().__init__(parts, rewards=rewards, weights=weights, think=think)

    def prompt(self, sample: Sample) -> Prompt:
        """Return question, then the form of the answer."""
        question = QUESTION.format(query=sample.query.strip().rstrip("."))
        return Prompt(f"{question}\n{self.instruct(FORM)}")

    def parse(self, text: str, sample: Sample) -> Interval | ParseFailure:
        """Return the interval of the answer."""
        return parse_interval(text)

    def answer(self, sample: Sample) -> str:
        """Return the true interval; with ``think``, a sample's ``rationale`` stands before it."""
        return self.reasoned(sample, f"<answer>{format_interval(sample.target)}</answer>")

    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        """Return temporal IoU with the truth."""
        return {"iou": temporal_iou(completion, sample)}

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Return mIoU, R@0.3, R@0.5, R@0.7 and the share of well-formed answers, each in 0..1."""
        return summarise_iou([judgement.metrics["iou"] for judgement in judgements]) | format_share(
            judgements
        )

    def read_row(self, row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
        """Read the event and its ``interval``."""
        if not are_numbers(row.content.get("interval"), 2):
            raise row.fault("interval", "[start, end] in seconds")
        start, end = map(as_float, row.content["interval"])
        query, interval = row.text("query"), mend_interval(start, end, seconds_of(footage), attempt)
        return None if interval is None else Content(query, interval)

    def spans(self, value: Any) -> tuple[Interval, ...]:
        """Return the one span."""
        return (value,) if isinstance(value, Interval) else ()

    def shift(self, value: Any, seconds: float) -> Any:
        """Return the span as it counts from ``seconds`` earlier."""
        return Interval(value.start + seconds, value.end + seconds) if isinstance(value, Interval) else value

    def baselines(self, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """Return the best constant answer, and the best one for each duration, both fitted on ``train``."""

        def pairs(samples: Sequence[Sample]) -> list[tuple[float, Interval]]:
            return [(sample.duration or 0.0, sample.target) for sample in samples]

        ious = constant_baselines(pairs(train), pairs(test))
        return {name: summarise_iou(values) for name, values in ious.items()}
