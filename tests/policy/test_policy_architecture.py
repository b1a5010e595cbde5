"""What the embedded model has not got: the 7B's shape, and the real model's kinds of attention."""

from typing import Any

import pytest
import torch
from policy_cases import generate, left_padded, plain_groups, roll
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from vcr1.policy import PromptEncoder, VideoPolicy, load_encoder
from vcr1.policy.prompts.layout import prompt_positions
from vcr1.policy.weights.loading import PARTS, freeze_parts
from vcr1.records import Prompt, PromptInputs, VideoClip


def config_7b() -> Qwen2_5_VLConfig:
    """The published configuration of Qwen2.5-VL-7B-Instruct, where it says something of the shape."""
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        tie_word_embeddings=False,
    )


def test_the_7b_has_what_the_policy_takes_hold_of() -> None:
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config_7b())
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(8.29e9, rel=0.001)
    policy = VideoPolicy(model, load_encoder("builtin:tiny"))
    assert policy.never_sampled[-1] == 152063  # the rows that pad the embedding table count as well
    frozen = []
    for part in PARTS:
        freeze_parts(model, [part])
        frozen.append(sum(p.numel() for p in model.parameters() if not p.requires_grad))
        assert policy.vision_is_frozen
    vision, with_merger, with_language, everything = frozen
    assert vision == with_merger == pytest.approx(0.677e9, rel=0.01)
    head = 152064 * 3584
    assert with_language == sum(p.numel() for p in model.parameters()) - head
    assert everything == sum(p.numel() for p in model.parameters())

    # Positions need the configuration alone: two steps of 10 x 17 tokens, 1.5 s apart.
    inputs = {
        "input_ids": torch.zeros(1, 352, dtype=torch.long),
        "mm_token_type_ids": torch.tensor([[0, *[2] * 340, *[0] * 11]]),
        "video_grid_thw": torch.tensor([[2, 20, 34]]),
        "second_per_grid_ts": torch.tensor([1.5]),
    }
    positions, next_position = prompt_positions(model, inputs)
    assert positions[0, 1:341].tolist() == [1] * 170 + [4] * 170
    assert positions[2, 1:171].tolist() == [*range(1, 18)] * 10
    assert positions[:, 341:].tolist() == [[*range(18, 29)]] * 3  # behind the last column, later than step 4
    assert next_position == 29


@pytest.fixture(params=["sdpa", "eager"])
def policy(request: pytest.FixtureRequest) -> VideoPolicy:
    """Random weights in the real architecture: grouped queries, windows, an untied head."""
    encoder = load_encoder("builtin:tiny")
    id_of = encoder.tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 640,
            "hidden_size": 96,
            "intermediate_size": 160,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "initializer_range": 0.15,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": encoder.end_of_turn,
            "pad_token_id": encoder.padding,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_heads": 4,
            "out_hidden_size": 96,
            "tokens_per_second": 2,
            "window_size": 56,  # 2 x 2 tokens: a frame of 3 x 4 is cut into four windows
            "fullatt_block_indexes": [1],
            "initializer_range": 0.15,
        },
        video_token_id=id_of("<|video_pad|>"),
        image_token_id=id_of("<|image_pad|>"),
        vision_start_token_id=id_of("<|vision_start|>"),
        vision_end_token_id=id_of("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    config._attn_implementation = request.param
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    assert model.config._attn_implementation == request.param
    return VideoPolicy(model, encoder)


def noise(encoder: PromptEncoder, text: str, frames: int, height: int, width: int) -> PromptInputs:
    """A question about noise, with frames a second apart."""
    pixels = torch.randint(
        0, 256, (frames, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(frames)
    )
    times = tuple(float(frame) for frame in range(frames))
    clip = VideoClip(pixels, tuple(range(0, 3 * frames, 3)), times, float(frames), 3 * frames)
    return encoder(Prompt(text), clip)


@torch.no_grad()
def test_the_real_architecture_rolls_out_and_scores_as_hugging_face_does(policy: VideoPolicy) -> None:
    inputs = [
        noise(policy.encoder, "What is this?", 6, 56, 84),
        noise(policy.encoder, "And what is seen here, in the video?", 4, 84, 112),
    ]
    assert [item["video_grid_thw"].tolist() for item in inputs] == [[[3, 4, 6]], [[2, 6, 8]]]
    settings: list[dict[str, Any]] = [{"temperature": 0}, {"temperature": 0.8}]
    for setting in settings:
        torch.manual_seed(1)
        expected = generate(policy, left_padded(policy.encoder, inputs), 3, max_new_tokens=16, **setting)
        torch.manual_seed(1)
        groups = roll(policy, inputs, 3, max_new_tokens=16, **setting)
        assert torch.equal(groups.completion_ids.flatten(0, 1), expected)
        assert len(set(expected.flatten().tolist())) > 10
        temperature = setting["temperature"] or 1.0
        scores = policy.logprobs(groups, policy.vision(inputs), temperature)
        assert (scores.logprobs - groups.logprobs).abs().max() <= 1e-5
        for place, logprobs, entropy in plain_groups(policy.model, groups, temperature):
            mask = groups.completion_mask[place]
            assert (scores.logprobs[place][mask] - logprobs).abs().max() <= 1e-5
            assert (scores.entropy[place][mask] - entropy).abs().max() <= 1e-5
