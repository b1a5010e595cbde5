"""Prompts for families without an adapter, by what their processors have in common."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from other_models import OTHERS, write_other
from test_policy_families import clip, prepared_once, processor
from test_prompt_encoder import Tampered
from transformers import LlavaOnevisionImageProcessor, LlavaProcessor

from vcr1.config.entry import load_config
from vcr1.config.preflight import preflight
from vcr1.errors import UserError
from vcr1.policy import PromptEncoder, check_weights, load_encoder
from vcr1.policy.families import FAMILIES, family_named
from vcr1.policy.prompts.plain_encoding import PlainEncoder
from vcr1.records import Prompt
from vcr1.video import PatchGrid

OTHER = family_named("some_family")


@pytest.fixture(params=OTHERS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return write_other(request.param, tmp_path / "model")


def tiny() -> Any:
    return load_encoder("builtin:tiny").processor


def test_a_processor_with_a_size_of_its_own_resizes_to_it(folder: str) -> None:
    encoder = load_encoder(folder)
    assert isinstance(encoder, PlainEncoder)
    assert encoder.grid == PatchGrid(temporal=1, spatial=28)
    inputs = encoder(Prompt("What?"), clip())  # 4 frames of 8 x 12 pixels
    (pixels,) = (value for name, value in inputs.items() if name.startswith("pixel"))
    assert pixels.flatten(0, -4).shape == (4, 3, 16, 16)
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape


def test_a_processor_that_cuts_patches_takes_frames_as_they_are() -> None:
    own = FAMILIES["qwen3_vl"]
    known, encoder = PromptEncoder(processor("qwen3_vl"), own), PlainEncoder(processor("qwen3_vl"), OTHER)
    assert encoder.grid == PatchGrid(temporal=2, spatial=4)
    expected, found = known(Prompt("What?"), clip()), encoder(Prompt("What?"), clip())
    assert found.keys() >= set(own.inputs)
    for name in own.inputs:  # the times in the text among them
        assert torch.equal(found[name], expected[name]), name


def test_questions_about_one_clip_share_its_pixels_here_too(folder: str) -> None:
    prepared_once(load_encoder(folder))


def test_metadata_gives_the_frames_own_times() -> None:
    told = OTHER.metadata(clip())  # at 0, 1, 2.2 and 3 s of 4
    assert [index / told["fps"] for index in told["frames_indices"]] == [0.0, 1.0, 2.2, 3.0]
    assert told["total_num_frames"] / told["fps"] == told["duration"] == 4.0
    assert (told["height"], told["width"]) == (8, 12)


def test_special_tokens_in_a_query_are_no_tokens(folder: str) -> None:
    encoder = load_encoder(folder)
    first = encoder(Prompt("What?"), clip())["input_ids"]
    again = encoder(Prompt("What <|video_pad|><|image_pad|><|im_end|>?"), clip())["input_ids"]
    for token in ("<|video_pad|>", "<|image_pad|>", "<|im_end|>"):
        id_ = encoder.tokenizer.convert_tokens_to_ids(token)
        assert (again == id_).sum() == (first == id_).sum()


def test_any_special_token_is_taken_apart() -> None:
    plain = tiny()
    plain.tokenizer.add_special_tokens({"additional_special_tokens": ["<video>"]})
    assert PlainEncoder(plain, OTHER).cleaned("a <video> of <b>") == "a < video> of <b>"


def test_the_end_of_a_turn_is_what_the_chat_says() -> None:
    plain = tiny()
    end = plain.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert PlainEncoder(plain, OTHER).end_of_turn == end == plain.tokenizer.eos_token_id
    plain.tokenizer.eos_token = "<|endoftext|>"  # as in families that end a text otherwise than a turn
    encoder = PlainEncoder(plain, OTHER)
    assert encoder.end_of_turn == end
    assert end not in encoder.never_sampled(640)
    assert plain.tokenizer.eos_token_id in encoder.never_sampled(640)
    assert encoder.completion_ids("red")[-1] == end
    plain.chat_template = "{% for message in messages %}{{ message['content'][0]['text'] }}\n{% endfor %}"
    assert PlainEncoder(plain, OTHER).end_of_turn == plain.tokenizer.eos_token_id


def test_a_tokenizer_without_padding_pads_with_the_end() -> None:
    plain = tiny()
    assert PlainEncoder(plain, OTHER).padding == plain.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    plain.tokenizer.pad_token = None
    assert PlainEncoder(plain, OTHER).padding == plain.tokenizer.eos_token_id


def test_a_text_begins_once() -> None:
    plain = tiny()
    plain.tokenizer.bos_token = "<|im_start|>"  # what the chat begins with
    seen: list[dict[str, Any]] = []

    class Watched(Tampered):
        def __call__(self, **kwargs: Any) -> dict[str, Any]:
            seen.append(kwargs)
            return super().__call__(**kwargs)

    for start in ("<|im_start|>", "<|endoftext|>"):
        plain.tokenizer.bos_token = start
        PlainEncoder(Watched(plain), OTHER)(Prompt("When?"), None)  # type: ignore[arg-type]
    assert [one.get("add_special_tokens", True) for one in seen] == [False, True]


def test_an_input_that_is_no_tensor_is_named() -> None:
    encoder = PlainEncoder(Tampered(tiny(), sizes=["large"]), OTHER)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"returned sizes that is no tensor: family some_family needs"):
        encoder(Prompt("When?"), None)


# -------------------------------------------------------------------------------------- what is no such model


@pytest.mark.parametrize(
    ("missing", "named"),
    [("video_processor", "video input"), ("tokenizer", "tokenizer"), ("chat_template", "chat template")],
)
def test_a_processor_without_a_part_is_refused(missing: str, named: str) -> None:
    plain = tiny()
    setattr(plain, missing, None)
    with pytest.raises(UserError, match=rf"^family some_family cannot be used: its .* has no {named}$"):
        PlainEncoder(plain, OTHER)


def test_a_folder_whose_processor_takes_no_videos_is_named(tmp_path: Path) -> None:
    parts = {"image_processor": LlavaOnevisionImageProcessor(), "tokenizer": tiny().tokenizer}
    LlavaProcessor(**parts, chat_template=tiny().chat_template, patch_size=4).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    for look in (check_weights, load_encoder):
        with pytest.raises(UserError, match=rf"^model\.path={tmp_path}: family llava .* no video input"):
            look(str(tmp_path))


def test_another_family_passes_the_preflight(folder: str, small: list[str], tmp_path: Path) -> None:
    assert preflight(load_config(["experiment=demo", *small, f"model.path={folder}"], tmp_path / "run"))
