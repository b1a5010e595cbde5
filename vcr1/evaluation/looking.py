"""The second look in an evaluation: `vcr1.inference.clues`, asked of samples whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vcr1.errors import UserError
from vcr1.evaluation.answers import AnswerRecord, answer_of, scores_of
from vcr1.evaluation.batches import LIMITS
from vcr1.evaluation.benchmarks import Benchmark
from vcr1.inference.clues import CluePlan, Look, deciding, look_again, part_of
from vcr1.inference.limits import Limits, show_clip
from vcr1.policy import PromptEncoder
from vcr1.records import Batch, Completion, Interval, Sample, VideoClip, json_value
from vcr1.video import FrameBudget, GuardedReader


@dataclass(frozen=True, slots=True)
class LookedAnswer:
    """An answer after one look or more.

    Attributes:
        text: of the look that decides.
        value: what the task reads in it, in seconds of the video.
        looks: all of them.
        stopped: why there was no further one.
    """

    text: str
    value: Any
    looks: tuple[Look, ...]
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class CloserLook:
    """Makes further looks at a video.

    Attributes:
        plan: how often and how closely.
        encoder: of the model.
        reader: decodes the videos.
        generate: completes a batch of one question: its only text.
        limits: what is not shown.
    """

    plan: CluePlan
    encoder: PromptEncoder
    reader: GuardedReader
    generate: Callable[[Batch], str]
    limits: Limits = LIMITS

    def look_again(self, benchmark: Benchmark, sample: Sample, clip: VideoClip, text: str) -> LookedAnswer:
        """Look again at the times that a first answer names.

        Args:
            benchmark: its budget is what all looks together may cost.
            sample: what was asked.
            clip: what the first look showed.
            text: what was answered.

        Raises:
            RuntimeError, UserError: the model cannot answer. A part that cannot be shown ends the looking.
        """
        task, source, grid = benchmark.task, sample.source, self.encoder.grid
        whole = Interval(0.0, self.reader.duration(source))

        def seen(part: Interval, clip: VideoClip, text: str) -> LookedAnswer:
            value = task.shift(task.parse(text, sample), part.start)
            tokens = grid.tokens(len(clip.indices), *clip.frames.shape[-2:])
            return LookedAnswer(
                text, value, (Look(part, len(clip.indices), tokens, text, task.spans(value)),)
            )

        def ask(part: Interval, budget: FrameBudget) -> LookedAnswer:
            shown = replace(sample, video=part_of(source, part, whole))
            clip = show_clip(self.reader, shown.source, budget, grid, self.limits, task.frames)
            inputs = self.encoder(task.prompt(shown), clip)
            return seen(part, clip, self.generate(Batch(task, [shown], [clip], [inputs], [])))

        return look_again(seen(whole, clip, text), ask, whole, benchmark.budget, self.plan)


def first_looks(benchmarks: Sequence[Benchmark], plan: CluePlan) -> list[Benchmark]:
    """Return the benchmarks with what the first look may cost of their budget."""
    return [replace(one, budget=plan.budget(one.budget, 0)) for one in benchmarks]


def check_plan(benchmarks: Sequence[Benchmark], plan: CluePlan, draws: int) -> None:
    """See that there are times to look at again.

    Raises:
        UserError: a benchmark whose answers name none, or several draws.
    """
    if not plan.rounds:
        return
    timeless = [f"{one.name} ({one.kind})" for one in benchmarks if not one.task.names_times]
    if timeless:
        raise UserError(
            f"clues={plan.rounds}: the answers of {', '.join(timeless)} name no times to look at again; "
            f"evaluate them in a run without clues="
        )
    if draws > 1:
        raise UserError(f"clues={plan.rounds} with evaluation.draws={draws}: looks again at one answer only")


def answer_seen(benchmark: Benchmark, sample: Sample, seen: LookedAnswer) -> AnswerRecord:
    """The record of an answer after its looks: what the last one scores, and the first one in the trace."""
    task, first = benchmark.task, seen.looks[0]
    last = task.score(Completion(seen.text, seen.value), sample)
    before = task.score(Completion(first.text, task.parse(first.text, sample)), sample)
    trace = {
        "looks": [json_value(look) for look in seen.looks],
        "decided": deciding(seen.looks),
        "stopped": seen.stopped,
        "first_scores": scores_of(task, before),
    }
    return replace(answer_of(benchmark.name, task, last, sample), trace=trace)
