"""One answer to one question of a benchmark: the line of samples.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vcr1.records import Judgement, Sample, json_value
from vcr1.tasks import Task

Key = tuple[str, str, int]
"""Benchmark, id of the sample, number of the draw."""

NOT_GENERATED = "not_generated"
"""Reason of a failure: the model could not answer, for want of memory or with logits that are no numbers."""
PROMPT_TOO_LONG = "prompt_too_long"
"""More characters than an evaluation asks: no benchmark's, but those of a broken annotation."""


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """One completion, what was read in it and what it scores.

    Attributes:
        benchmark: name of the benchmark.
        id: of the sample, unique in its benchmark.
        draw: number of the completion among those of the sample; 0 where there is one.
        prompt: the question as the model was asked it, without the chat around it.
        completion: the model's text; empty where there is none.
        value: what the parser read, as JSON.
        target: the truth, as JSON; None where the annotation was lost with its video.
        scores: metric -> what this answer alone scores; NaN where a judge failed. The benchmark's metric is
            the mean over its samples.
        failure: why there is no answer, or none that could be read; None where there is one.
        category: the group in which the sample is counted by itself, if any.
        seconds: its share of the wall time of its batch.
        trace: where the model was to look again: its ``looks``, the number of the one that has ``decided``,
            why it ``stopped``, and the ``first_scores``, of the first look alone. The times in ``completion``
            count from the start of that look's ``part``, those in ``value`` from the start of the video.
    """

    benchmark: str
    id: str
    draw: int
    prompt: str
    completion: str
    value: Any
    target: Any
    scores: dict[str, float]
    failure: str | None
    category: str | None
    seconds: float
    trace: dict[str, Any] | None = None

    @property
    def key(self) -> Key:
        """Return what tells it from all others of a run."""
        return self.benchmark, self.id, self.draw

    def line(self) -> str:
        """Return one line of JSON, with its end."""
        content = asdict(self)
        if self.trace is None:
            del content["trace"]
        return json.dumps(json_value(content), ensure_ascii=False) + "\n"

    @property
    def shown_from(self) -> float:
        """Return second of the video from which the times in the completion count."""
        if self.trace is None:
            return 0.0
        return float(self.trace["looks"][self.trace["decided"]]["part"][0])

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> AnswerRecord:
        """Return the answer that `line` wrote.

        Raises:
            KeyError: a field is missing.
            TypeError: a field too many, or scores that are none.
        """
        scores = {name: math.nan if value is None else value for name, value in content["scores"].items()}
        return cls(**{**content, "scores": scores})


def answer_of(
    benchmark: str,
    task: Task,
    judgement: Judgement,
    sample: Sample | None,
    *,
    draw: int = 0,
    seconds: float = 0.0,
    failure: str | None = None,
) -> AnswerRecord:
    """Return the record of a judgement.

    Args:
        benchmark: its name.
        task: who judged.
        judgement: of one completion.
        sample: what was asked; None where the annotation was lost with its video.
        draw: number of the completion.
        seconds: that it took.
        failure: why nothing was answered; None leaves it to the judgement.
    """
    return AnswerRecord(
        benchmark=benchmark,
        id=judgement.sample_id,
        draw=draw,
        prompt="" if sample is None else task.prompt(sample).text,
        completion=judgement.completion.text,
        value=None if failure else json_value(judgement.completion.value),
        target=None if sample is None else json_value(sample.target),
        scores=scores_of(task, judgement),
        failure=failure or judgement.failure,
        category=judgement.category,
        seconds=round(seconds, 3),
    )


def scores_of(task: Task, judgement: Judgement) -> dict[str, float]:
    """Return what a data set of this one sample would score; metrics of single categories are left out."""
    return {name: value for name, value in task.summarise([judgement]).items() if "/" not in name}
