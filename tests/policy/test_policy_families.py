"""The relatives of Qwen2.5-VL, from a folder of weights and a processor to tokens."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from policy_cases import generate, plain_groups, roll
from published import published_positions
from small_models import MODELS, prompts
from transformers import (
    Glm4vProcessor,
    Glm4vVideoProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from vcr1.policy import PromptEncoder, VideoPolicy, load_encoder, load_policy
from vcr1.policy.families import FAMILIES
from vcr1.policy.generation.groups import completed_groups
from vcr1.policy.prompts.layout import prompt_positions
from vcr1.records import Prompt, VideoClip

PROCESSORS: dict[str, Any] = {
    "glm4v": (Glm4vProcessor, Glm4vVideoProcessor),
    "qwen2_vl": (Qwen2VLProcessor, Qwen2VLVideoProcessor),
    "qwen3_vl": (Qwen3VLProcessor, Qwen3VLVideoProcessor),
}


def processor(family: str) -> Any:
    """A processor with the embedded model's tokenizer and chat, for patches of 2 x 2 pixels."""
    own, video = PROCESSORS[family]
    tiny = load_encoder("builtin:tiny").processor
    chat = tiny.chat_template
    if family == "glm4v":
        named = ("begin_of_video", "end_of_video", "video", "begin_of_image", "end_of_image", "image", "user")
        tiny.tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in named]})
        for qwens, glms in (("vision_start", "begin_of_video"), ("vision_end", "end_of_video")):
            chat = chat.replace(f"<|{qwens}|>", f"<|{glms}|>")
        chat = chat.replace("<|video_pad|>", "<|video|>")
    patches = {"patch_size": 2, "merge_size": 2, "temporal_patch_size": 2}
    return own(
        image_processor=Qwen2VLImageProcessor(**patches),
        video_processor=video(**patches, do_sample_frames=False),
        tokenizer=tiny.tokenizer,
        chat_template=chat,
    )


