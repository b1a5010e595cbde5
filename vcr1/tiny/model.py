"""A Qwen2.5-VL of about 1.2 million parameters, with a tokenizer and a processor of its own.

It has every part of the real model (vision tower, merger, M-RoPE with real seconds, chat template) and
is small enough to learn on a CPU. The settings are those that a search over such models found to learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from vcr1.policy import PromptEncoder, VideoPolicy
from vcr1.policy.weights.loading import resolve

CARRIED = "builtin:tiny"
"""The base that the package carries, whose processor every tiny model has."""
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
WORDS = (
    r"\[\[0\.|\]?, \[?0\.|\]\]"
    r"|(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 splits text before merging: a digit is always a token of its own. But what stands between the
digits of boxes is kept together, which makes eight boxes 66 tokens instead of 200."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FRAME_PIXELS = 28 * 28


def build_processor(corpus: Sequence[str], vocabulary: int = 640) -> Qwen2_5_VLProcessor:
    """Return a processor whose byte-level BPE tokenizer was trained on ``corpus``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
    )
    tokenizer.train_from_iterator([*corpus, *corpus], trainer)
    size = {"shortest_edge": FRAME_PIXELS, "longest_edge": FRAME_PIXELS}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        video_processor=Qwen2VLVideoProcessor(size=size, do_sample_frames=False, cap_pixels_per_frame=False),
        # Not Qwen2Tokenizer, which on loading puts Qwen2's own splitting in the place of ours.
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            unk_token=None,
            bos_token=None,
            additional_special_tokens=SPECIAL_TOKENS[3:],
            model_max_length=4096,
        ),
        chat_template=CHAT_TEMPLATE,
    )


def tiny_config(
    processor: Qwen2_5_VLProcessor, hidden: int = 128, layers: int = 4, vision: int = 64
) -> Qwen2_5_VLConfig:
    """Configuration of the tiny model for a processor's vocabulary."""
    id_of = processor.tokenizer.convert_tokens_to_ids
    heads = 4
    half = hidden // heads // 2
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": -(-len(processor.tokenizer) // 64) * 64,
            "hidden_size": hidden,
            "intermediate_size": hidden * 3,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 4096,
            "initializer_range": 0.05,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [half // 2, half // 4, half - half // 2 - half // 4],
            },
            "bos_token_id": None,
            "eos_token_id": id_of("<|im_end|>"),
            "pad_token_id": id_of("<|endoftext|>"),
        },
        vision_config={
            "depth": 2,
            "hidden_size": vision,
            "intermediate_size": vision * 3,
            "num_heads": 4,
            "out_hidden_size": hidden,
            "tokens_per_second": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1],
            "initializer_range": 0.05,
        },
        image_token_id=id_of("<|image_pad|>"),
        video_token_id=id_of("<|video_pad|>"),
        vision_start_token_id=id_of("<|vision_start|>"),
        vision_end_token_id=id_of("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_policy(seed: int = 0) -> VideoPolicy:
    """Build the tiny model with fresh weights, float32, and the processor that the package carries.

    Its tokenizer learnt its words from the questions and answers of the synthetic world.
    """
    processor = AutoProcessor.from_pretrained(resolve(CARRIED))
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(tiny_config(processor)).float()
    model.generation_config.do_sample = False
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return VideoPolicy(model, PromptEncoder(processor))
