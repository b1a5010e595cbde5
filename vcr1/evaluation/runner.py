"""The model's part: batches of questions to answers in the journal, on any number of ranks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vcr1.data import LoaderSettings
from vcr1.evaluation.answers import NOT_GENERATED, Answer, answer_of
from vcr1.evaluation.batches import LONGEST, Group, GroupDataset
from vcr1.evaluation.benchmarks import Benchmark
from vcr1.evaluation.journal import add_answers
from vcr1.module.randomness import seed_of
from vcr1.module.rollouts import lost_judgement, part_of
from vcr1.policy import Sampling, VideoPolicy
from vcr1.policy.memory import Unanswered, together_or_alone
from vcr1.records import Batch, LostSample, PromptInputs, VideoSource

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
    """

    def __init__(
        self,
        policy: VideoPolicy,
        benchmarks: Sequence[Benchmark],
        sampling: Sampling,
        draws: int,
        folder: Path,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.benchmarks = list(benchmarks)
        self.sampling = sampling
        self.draws = draws
        self.folder = folder
        self.seed = seed

    def configure_model(self) -> None:
        """Let a strategy that shards do so."""
        if (shard := getattr(self.trainer.strategy, "shard", None)) is not None:
            shard([self.policy])

    def test_step(self, batch: tuple[Group, Batch], batch_idx: int) -> None:
        """Answer one group; where there is no memory for all of it, one question after the other."""
        group, questions = batch
        begin = time.perf_counter()
        texts = self._texts(questions)
        if not group.places:
            return
        one = self.benchmarks[group.benchmark]
        judged = judge(one, questions, texts, lambda: (time.perf_counter() - begin) / len(group.places))
        add_answers(self.folder, self.global_rank, judged)

    def _texts(self, questions: Batch) -> list[list[str] | None]:
        """Completions of each question; None where there can be none."""
        if self.policy.sharding is not None:  # ranks stay in step
            return self.generate(questions)
        found = together_or_alone(
            len(questions.samples), lambda places: self.generate(part_of(questions, places))
        )
        for sample, one in zip(questions.samples, found, strict=True):
            if isinstance(one, Unanswered):
                log.warning("sample %s cannot be answered: %s", sample.id, one.reason)
        return [None if isinstance(one, Unanswered) else one for one in found]

    @torch.no_grad()
    def generate(self, questions: Batch) -> list[list[str] | None]:
        """Completions of each question; what the group draws depends on its samples alone."""
        if not questions.inputs and self.policy.sharding is None:
            return []
        inputs = questions.inputs or self.policy.stand_in()
        generator = None
        if self.sampling.temperature > 0:
            seed = seed_of(self.seed, questions.samples[0].id if questions.samples else "")
            generator = torch.Generator(self.device).manual_seed(seed)
        sources = [sample.source for sample in questions.samples] or [VideoSource("")]
        features = shared_features(self.policy, inputs, sources)
        groups = self.policy.rollout(inputs, features, self.draws, self.sampling, generator)
        return list(groups.texts[: len(questions.samples)])


def shared_features(
    policy: VideoPolicy, inputs: list[PromptInputs], sources: Sequence[VideoSource]
) -> list[Tensor | None]:
    """Video features of each prompt, computed once for each video.

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
) -> list[Answer]:
    """Answers of a group: judged completions, and failures, which score 0.

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
    judgements = task.judge([text for _, _, text in pairs], [sample for sample, _, _ in pairs])()
    took = seconds()
    answers = [
        answer_of(benchmark.name, task, judgement, sample, draw=draw, seconds=took)
        for (sample, draw, _), judgement in zip(pairs, judgements, strict=True)
    ]
    return answers + failures(benchmark, failed, took)


def failures(benchmark: Benchmark, lost: Sequence[LostSample], seconds: float = 0.0) -> list[Answer]:
    """Answers of samples that have none, and why."""
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


class Groups(L.LightningDataModule):
    """The groups of all benchmarks that wait for an answer, dealt to the ranks.

    Args:
        groups: the same on all ranks.
        benchmarks: what they are of.
        policy: whose encoder makes the inputs.
        settings: workers, prefetching and decoder.
        longest: most characters of a prompt.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        benchmarks: Sequence[Benchmark],
        policy: VideoPolicy,
        settings: LoaderSettings,
        longest: int = LONGEST,
    ) -> None:
        super().__init__()
        self.groups = list(groups)
        self.benchmarks = list(benchmarks)
        self.policy = policy
        self.settings = settings
        self.longest = longest

    def test_dataloader(self) -> DataLoader[Any]:
        """One rank's groups, decoded ahead of the model by worker processes."""
        trainer = self.trainer
        rank, ranks = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        own = self.groups[rank::ranks]
        if self.policy.sharding is not None:  # no rank can compute a block alone: all make as many steps
            own += [Group(0, ())] * (-(-len(self.groups) // ranks) - len(own))
        settings = self.settings
        dataset = GroupDataset(own, self.benchmarks, self.policy.encoder, settings.decoder, self.longest)
        return DataLoader(
            dataset,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=settings.num_workers,
            prefetch_factor=settings.prefetch if settings.num_workers else None,
            pin_memory=torch.cuda.is_available(),
        )

    def transfer_batch_to_device(
        self, batch: tuple[Group, Batch], device: torch.device, dataloader_idx: int
    ) -> tuple[Group, Batch]:
        """Only the inputs travel."""
        group, questions = batch
        return group, questions.to(device)


def _as_it_is(batch: Any) -> Any:
    return batch
