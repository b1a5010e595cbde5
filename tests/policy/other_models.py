"""Random models of families without an adapter, with processors made of the embedded model's tokenizer."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
)

from vcr1.policy import load_encoder

IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
SIDE = {"height": 16, "width": 16}
TEXT = {
    "model_type": "qwen2",
    "vocab_size": 640,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
}


def llava_onevision() -> tuple[Any, Any]:
    """Model and processor: a clip is ``[1, T, 3, 16, 16]``, 4 tokens a frame and one behind them."""
    tiny = load_encoder("builtin:tiny").processor
    id_of = tiny.tokenizer.convert_tokens_to_ids
    tower = {"model_type": "siglip_vision_model", "patch_size": 4, "image_size": 16, "vision_use_head": False}
    model = LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=VISION | tower,
            text_config=TEXT,
            image_token_index=id_of(IMAGE),
            video_token_index=id_of(VIDEO),
            image_grid_pinpoints=[[16, 16]],
        )
    )
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=SIDE),
        video_processor=LlavaOnevisionVideoProcessor(size=SIDE),
        tokenizer=tiny.tokenizer,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=tiny.chat_template,
        image_token=IMAGE,
        video_token=VIDEO,
    )
    return model, processor


def internvl() -> tuple[Any, Any]:
    """Model and processor: a clip is ``[T, 3, 16, 16]``, 4 tokens a frame and words between them."""
    tiny = load_encoder("builtin:tiny").processor
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny.tokenizer.backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "start_image_token": "<|vision_start|>",
            "end_image_token": "<|vision_end|>",
            "context_image_token": IMAGE,
            "video_token": VIDEO,
        },
    )
    model = InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=VISION | {"patch_size": 4, "image_size": 16},
            text_config=TEXT,
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        )
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=SIDE),
        video_processor=InternVLVideoProcessor(size=SIDE),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=tiny.chat_template.replace("<|vision_start|><|video_pad|><|vision_end|>", VIDEO),
    )
    return model, processor


OTHERS = {"llava_onevision": llava_onevision, "internvl": internvl}


def write_other(family: str, folder: Path) -> str:
    """A folder with a random model of a family without an adapter."""
    torch.manual_seed(0)
    model, processor = OTHERS[family]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
