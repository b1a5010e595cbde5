"""What a step computes, in which precision, and how it is spread over GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from vcr1.policy.budget import plan_passes

FLOAT = 4
"""Bytes of what is computed in float32 whatever the precision: norms, softmax, adapters, pixels."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One micro-batch on one rank, at its largest.

    Attributes:
        prompts: prompts (P).
        vision_tokens: tokens of a prompt's video.
        text_tokens: its other tokens.
        steps: temporal patches of a video.
        group: completions per prompt (G).
        completion: tokens of the longest completion (C); all are taken to be so long.
        expected: tokens of a usual one, by which the work is counted.
        max_tokens: tokens in a forward of a training pass; None for no limit.
        samples: completions are sampled and judged (GRPO and relatives), not given (SFT).
        reference: bytes are kept, and work is done, for a second model.
        updates: training passes on every rollout.
        eval_prompts: prompts that are answered at once in an evaluation.
        micro_batches: micro-batches in an update.
        rows: completions decoded at once; None for no bound.
    """

    prompts: int
    vision_tokens: int
    text_tokens: int
    steps: int
    group: int
    completion: int
    expected: int
    max_tokens: int | None = None
    samples: bool = True
    reference: bool = True
    updates: int = 1
    eval_prompts: int = 4
    micro_batches: int = 1
    rows: int | None = None

    @property
    def decoded(self) -> tuple[int, int]:
        """Return prompts decoded at once, and completions of each: an update is sampled in one go."""
        prompts, group = (
            (self.prompts * self.micro_batches, self.group) if self.samples else (self.eval_prompts, 1)
        )
        rows = min(self.rows or prompts * group, prompts * group)
        return max(1, rows // group), min(group, rows)

    @property
    def prompt(self) -> int:
        """Return tokens of one prompt (L)."""
        return self.vision_tokens + self.text_tokens

    @property
    def answer(self) -> int:
        """Tokens of a completion in a training pass: the longest that is sampled, or a usual one given."""
        return self.completion if self.samples else self.expected

    def passes(self, completion: int | None = None) -> list[tuple[int, list[int]]]:
        """Tokens of each training pass: those of its prompts, and those of completions for each prompt.

        Args:
            completion: tokens of a completion; None for the longest that is trained on.
        """
        length = self.answer if completion is None else completion
        planned = plan_passes(
            [self.prompt] * self.prompts, [[length] * self.group] * self.prompts, self.max_tokens
        )
        return [
            (self.prompt * len(one.members), [len(rows) * length for rows in one.members.values()])
            for one in planned
        ]


@dataclass(frozen=True, slots=True)
class WeightSizes:
    """Parameters, and which of them are trained.

    Attributes:
        total: of the model, adapters left out.
        trained: of these, those that are trained.
        vision: of the vision tower, its mergers included.
        head: of the LM head; of the embeddings too where the two are tied.
        adapters: of LoRA's, all trained; 0 without.
        vision_trained: something in the vision tower is trained.
        head_trained: the LM head is trained.
        language_trained: the language model's own matrices are trained.
        rank: of the adapters.
    """

    total: int
    trained: int
    vision: int
    head: int
    adapters: int = 0
    vision_trained: bool = True
    head_trained: bool = True
    language_trained: bool = True
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes of numbers.

    Attributes:
        weights: of a weight that is stored, its gradient and each of its optimizer's two moments.
        compute: of a number in matrix products.
        stream: of a weight in use and of a hidden state: as stored, but where weights are gathered.
    """

    weights: int = 4
    compute: int = 4
    stream: int = 4

    @property
    def autocast(self) -> bool:
        """Return whether weights and hidden states are copied for matrix products."""
        return self.compute < self.stream


@dataclass(frozen=True, slots=True)
class PlannedSharding:
    """How a run is spread over GPUs.

    Attributes:
        ranks: processes, one GPU each.
        shards: over how many of them weights, gradients, moments and reference are cut up.
        buckets: copies of the gradients beside themselves: 1 with DDP's own buckets, 0 where gradients lie
            in them or there is one rank only.
        kept: gradients stay allocated between updates, as DDP's buckets do.
        offload: weights, gradients and moments lie in the host's memory.
        on_gpu: the run is on GPUs; on a CPU the optimizer goes parameter by parameter.
    """

    ranks: int = 1
    shards: int = 1
    buckets: int = 0
    kept: bool = False
    offload: bool = False
    on_gpu: bool = True
