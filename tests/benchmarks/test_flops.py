"""The formulas against torch's own count of the operations in a small model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flops import (
    causal_pairs,
    head_flops,
    language_flops,
    pairs_flops,
    training_flops,
    tree_pairs,
    vision_flops,
    window_pairs,
)
from gpu_steps import STEPS, TRAINING, make_learner
from shapes import PAPER, SHAPES, Setting, VisionShape, build_model, noise_prompt

torch.set_num_threads(1)

TOY = SHAPES["toy"]
SETTING = Setting(grid=(2, 12, 20), words=10, group=3, length=8)
CPU = torch.device("cpu")


@dataclass
class Counter:
    """Counts operations where a clock would take the time."""

    device: torch.device = CPU
    flops: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TRAINING, 0))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        counter = FlopCounterMode(display=False)
        with counter, sdpa_kernel(SDPBackend.MATH):
            yield
        self.flops[name] = counter.get_total_flops()


@torch.no_grad()
def angle_flops(model: Any) -> int:
    """Operations of a token's rotary angles: 96 in transformers 5.17, whose product of matrices torch counts.

    None in those that multiply number by number.
    """
    counter = Counter()
    with counter.phase("policy"):
        model.model.language_model.rotary_emb(torch.zeros(1), torch.zeros(3, 1, 1, dtype=torch.long))
    return counter.flops["policy"]


def test_pairs_are_counted_by_hand() -> None:
    assert causal_pairs(4) == 1 + 2 + 3 + 4
    # Two completions of 3 tokens behind 4: each token sees the prompt and its own 1, 2 or 3.
    assert tree_pairs(4, 2, 3) == 10 + 2 * (3 * 4 + 1 + 2 + 3)
    # Frames of 12 x 20 patches in windows of 8: rows of 8 and 4, columns of 8, 8 and 4.
    assert window_pairs(VisionShape(), (2, 12, 20)) == 2 * (64 + 16) * (64 + 64 + 16)


def test_the_papers_setting_is_its_frame_budget() -> None:
    assert PAPER.prompt(VisionShape()) == 3584 + 148 + 2


def test_a_7b_model_needs_what_its_weights_say() -> None:
    """Two operations for each weight of the language model and a token; 6.5 billion, and 0.5 in the head."""
    shape = SHAPES["7b"]
    weights = 28 * (3584 * (3584 + 512 + 512 + 3584) + 3 * 3584 * 18944)
    assert language_flops(shape, 1, 0) == 2 * weights == pytest.approx(2 * 6.5e9, rel=0.01)
    assert head_flops(shape, 1) == 2 * 3584 * 152_064


def test_shapes_have_the_sizes_that_their_names_say() -> None:
    """Published numbers of parameters: 3.75 and 8.29 billion."""
    for name, billions in (("3b", 3.755), ("7b", 8.292)):
        model = build_model(SHAPES[name], torch.device("meta"), torch.bfloat16)
        assert sum(weight.numel() for weight in model.parameters()) / 1e9 == pytest.approx(billions, abs=1e-3)
        assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_sharing_saves_more_than_tokens_and_less_than_the_whole_group() -> None:
    """Tokens of the language model fall by (P + C) / (P/G + C), those of the vision tower by G."""
    prompt, group, length = 3734, 8, 200
    for rank in (None, 16):
        needed = [training_flops(SHAPES["7b"], PAPER, shared=shared, rank=rank) for shared in (False, True)]
        assert (prompt + length) / (prompt / group + length) < needed[0] / needed[1] < group


@torch.no_grad()
def test_forwards_need_what_torch_counts() -> None:
    model = build_model(TOY, CPU, torch.float32)
    inputs = noise_prompt(TOY, SETTING, CPU, torch.float32)
    counter = Counter()
    with counter.phase("vision"):
        model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    assert counter.flops["vision"] == vision_flops(TOY, SETTING.grid)
    tokens = inputs["input_ids"].shape[1]
    assert tokens == SETTING.prompt(TOY.vision) == 132
    with counter.phase("policy"):
        model(input_ids=inputs["input_ids"], use_cache=False)
    # Torch counts what the plain kernel computes: all pairs, those ahead as well.
    needed = language_flops(TOY, tokens, tokens**2) + head_flops(TOY, tokens)
    assert counter.flops["policy"] == needed + tokens * angle_flops(model)


@pytest.mark.parametrize("form", ["shared", "repeated"])
@pytest.mark.parametrize("rank", [None, 4])
def test_the_training_part_needs_what_torch_counts(form: str, rank: int | None) -> None:
    learner = make_learner(TOY, SETTING, rank, CPU)
    if rank is None:
        learner.reference.attention_form = "split"
    learner.model.attention_form = "split"  # which this prompt is too short for
    learner.model.model.gradient_checkpointing_disable()  # which computes again what is not needed
    counter = Counter()
    STEPS[form](learner, noise_prompt(TOY, SETTING, CPU, torch.bfloat16), counter)  # type: ignore[arg-type]
    counted = sum(counter.flops[name] for name in TRAINING)
    # A reference forward, a forward, and a backward of two: attention has no weights to freeze.
    ahead = 4 * pairs_flops(TOY, pairs_ahead(form))
    needed = training_flops(TOY, SETTING, shared=form == "shared", rank=rank)
    if rank is None:
        # Of the reference and of the policy; a backward has no use for them.
        angles = 2 * tokens_of(form) * angle_flops(learner.model.model)
        assert counted == needed + ahead + angles
    else:  # below its first adapters a model has no backward at all: a part of one layer in three
        assert counted == pytest.approx(needed + ahead, rel=0.03)


def tokens_of(form: str) -> int:
    """Tokens of a forward of the language model."""
    prompt, group, length = SETTING.prompt(TOY.vision), SETTING.group, SETTING.length
    return prompt + group * length if form == "shared" else group * (prompt + length)


def pairs_ahead(form: str) -> int:
    """Pairs that the plain kernel computes although no token looks ahead."""
    prompt, group, length = SETTING.prompt(TOY.vision), SETTING.group, SETTING.length
    behind = group * length
    if form == "shared":
        return prompt**2 + behind * (prompt + length) - tree_pairs(prompt, group, length)
    return group * ((prompt + length) ** 2 - causal_pairs(prompt + length))
