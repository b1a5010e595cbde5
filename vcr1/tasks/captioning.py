"""Captioning: what happens in a video? A judge says which events of the reference the answer tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import ClassVar

from vcr1.readers.annotations import Annotations
from vcr1.readers.jsonl import INSTRUCTION, Content, caption_content
from vcr1.readers.rows import Footage, Row
from vcr1.records import (
    Completion,
    EventScores,
    JudgedCaption,
    Judgement,
    ParseFailure,
    Prompt,
    Sample,
)
from vcr1.records.futures import after
from vcr1.scoring.judges import CaptionPair, EventJudge, LexicalJudge, Verdict, f1
from vcr1.scoring.parsing import CAPTION_FAILURES, parse_caption, without_tags
from vcr1.scoring.rewards import Reward, answer_format, event_recall
from vcr1.tasks.base import QuestionNeeds, Task, format_share, mean_of, most_frequent

FORM = "the description between <answer> and </answer>."


class CaptioningTask(Task):
    """Captioning, rewarded by the recall of the reference's events (paper, "Tasks, data, rewards").

    A sample's ``query`` is the instruction and its ``target`` the reference caption; ``extra["events"]`` may
    list the reference's events, else the judge does.

    Args:
        judge: compares captions; by default by their words alone.
        think: whether the model is asked to reason before it answers.
        rewards: further reward parts, functions of (completion, sample).
        weights: weights of the rewards ``format`` and ``event_recall``.
    """

    name = "captioning"
    shown: ClassVar[Mapping[str, str]] = {"recall": "event_recall"}
    metric_names = ("event_recall", "event_precision", "event_f1")
    failure_reasons = CAPTION_FAILURES
    row_fields = ("query", "caption", "events")
    truth_fields = ("caption",)
    needs = QuestionNeeds(query=INSTRUCTION)
    needs_judge = True
    published: ClassVar[Mapping[str, str]] = {".jsonl": "vcr1.readers.read_captions"}
    headline = "event recall"

    def __init__(
        self,
        judge: EventJudge | None = None,
        think: bool = True,
        rewards: Mapping[str, Reward] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        form = partial(answer_format, think=think)
        parts: dict[str, Reward] = {"format": form, "event_recall": event_recall}
        super().__init__(parts, rewards=rewards, weights=weights, think=think)
        self.event_judge = judge or LexicalJudge()

    def probe(self) -> None:
        """See that the judge answers."""
        self.event_judge.probe()

    def prompt(self, sample: Sample) -> Prompt:
        """Return the instruction, then the form of the answer."""
        return Prompt(f"{sample.query.strip()}\n{self.instruct(FORM)}")

    def parse(self, text: str, sample: Sample) -> str | ParseFailure:
        """Return the words of the answer."""
        return parse_caption(text)

    def answer(self, sample: Sample) -> str:
        """Return the reference caption; with ``think``, a sample's ``rationale`` stands before it."""
        return self.reasoned(sample, f"<answer>{without_tags(sample.target.strip())}</answer>")

    def read_row(self, row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
        """Read the instruction, if there is one, the reference caption and its events."""
        return caption_content(row, row.text("query", INSTRUCTION), attempt)

    def complete(self, texts: Sequence[str], samples: Sequence[Sample]) -> Future[list[Completion]]:
        """Send the captions to the judge; those that could not be read need none."""
        captions = [self.parse(text, sample) for text, sample in zip(texts, samples, strict=True)]
        pairs = [
            CaptionPair(sample.target, caption, _events(sample))
            for caption, sample in zip(captions, samples, strict=True)
            if not isinstance(caption, ParseFailure)
        ]

        def with_verdicts(verdicts: list[Verdict]) -> list[Completion]:
            waiting = iter(verdicts)
            values = [
                caption if isinstance(caption, ParseFailure) else JudgedCaption(caption, next(waiting))
                for caption in captions
            ]
            return [Completion(text, value) for text, value in zip(texts, values, strict=True)]

        return after(self.event_judge.begin(pairs), with_verdicts)

    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        """Return recall, precision and F1 of the events; NaN where the judge failed."""
        value: JudgedCaption | ParseFailure = completion.value
        recall = event_recall(completion, sample)
        precision = recall if isinstance(value, ParseFailure) else _precision(value)
        return {"event_recall": recall, "event_precision": precision, "event_f1": f1(recall, precision)}

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Return mean recall, precision and F1 of the events, over the samples that could be judged.

        Also the shares of well-formed answers, and of samples that the judge gave no verdict on.
        """
        scores = {
            name.replace("_", " "): mean_of(judgements, name) for name in self.metric_names
        } | format_share(judgements)
        return scores | {"unjudged": sum(j.unjudged for j in judgements) / len(judgements)}

    def baselines(self, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """Return the training set's most frequent caption."""
        caption = most_frequent([sample.target for sample in train])
        judgements = self.judge([f"<answer>{caption}</answer>"] * len(test), test).result()
        scores = self.summarise(judgements)
        return {"constant": {name: scores[name] for name in scores if name.startswith("event")}}


def _events(sample: Sample) -> tuple[str, ...] | None:
    """Return the events of the reference, where the annotation lists them."""
    events = sample.extra.get("events")
    return None if events is None else tuple(map(str, events))


def _precision(value: JudgedCaption) -> float:
    return value.verdict.precision if isinstance(value.verdict, EventScores) else float("nan")