def clip() -> VideoClip:
    """Four frames of 8 x 12 pixels at uneven times."""
    pixels = torch.randint(
        0, 256, (4, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return VideoClip(pixels, (0, 10, 22, 30), (0.0, 1.0, 2.2, 3.0), 4.0, 40)


@pytest.fixture(params=PROCESSORS)
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> VideoPolicy:
    """A random model with its processor, loaded from a folder."""
    torch.manual_seed(0)
    model = MODELS[request.param](640)
    model.generation_config.pad_token_id = 0
    own = processor(request.param)
    if request.param == "glm4v":
        model.config.image_token_id, model.config.video_token_id = own.image_token_id, own.video_token_id
        model.generation_config.eos_token_id = [2, own.tokenizer.convert_tokens_to_ids("<|user|>"), 70]
    model.save_pretrained(tmp_path)
    own.save_pretrained(tmp_path)
    return load_policy(str(tmp_path)).eval()


@torch.no_grad()
def test_a_folder_rolls_out_and_scores_as_hugging_face_does(policy: VideoPolicy) -> None:
    inputs = policy.encoder(Prompt("What is this?"), clip())
    assert tuple(inputs) == FAMILIES[policy.model.config.model_type].inputs
    for settings in ({"temperature": 0}, {"temperature": 1.3}):
        torch.manual_seed(5)
        expected = generate(policy, inputs, 3, max_new_tokens=12, **settings)
        torch.manual_seed(5)
        groups = roll(policy, [inputs], 3, max_new_tokens=12, **settings)
        assert torch.equal(groups.completion_ids[0], expected)
        scores = policy.logprobs(groups, policy.vision([inputs]))
        for place, logprobs, _ in plain_groups(policy.model, groups):
            assert (scores.logprobs[place][: len(logprobs)] - logprobs).abs().max() <= 1e-5


def test_glm_reads_the_seconds_of_each_pair_of_frames_behind_it() -> None:
    encoder = PromptEncoder(processor("glm4v"), FAMILIES["glm4v"])
    inputs = encoder(Prompt("What?"), clip())
    text = encoder.tokenizer.decode(inputs["input_ids"][0])
    # The first frames of the pairs lie at 0.0 and 2.2 s; GLM writes whole seconds.
    pair = "<|begin_of_image|>" + "<|image|>" * 6 + "<|end_of_image|>"
    assert f"<|begin_of_video|>{pair}0{pair}2<|end_of_video|>" in text
    assert int((inputs["mm_token_type_ids"] == 2).sum()) == 12


def test_completions_end_at_every_token_that_the_generation_config_names(policy: VideoPolicy) -> None:
    if policy.model.config.model_type != "glm4v":
        assert policy.encoder.stops == (policy.encoder.end_of_turn,)
        return
    user = policy.encoder.tokenizer.convert_tokens_to_ids("<|user|>")
    assert policy.encoder.end_of_turn == user  # what a taught answer ends with
    assert policy.encoder.stops == (user, 2, 70)
    assert not {user, 2, 70} & set(policy.never_sampled)
    ids = torch.tensor([[9, 70, 0], [9, 9, 2], [user, 0, 0], [9, 9, 9]])
    groups = completed_groups(policy.encoder, [{}], 4, ids, torch.zeros(4, 3))
    assert groups.lengths[0].tolist() == [2, 3, 1, 3]
    assert groups.truncated[0].tolist() == [False, False, False, True]


def test_times_are_told_to_the_nearest_millisecond() -> None:
    # 1000 · 1.001 is a little less than 1001 in binary, 1000 · 2.0009999 a little more than 2000.
    times = (0.0, 1.001, 2.0009999, 3.0)
    told = FAMILIES["qwen3_vl"].metadata(replace(clip(), timestamps=times))
    assert told["frames_indices"] == [0, 1001, 2001, 3000]
    assert told["fps"] == 1000.0


def test_qwen3_reads_the_frames_own_times() -> None:
    encoder = PromptEncoder(processor("qwen3_vl"), FAMILIES["qwen3_vl"])
    inputs = encoder(Prompt("What?"), clip())
    text = encoder.tokenizer.decode(inputs["input_ids"][0])
    # Two frames to a step: (0.0 + 1.0) / 2 and (2.2 + 3.0) / 2. As one tenth is not written exactly,
    # transformers' own frames / fps would give 2.6 only for frames that are evenly spaced.
    assert text.count("<|video_pad|>") == 12
    assert text.index("<0.5 seconds>") < text.index("<2.6 seconds>")


@pytest.mark.parametrize("family", MODELS)
def test_positions_are_the_published_ones(family: str) -> None:
    model = MODELS[family]()
    for inputs in prompts(family):
        positions, next_position = prompt_positions(model, inputs)
        assert torch.equal(positions, published_positions(model, inputs)[:, 0])
        assert next_position == int(positions.max()) + 1


@pytest.mark.parametrize("family", MODELS)
def test_lora_adapts_the_language_models_projections(family: str) -> None:
    names = [name for name, _ in MODELS[family]().named_modules()]
    adapted = [name for name in names if re.fullmatch(FAMILIES[family].lora_targets, name)]
    assert len(adapted) == 3 * (6 if family == "glm4v" else 7)  # layers and projections
    assert not any("visual" in name for name in adapted)


def prepared_once(encoder: PromptEncoder, shown: VideoClip | None = None) -> None:
    """Questions about one clip are encoded as each alone, and its pixels prepared once."""
    prompts = [Prompt("When?"), Prompt("Where is the red one, then?", system="Be brief."), Prompt("?")]
    shown = shown or clip()
    expected = [encoder(prompt, shown) for prompt in prompts]
    works = encoder.processor.video_processor
    calls: list[Any] = []

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(works, name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return works(*args, **kwargs)

    encoder.processor.video_processor = Counted()
    found = encoder.about(prompts, shown)
    assert len(calls) == 1
    for ours, alone in zip(found, expected, strict=True):
        assert list(ours) == list(alone)
        assert all(torch.equal(ours[name], alone[name]) for name in ours)
    assert len(calls) == 1
    encoder(prompts[0], shown)  # and it keeps nothing
    assert len(calls) == 2


@pytest.mark.parametrize("name", PROCESSORS)
def test_questions_about_one_clip_share_its_pixels(name: str) -> None:
    prepared_once(PromptEncoder(processor(name), FAMILIES[name]))


def test_questions_about_one_clip_share_its_pixels_in_the_embedded_model() -> None:
    large = clip()
    frames = large.frames.repeat_interleave(7, 2).repeat_interleave(7, 3)  # of 56 x 84 pixels
    prepared_once(load_encoder("builtin:tiny"), replace(large, frames=frames))
