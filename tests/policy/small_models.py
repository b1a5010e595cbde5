"""Random models of each family, a few layers deep, and prompts about noise, made without a processor."""

from typing import Any

import torch
from published import placed
from torch import Tensor
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from vcr1.policy import Sampling, VideoPolicy, load_encoder
from vcr1.policy.generation.sampling import chances
from vcr1.records import PromptInputs, RolloutGroups

VOCABULARY = 128
VIDEO, IMAGE, START, END = 7, 6, 3, 4
"""The placeholder of a video's token, and what stands around a video."""

TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
TOKENS = {
    "video_token_id": VIDEO,
    "image_token_id": IMAGE,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}
VISION = {"depth": 2, "num_heads": 2, "initializer_range": 0.3, "patch_size": 2}
GRID_SECONDS = [1.5, 0.8]
"""Seconds of a grid step of the first video and the second."""

MODELS: dict[str, Any] = {  # each from the size of its vocabulary
    "qwen2_5_vl": lambda size=VOCABULARY: Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=TEXT | {"vocab_size": size},
            vision_config=VISION
            | {
                "hidden_size": 16,
                "intermediate_size": 24,
                "out_hidden_size": 48,
                "window_size": 8,  # 2 x 2 tokens
                "fullatt_block_indexes": [1],
                "tokens_per_second": 2,
            },
            **TOKENS,
        )
    ),
    "glm4v": lambda size=VOCABULARY: Glm4vForConditionalGeneration(
        Glm4vConfig(
            text_config=TEXT
            | {
                "vocab_size": size,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e4,
                    "partial_rotary_factor": 0.5,
                    "mrope_section": [1, 1, 0],
                },
            },
            vision_config=VISION
            | {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 48, "image_size": 16},
            # Videos are written with the tokens of images. Transformers 5.23 counts the others in `generate`,
            # finds none, and fails for every video; so both are the same here.
            **TOKENS | {"image_token_id": VIDEO},
        )
    ),
    "qwen2_vl": lambda size=VOCABULARY: Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            text_config=TEXT | {"vocab_size": size},
            vision_config=VISION | {"embed_dim": 16, "hidden_size": 48},
            **TOKENS,
        )
    ),
    "qwen3_vl": lambda size=VOCABULARY: Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config=TEXT | {"vocab_size": size},
            vision_config=VISION
            | {
                "hidden_size": 16,
                "intermediate_size": 24,
                "out_hidden_size": 48,
                "deepstack_visual_indexes": [0, 1],
                "num_position_embeddings": 16,
            },
            **TOKENS,
        )
    ),
}


def small_policy(family: str, form: str = "auto", dtype: torch.dtype = torch.float32) -> VideoPolicy:
    """A random model in evaluation mode; the tokenizer of the embedded model reads its tokens."""
    torch.manual_seed(0)
    model = MODELS[family]().to(dtype).eval()
    with torch.no_grad():  # biases, and no flat attention
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return VideoPolicy(model, load_encoder("builtin:tiny"), form)


def video_prompt(
    family: str, texts: list[int], grids: list[tuple[int, int, int]], dtype: torch.dtype = torch.float32
) -> PromptInputs:
    """``texts[0]`` words, then each video followed by as many words as the next entry says.

    Args:
        family: Qwen3-VL and GLM-4.1V have words between the frames.
        texts: number of words before, between and after the videos.
        grids: patches in time, height and width of each video.
        dtype: of the pixels.
    """
    rng = torch.Generator().manual_seed(sum(texts) + len(grids))

    def words(count: int) -> list[int]:
        return torch.randint(20, 60, (count,), generator=rng).tolist()

    ids = words(texts[0])
    for (steps, height, width), count in zip(grids, texts[1:], strict=True):
        frame = [VIDEO] * (height * width // 4)
        if family in ("qwen3_vl", "glm4v"):
            for _ in range(steps):
                ids += [*words(2), START, *frame, END]
        else:
            ids += [START, *frame * steps, END]
        ids += words(count)
    inputs: PromptInputs = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids)).long(),
    }
    if grids:
        patches = sum(steps * height * width for steps, height, width in grids)
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == VIDEO).long() * 2
        inputs["pixel_values_videos"] = torch.randn(patches, 3 * 2 * 2 * 2, generator=rng).to(dtype)
        inputs["video_grid_thw"] = torch.tensor(grids)
        if family == "qwen2_5_vl":
            inputs["second_per_grid_ts"] = torch.tensor(GRID_SECONDS[: len(grids)])
    return inputs


