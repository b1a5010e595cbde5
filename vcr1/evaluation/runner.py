"""The model's part: batches of questions to answers in the journal, on any number of ranks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
from torch import Tensor

from vcr1.errors import UserError
from vcr1.evaluation.answers import NOT_GENERATED, AnswerRecord, answer_of
from vcr1.evaluation.batches import LIMITS, Group
from vcr1.evaluation.benchmarks import Benchmark
from vcr1.evaluation.conversations import Conversation, read_along
from vcr1.evaluation.journal import add_answers
from vcr1.evaluation.likelihoods import add_likelihood
from vcr1.evaluation.looking import CloserLook, answer_seen
from vcr1.inference.clues import CluePlan
from vcr1.inference.limits import Limits
from vcr1.module.drafts import batch_part
from vcr1.module.randomness import seed_of
from vcr1.module.rollouts import lost_judgement
from vcr1.policy import Sampling, VideoPolicy
from vcr1.policy.generation.groups import check_numbers
from vcr1.policy.memory import Unanswered, together_or_alone
from vcr1.records import Batch, LostSample, PromptInputs, VideoSource
from vcr1.video import GuardedReader

log = logging.getLogger(__name__)


class Answering(L.LightningModule):
    """Answers groups of questions and writes the answers down at once.

    Args:
        policy: the model.
        benchmarks: what the groups are of.
        sampling: how completions are drawn.
        draws: completions of each question; they share its prompt.
        folder: the run's.
        seed: of the sampling.
        plan: whether and how the model looks again at what it names.
        reader: decodes the videos of further looks; None for one with the usual limits.
        limits: what further looks do not show.
    """

    def __init__(
        self,
        policy: VideoPolicy,
        benchmarks: Sequence[Benchmark],
        sampling: Sampling,
        draws: int,
        folder: Path,
        seed: int = 0,
        plan: CluePlan | None = None,
        reader: GuardedReader | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.benchmarks = list(benchmarks)
        self.sampling = sampling
        self.draws = draws
        self.folder = folder
        self.seed = seed
        self.plan = plan or CluePlan()
        self.reader = reader or GuardedReader()
        self.limits = limits

    def configure_model(self) -> None:
        """Let a strategy that shards do so."""
        if (shard := getattr(self.trainer.strategy, "shard", None)) is not None:
            shard([self.policy])

    def test_step(self, batch: tuple[Group, Batch] | Conversation, batch_idx: int) -> None:
        """Answer one group, or read one conversation."""
        if isinstance(batch, Conversation):
            self._read(batch)
        else:
            self._answer(*batch)

    def _answer(self, group: Group, questions: Batch) -> None:
        """Answer one group; where there is no memory for all of it, one question after the other."""
        begin = time.perf_counter()
        texts = self._texts(questions)
        if not group.places:
            return
        one = self.benchmarks[group.benchmark]

        def seconds() -> float:
            return (time.perf_counter() - begin) / len(group.places)

        if self.plan.rounds:
            judged = self._look_again(one, questions, texts, seconds)
        else:
            judged = judge(one, questions, texts, seconds)
        add_answers(self.folder, self.global_rank, judged)

    def _look_again(
        self,
        benchmark: Benchmark,
        questions: Batch,
        texts: Sequence[Sequence[str] | None],
        seconds: Callable[[], float],
    ) -> list[AnswerRecord]:
        """Return answers after further looks, one question after the other; ``texts`` are of the first."""
        closer = CloserLook(self.plan, self.policy.encoder, self.reader, self._only, self.limits)
        answers, failed = [], list(questions.lost)
        for sample, clip, own in zip(questions.samples, questions.clips, texts, strict=True):
            try:
                seen = None if own is None else closer.look_again(benchmark, sample, clip, own[0])
            except (RuntimeError, UserError) as error:
                log.warning("sample %s cannot be looked at again: %s", sample.id, error)
                seen = None
            if seen is None:
                failed.append(LostSample(sample.id, NOT_GENERATED, benchmark.task.category(sample)))
            else:
                answers.append(answer_seen(benchmark, sample, seen))
        took = seconds()
        return [replace(one, seconds=round(took, 3)) for one in answers] + failures(benchmark, failed, took)

    def _only(self, question: Batch) -> str:
        """Return the completion of a batch of one question, which may be on another device."""
        (texts,) = self.generate(question.to(self.device))
        return texts[0] if texts else ""

    def _read(self, conversation: Conversation) -> None:
        """See how likely a conversation is."""
        try:
            found = read_along(self.policy, conversation)
        except (RuntimeError, UserError) as error:
            if self.policy.sharding is not None:  # the other ranks would wait for ever
                raise
            log.warning("conversation %d cannot be read: %s", conversation.line, error)
            return
        if conversation.line:
            add_likelihood(self.folder, self.global_rank, found)

    def _texts(self, questions: Batch) -> list[list[str] | None]:
        """Return completions of each question; None where there can be none."""
        if self.policy.sharding is not None:  # ranks stay in step
            return self.generate(questions)
        found = together_or_alone(
            len(questions.samples), lambda places: self.generate(batch_part(questions, places))
        )
        for sample, one in zip(questions.samples, found, strict=True):
            if isinstance(one, Unanswered):
                log.warning("sample %s cannot be answered: %s", sample.id, one.reason)
        return [None if isinstance(one, Unanswered) else one for one in found]

    @torch.no_grad()
    def generate(self, questions: Batch) -> list[list[str] | None]:
        """Return completions of each question; their randomness depends on the question alone."""
        if not questions.inputs and self.policy.sharding is None:
            return []
        inputs = questions.inputs or self.policy.dummy_inputs()
        seeds = [seed_of(self.seed, sample.id) for sample in questions.samples] or [self.seed]
        sources = [sample.source for sample in questions.samples] or [VideoSource("")]
        features = shared_features(self.policy, inputs, sources)
        groups = check_numbers(self.policy.rollout(inputs, features, self.draws, self.sampling, seeds))
        return list(groups.texts[: len(questions.samples)])


def shared_features(
    policy: VideoPolicy, inputs: list[PromptInputs], sources: Sequence[VideoSource]
) -> list[Tensor | None]:
    """Return video features of each prompt, computed once for each video.

    Args:
        policy: the model.
        inputs: P prompt inputs; prompts with one source have the same frames of it.
        sources: P sources.
    """
    first = {source: place for place, source in reversed(list(enumerate(sources)))}
    places = sorted(first.values())
    features = dict(zip(places, policy.vision([inputs[place] for place in places]), strict=True))
    return [features[first[source]] for source in sources]


def judge(
    benchmark: Benchmark,
    questions: Batch,
    texts: Sequence[Sequence[str] | None],
    seconds: Callable[[], float],
) -> list[AnswerRecord]:
    """Return answers of a group: judged completions, and failures, which score 0.

    Args:
        benchmark: of the group.
        questions: the group's.
        texts: completions of each question that could be loaded; None where none could be generated.
        seconds: that each sample has taken, asked once all is judged.
    """
    task, pairs, failed = benchmark.task, [], list(questions.lost)
    for sample, own in zip(questions.samples, texts, strict=True):
        if own is None:
            failed.append(LostSample(sample.id, NOT_GENERATED, task.category(sample)))
        pairs += [(sample, draw, text) for draw, text in enumerate(own or ())]
    judgements = task.judge([text for _, _, text in pairs], [sample for sample, _, _ in pairs]).result()
    took = seconds()
    answers = [
        answer_of(benchmark.name, task, judgement, sample, draw=draw, seconds=took)
        for (sample, draw, _), judgement in zip(pairs, judgements, strict=True)
    ]
    return answers + failures(benchmark, failed, took)


def failures(benchmark: Benchmark, lost: Sequence[LostSample], seconds: float = 0.0) -> list[AnswerRecord]:
    """Return answers of samples that have none, and why."""
    known = {sample.id: sample for sample in benchmark.samples}
    return [
        answer_of(
            benchmark.name,
            benchmark.task,
            lost_judgement(benchmark.task, one),
            known.get(one.sample_id),
            seconds=seconds,
            failure=one.reason,
        )
        for one in lost
    ]
