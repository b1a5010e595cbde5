"""Asking the model: questions about the same frames share the vision pass and the prefill."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import torch

from vcr1.errors import UserError
from vcr1.inference.answers import Answer
from vcr1.inference.clues import CluePlan, Look, part_of, search
from vcr1.inference.limits import Limits, show_clip
from vcr1.inference.questions import Question
from vcr1.policy import Sampling, VideoPolicy
from vcr1.policy.generation.answering import answer_together
from vcr1.records import Completion, Interval, VideoClip, to_device
from vcr1.video import FrameBudget, GuardedReader

Watch = Callable[[str], None]
"""Sees an answer grow: called with its text so far."""


class Asker:
    """A model with all that it takes to ask it about videos.

    Args:
        policy: the model, on its device.
        budgets: name of a task -> how much of a video may be shown.
        sampling: decoding parameters.
        reader: decodes the videos; None for one with the usual limits.
        limits: what is refused.
        seed: of the sampling, the same for every video, so that a batch answers as its parts do.
    """

    def __init__(
        self,
        policy: VideoPolicy,
        budgets: Mapping[str, FrameBudget],
        sampling: Sampling,
        reader: GuardedReader | None = None,
        limits: Limits | None = None,
        seed: int = 0,
    ) -> None:
        self.policy = policy
        self.budgets = dict(budgets)
        self.sampling = sampling
        self.reader = reader or GuardedReader()
        self.limits = limits or Limits()
        self.seed = seed
        self.alone = Lock()
        """Held by a stream of answers while it uses the model."""

    def group(self, questions: Sequence[Question]) -> list[list[Question]]:
        """Return the questions in groups that see the same frames, none larger than ``limits.together``."""
        groups: dict[Any, list[list[Question]]] = {}
        for question in questions:
            key = (question.source, question.task.frames, self.budgets[question.task.name])
            parts = groups.setdefault(key, [[]])
            if len(parts[-1]) == self.limits.together:
                parts.append([])
            parts[-1].append(question)
        return [part for parts in groups.values() for part in parts]

    def ask(
        self, questions: Sequence[Question], budget: FrameBudget | None = None, watch: Watch | None = None
    ) -> list[Answer]:
        """Return answers to questions of one group.

        Args:
            questions: they see the same frames.
            budget: how much of the video may be shown; None for that of the task.
            watch: sees the first question's answer grow.

        Raises:
            VideoError: the video cannot be shown.
            UserError: the prompt or a setting does not fit the model.
        """
        first = questions[0]
        budget = budget or self.budgets[first.task.name]
        encoder, frames = self.policy.encoder, first.task.frames
        clip = show_clip(self.reader, first.source, budget, encoder.grid, self.limits, frames)
        prompts = [question.task.prompt(question.sample()) for question in questions]
        device = next(self.policy.parameters()).device
        inputs = [to_device(item, device) for item in encoder.about(prompts, clip)]
        shown = None if watch is None else lambda ids: watch(encoder.decode(ids[0].tolist()))
        try:
            groups = answer_together(self.policy, inputs, self.sampling, [self.seed] * len(inputs), shown)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"not enough GPU memory for {len(questions)} prompt{'s' * (len(questions) > 1)} of "
                f"{max(item['input_ids'].shape[1] for item in inputs)} tokens and rollout.max_new_tokens="
                f"{self.sampling.max_new_tokens} more; lower data.video.total_pixels or that"
            ) from error
        timing = clip.without_frames()
        return [
            Answer(
                question=question,
                text=texts[0],
                value=question.task.parse(texts[0], question.sample()),
                clip=timing,
                tokens=int(lengths[0]),
                truncated=bool(cut[0]),
                looks=(self._look(clip, question, texts[0]),),
            )
            for question, texts, lengths, cut in zip(
                questions, groups.texts, groups.lengths.tolist(), groups.truncated.tolist(), strict=True
            )
        ]

    def ask_again(self, question: Question, plan: CluePlan, watch: Watch | None = None) -> Answer:
        """Return the answer to a question after further looks at the times that the model names.

        Args:
            question: of a task that names times.
            plan: how often and how closely to look.
            watch: sees the answer of each look grow.

        Raises:
            VideoError: the video cannot be shown.
        """
        source = question.source
        whole = Interval(0.0, self.reader.duration(source))

        def ask(part: Interval, budget: FrameBudget) -> Answer:
            shown = replace(question, source=part_of(source, part, whole))
            (answer,) = self.ask([shown], budget, watch)
            value = question.task.shift(answer.value, part.start)
            look = replace(answer.looks[0], part=part, intervals=question.task.spans(value))
            return replace(answer, question=question, value=value, looks=(look,))

        return search(ask, whole, self.budgets[question.task.name], plan)

    def scored(self, answer: Answer) -> Answer:
        """The answer with what it scores, where its line states the truth; captions have no score here."""
        truth = answer.question.truth
        if truth is None or answer.question.task.needs_judge:
            return answer
        completion = Completion(answer.text, answer.value)
        return replace(answer, scores=answer.question.task.measure(completion, truth))

    def _look(self, clip: VideoClip, question: Question, text: str) -> Look:
        tokens = self.policy.encoder.grid.tokens(len(clip.indices), *clip.frames.shape[-2:])
        spans = question.task.spans(question.task.parse(text, question.sample()))
        return Look(Interval(0.0, clip.duration), len(clip.indices), tokens, text, spans)
