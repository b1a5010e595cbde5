"""Grounded question answering: which option is right, and which spans of time show it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from vcr1.readers.annotations import Annotations
from vcr1.readers.jsonl import Content, mend_intervals
from vcr1.readers.rows import Footage, Row, seconds_of
from vcr1.records import Completion, GroundedAnswer, Interval, Judgement, ParseFailure, Prompt, Sample
from vcr1.scoring.geometry import intersection_over_prediction, interval_iou, union_iou
from vcr1.scoring.metrics import gqa_summary, mean
from vcr1.scoring.parsing import (
    GLUE_FAILURES,
    LETTER_FAILURES,
    format_intervals,
    parse_intervals,
    parse_option,
)
from vcr1.scoring.rewards import Reward, glue_format, glue_iou, letter_accuracy
from vcr1.tasks.base import QuestionNeeds, Task, accuracies, format_share, most_frequent
from vcr1.tasks.choice import letters_of, list_options, read_choice

FORM = (
    "the letter of the right option between <answer> and </answer>, and the spans of time in the video that"
    " show it, in seconds with one decimal, between <glue> and </glue>,"
    " for example <answer>B</answer><glue>[(5.2, 10.4), (12.0, 13.5)]</glue>."
)


class GroundedQATask(Task):
    """Grounded question answering; the letter and the spans are parsed and rewarded each on its own.

    Args:
        think: whether the model is asked to reason before it answers.
        rewards: further reward parts, functions of (completion, sample).
        weights: weights of the rewards ``format``, ``accuracy`` and ``iou``.
    """

    name = "grounded_qa"
    shown: ClassVar[Mapping[str, str]] = {"GQA": "accuracy"}
    metric_names = ("accuracy", "iou", "iop", "union_iou", "union_iop")
    failure_reasons = tuple(dict.fromkeys([*LETTER_FAILURES, *GLUE_FAILURES]))
    needs = QuestionNeeds(options=2)
    published: ClassVar[Mapping[str, str]] = {".json": "vcr1.readers.read_nextgqa_json"}
    headline = "Acc@GQA"
    names_times = True
    row_fields = ("query", "options", "answer", "intervals")
    truth_fields = ("answer", "intervals")

    def __init__(
        self,
        think: bool = True,
        rewards: Mapping[str, Reward] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        form = partial(glue_format, think=think)
        parts: dict[str, Reward] = {"format": form, "accuracy": letter_accuracy, "iou": glue_iou}
        super().__init__(parts, rewards=rewards, weights=weights, think=think)

    def prompt(self, sample: Sample) -> Prompt:
        """Return question and options, then the form of the answer."""
        return Prompt(f"{sample.query.strip()}\n{list_options(sample.options)}\n{self.instruct(FORM)}")

    def parse(self, text: str, sample: Sample) -> GroundedAnswer | ParseFailure:
        """Return the letter of the answer and the spans of the glue block; a failure if both fail."""
        letter, intervals = parse_option(text, sample.options), parse_intervals(text)
        if isinstance(letter, ParseFailure) and isinstance(intervals, ParseFailure):
            return letter
        return GroundedAnswer(letter, intervals)

    def answer(self, sample: Sample) -> str:
        """Return the right letter and the true spans; with ``think``, a ``rationale`` stands before them."""
        target: GroundedAnswer = sample.target
        assert not isinstance(target.intervals, ParseFailure)
        spans = format_intervals(target.intervals)
        return self.reasoned(sample, f"<answer>{target.letter}</answer><glue>{spans}</glue>")

    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        """Return accuracy of the letter, and three measures of the spans.

        ``iou`` and ``iop`` are the best over the true spans, by the rules of NExT-GQA's own evaluation
        (``code/TempGQA/eval_ground.py``): an instant inside a true span has an IoP of 1 there. ``union_iou``
        and ``union_iop`` are of all answered against all true time, as the reward has it: only they reach 1
        where several true spans are all answered.
        """
        answered, true = _spans(completion.value), _spans(sample.target)
        return {
            "accuracy": letter_accuracy(completion, sample),
            "iou": max((_iou(answered, span) for span in true), default=0.0),
            "iop": max((_iop(answered, span) for span in true), default=0.0),
            "union_iou": glue_iou(completion, sample),
            "union_iop": intersection_over_prediction(answered, true),
        }

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Return the metrics of NExT-GQA (arXiv 2309.01327), and accuracy per category.

        Also the share of well-formed answers, and ``mIoU(union)`` and ``Acc@GQA(union)``, for which all
        answered time is held against all true time.
        """
        columns = ([j.metrics[name] for j in judgements] for name in ("accuracy", "iou", "iop"))
        categories = {name: value for name, value in accuracies(judgements).items() if "/" in name}
        grounded = [float(j.metrics["accuracy"] * (j.metrics["union_iop"] >= 0.5)) for j in judgements]
        union = {
            "mIoU(union)": mean([judgement.metrics["union_iou"] for judgement in judgements]),
            "Acc@GQA(union)": mean(grounded),
        }
        return gqa_summary(*columns) | union | format_share(judgements) | categories

    def read_row(self, row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
        """Read the question, its options, the right one and the ``intervals`` that show it."""
        spans = row.numbers("intervals", 2, "[[start, end], ...] in seconds")
        content = read_choice(row, attempt)
        intervals = mend_intervals(spans, seconds_of(footage), attempt)
        if content is None or not intervals:
            return None
        return replace(content, target=GroundedAnswer(content.target, intervals))

    def spans(self, value: Any) -> tuple[Interval, ...]:
        """Return the spans that show the answer; none where they could not be read."""
        return _spans(value)

    def shift(self, value: Any, seconds: float) -> Any:
        """Return the answer with its spans as they count from ``seconds`` earlier."""
        if not _spans(value):
            return value
        moved = tuple(Interval(span.start + seconds, span.end + seconds) for span in value.intervals)
        return replace(value, intervals=moved)

    def failure(self, value: Any) -> str | None:
        """Return why the letter could not be read, else why the spans could not be."""
        parts = (value.letter, value.intervals) if isinstance(value, GroundedAnswer) else (value,)
        return next((part.reason for part in parts if isinstance(part, ParseFailure)), None)

    def baselines(self, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """Return the training set's most frequent letter, with the whole video as its span."""
        return {"constant": self._constant(letters_of(train), test)}

    def _constant(self, letters: Sequence[str], test: Sequence[Sample]) -> dict[str, float]:
        letter = most_frequent(letters)
        judgements = []
        for sample in test:
            last = max((span.end for span in _spans(sample.target)), default=0.0)
            whole = Interval(0.0, last if sample.duration is None else sample.duration)
            judgements.append(self.score(Completion("", GroundedAnswer(letter, (whole,))), sample))
        scores = self.summarise(judgements)
        return {name: value for name, value in scores.items() if name != "format" and "/" not in name}


def _spans(value: GroundedAnswer | ParseFailure) -> tuple[Interval, ...]:
    """Return the spans of an answer; none where they could not be read."""
    if isinstance(value, ParseFailure) or isinstance(value.intervals, ParseFailure):
        return ()
    return value.intervals


def _iou(answered: Sequence[Interval], span: Interval) -> float:
    """Return IoU of one true span with an answer; of one answered span it is NExT-GQA's own."""
    return interval_iou(answered[0], span) if len(answered) == 1 else union_iou(answered, [span])


def _iop(answered: Sequence[Interval], span: Interval) -> float:
    """Share of an answer that lies in one true span; of one answered span or instant it is NExT-GQA's own."""
    if len(answered) == 1 and answered[0].length == 0:
        return float(span.start <= answered[0].start <= span.end)
    return intersection_over_prediction(answered, [span])
