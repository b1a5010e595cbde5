"""A small Qwen2.5-VL with random weights, what it is asked, and the parts of a step that all forms share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
)

from vcr1.objectives import policy_loss
from vcr1.policy import PromptEncoder, correct_positions
from vcr1.records import PromptInputs
from vcr1.tiny.model import build_processor

WORDS = 148
"""Words of a prompt, half of them before its video."""
LEARNING_RATE, MAX_NORM = 1e-6, 1.0


class Size(NamedTuple):
    """Sizes of a model: of its language part, then of its vision tower."""

    vocabulary: int = 4096
    hidden: int = 256
    layers: int = 2
    intermediate: int = 1360
    heads: int = 4
    key_heads: int = 2
    vision_hidden: int = 112
    vision_layers: int = 3
    vision_intermediate: int = 300


FULL = Size()
WIDE = Size(4096, 384, 3, 2032, 6, 2, 160, 4, 428)
TOY = Size(512, 48, 2, 64, 6, 2, 16, 2, 24)


class EndlessEncoder(PromptEncoder):
    """An encoder whose completions never end before their limit, so that all forms compute as many tokens."""

    def never_sampled(self, vocabulary: int) -> list[int]:
        """The end-of-turn too."""
        return sorted([*super().never_sampled(vocabulary), self.end_of_turn])


def make_processor(vocabulary: int) -> Qwen2_5_VLProcessor:
    """A processor that leaves images at their size, and whose tokenizer has exactly ``vocabulary`` tokens."""
    processor = build_processor(["a b c"], vocabulary=300)
    missing = vocabulary - len(processor.tokenizer)
    processor.tokenizer.add_tokens([f"<word{number}>" for number in range(missing)])
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 2**14}
    processor.image_processor = Qwen2VLImageProcessor(size=size)
    return processor


def make_model(processor: Qwen2_5_VLProcessor, size: Size, seed: int = 0) -> Any:
    """A Qwen2.5-VL for conditional generation, float32, in evaluation mode: there is nothing to drop."""
    id_of = processor.tokenizer.convert_tokens_to_ids
    half = size.hidden // size.heads // 2
    rest = half - half // 4
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": size.vocabulary,
            "hidden_size": size.hidden,
            "intermediate_size": size.intermediate,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.key_heads,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [half // 4, rest // 2, rest - rest // 2],
            },
            "bos_token_id": None,
            "eos_token_id": processor.tokenizer.eos_token_id,
            "pad_token_id": processor.tokenizer.pad_token_id,
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_intermediate,
            "num_heads": 4,
            "out_hidden_size": size.hidden,
            "fullatt_block_indexes": [size.vision_layers - 1],
            "tokens_per_second": 2,
        },
        image_token_id=id_of("<|image_pad|>"),
        video_token_id=id_of("<|video_pad|>"),
        vision_start_token_id=id_of("<|vision_start|>"),
        vision_end_token_id=id_of("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).float().eval()
    with torch.no_grad():  # no flat attention
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 1 / math.sqrt(parameter.shape[1]))
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return correct_positions(model)  # all forms compute from the same positions


def video_prompt(model: Any, grid: tuple[int, int, int], words: int = WORDS, seed: int = 0) -> PromptInputs:
    """Random words around a video of noise.

    Args:
        model: whose placeholders are used.
        grid: patches in time, height and width; four of them make a token.
        words: how many.
        seed: of words and noise.
    """
    config = model.config
    rng = torch.Generator().manual_seed(seed)
    text = torch.randint(20, 256, (words,), generator=rng).tolist()
    video = [config.video_token_id] * (math.prod(grid) // 4)
    video = [config.vision_start_token_id, *video, config.vision_end_token_id]
    ids = torch.tensor([[*text[: words // 2], *video, *text[words // 2 :]]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == config.video_token_id).long() * 2,
        "pixel_values_videos": torch.randn(math.prod(grid), 3 * 2 * 14 * 14, generator=rng),
        "video_grid_thw": torch.tensor([grid]),
        "second_per_grid_ts": torch.tensor([1.0]),
    }


@dataclass(frozen=True, slots=True)
class Learner:
    """A model in training, its frozen reference, and what they are trained with.

    Attributes:
        model: the policy: of this package, or a Hugging Face model, as the form wants it.
        reference: the same, frozen.
        optimizer: of the model's parameters.
        group: completions of a prompt (G).
        length: tokens of each (C).
    """

    model: Any
    reference: Any
    optimizer: torch.optim.Optimizer
    group: int
    length: int

    def backward(self, logprobs: Tensor, reference: Tensor) -> None:
        """GRPO's loss of ``[G, C]`` log-probs under made-up advantages, and its gradient."""
        advantages = torch.linspace(-1, 1, self.group, device=logprobs.device)
        mask = torch.ones_like(logprobs, dtype=torch.bool)
        policy_loss(logprobs[None], advantages[None], mask[None], reference=reference[None]).loss.backward()

    def update(self) -> None:
        """Clip the gradient, move the weights and drop the gradient."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def make_learner(model: Any, reference: Any, group: int, length: int) -> Learner:
    """A learner over a model and the model that it is held near, which is frozen here."""
    reference.requires_grad_(False)
    return Learner(model, reference, torch.optim.AdamW(model.parameters(), LEARNING_RATE), group, length)