def prompts(family: str, dtype: torch.dtype = torch.float32) -> list[PromptInputs]:
    """Four prompts of different lengths: with one video, with two, without any, with a longer one."""
    return [
        video_prompt(family, [3, 4], [(2, 4, 6)], dtype),
        video_prompt(family, [2, 1, 5], [(2, 4, 4), (3, 4, 8)], dtype),
        video_prompt(family, [9], [], dtype),
        video_prompt(family, [5, 2], [(6, 6, 4)], dtype),
    ]


def ragged(inputs: list[PromptInputs], lengths: list[list[int]]) -> RolloutGroups:
    """Groups of random completions of the given lengths."""
    longest = max(map(max, lengths))
    rng = torch.Generator().manual_seed(9)
    ids = torch.randint(20, 60, (len(lengths), len(lengths[0]), longest), generator=rng)
    mask = torch.arange(longest) < torch.tensor(lengths)[..., None]
    return RolloutGroups(
        inputs=inputs,
        completion_ids=ids.masked_fill(~mask, 0),
        completion_mask=mask,
        logprobs=torch.zeros(mask.shape),
        truncated=torch.zeros(mask.shape[:2], dtype=torch.bool),
        texts=[[""] * len(group) for group in lengths],
    )


@torch.no_grad()
def expanded_rollout(
    policy: VideoPolicy, inputs: list[PromptInputs], num_generations: int, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """What a rollout has to equal: a plain forward of every row for every token, every row kept to the end.

    Returns:
        Ids and log-probs ``[P·G, C]``.
    """
    rows = [index for index in range(len(inputs)) for _ in range(num_generations)]
    chance = chances(None, len(inputs), num_generations, sampling)
    finished = torch.zeros(len(rows), dtype=torch.bool)
    sampled: list[Tensor] = []
    scores: list[Tensor] = []
    for _ in range(sampling.max_new_tokens):
        so_far = torch.stack(sampled, 1) if sampled else torch.empty(len(rows), 0).long()
        # Nothing shared, nothing padded; what is drawn for a row that has ended is thrown away.
        logits = [
            torch.zeros(VOCABULARY) if ended else next_logits(policy, inputs[row], completion)
            for row, completion, ended in zip(rows, so_far, finished, strict=True)
        ]
        both = torch.stack(logits)
        nothing = torch.empty(len(rows), 0).long()
        processors = sampling.processors(policy.never_sampled, both.device)
        processed: Tensor = processors(nothing, both.clone())  # type: ignore[arg-type, assignment]
        ids = processed.argmax(-1)
        if sampling.temperature > 0:
            # The first token whose share of the running sum exceeds the random number.
            upto = processed.double().softmax(-1).cumsum(-1)
            ids = (upto <= chance[:, len(sampled), None]).sum(-1)
        ids = ids.masked_fill(finished, policy.encoder.padding)
        logs = (both / (sampling.temperature or 1.0)).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        sampled.append(ids)
        scores.append(logs.masked_fill(finished, 0.0))
        finished = finished | policy.encoder.ends(ids)
        if finished.all():
            break
    return torch.stack(sampled, 1), torch.stack(scores, 1)


def next_logits(policy: VideoPolicy, inputs: PromptInputs, completion: Tensor) -> Tensor:
    """Logits ``[V]`` of a plain forward of the processor's dict with a completion ``[c]`` behind it."""
    longer = dict(inputs)
    for name, tail in (
        ("input_ids", completion),
        ("attention_mask", torch.ones_like(completion)),
        ("mm_token_type_ids", torch.zeros_like(completion)),
    ):
        if name in inputs:
            longer[name] = torch.cat([inputs[name], tail[None]], 1)
    policy.model.model.rope_deltas = None  # what the model keeps of another prompt
    logits: Tensor = policy.model(**placed(policy.model, longer), use_cache=False).logits[0, -1].float()
    return logits
