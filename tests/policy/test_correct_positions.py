"""A Hugging Face model with its checkpoint's own rule in it, and which models place text inside videos."""

import copy
import logging
import pickle
from typing import Any

import pytest
import torch
from other_models import llava_onevision
from policy_cases import left_padded
from published import placed, published_positions
from small_models import IMAGE, MODELS, VIDEO, small_policy, video_prompt
from transformers import (
    Ernie4_5_VLMoeConfig,
    Ernie4_5_VLMoeForConditionalGeneration,
    PaddleOCRVLConfig,
    PaddleOCRVLForConditionalGeneration,
)

from vcr1.errors import UserError
from vcr1.policy import correct_positions, load_encoder
from vcr1.policy.plain import warn_of_the_plain_path
from vcr1.policy.prompts.positions import text_overlaps_video


@pytest.mark.parametrize("family", MODELS)
@torch.no_grad()
def test_generate_and_forward_of_a_padded_batch_follow_the_published_rule(family: str) -> None:
    model = small_policy(family).model
    prompts = [
        video_prompt(family, [3, 4], [(30, 2, 2)]),  # one token a step: text by the frame is far too early
        video_prompt(family, [2, 1, 5], [(2, 4, 4), (12, 2, 2)]),
        video_prompt(family, [9, 2], [(3, 4, 6)]),
    ]
    batch = left_padded(load_encoder("builtin:tiny"), prompts)
    expected = published_positions(model, batch)
    before = model(**placed(model, batch)).logits
    greedy: dict[str, Any] = {"do_sample": False, "max_new_tokens": 4, "eos_token_id": 2, "pad_token_id": 0}
    wanted = model.generate(**placed(model, batch), **greedy)

    assert correct_positions(model) is model
    known = {name: value for name, value in batch.items() if not name.startswith("pixel")}
    found, deltas = model.model.get_rope_index(**known)
    kept = batch["attention_mask"].bool()
    assert torch.equal(found[:, kept], expected[:, kept])
    assert deltas[:, 0].tolist() == (expected[0, :, -1] + 1 - kept.sum(1)).tolist()
    model.model.rope_deltas = None
    assert torch.equal(model(**batch).logits[kept], before[kept])
    assert torch.equal(model.generate(**batch, **greedy), wanted)


def test_the_rule_of_adapters_is_given_where_the_base_states_another() -> None:
    # A word; 3 steps of one token, 2 positions apart; a word behind 5, or behind the frame's 1 x 1.
    ids, grids = torch.tensor([[21, VIDEO, VIDEO, VIDEO, 22]]), torch.tensor([[3, 2, 2]])
    last = {}
    for rule in ("largest", "frame"):
        model = correct_positions(MODELS["qwen2_5_vl"](), rule)
        positions, _ = model.model.get_rope_index(ids, video_grid_thw=grids)
        last[rule] = int(positions[0, 0, -1])
    assert last == {"largest": 6, "frame": 2}
    with pytest.raises(UserError, match="text_after_video=middle; vcr1 knows largest, frame"):
        correct_positions(MODELS["qwen2_5_vl"](), "middle")


def test_images_and_videos_take_turns() -> None:
    # A word; an image of 1 x 2 tokens; a word; 3 steps of one token, 1 s and so 2 positions apart; a word.
    model = correct_positions(MODELS["qwen2_5_vl"]())
    ids = torch.tensor([[20, IMAGE, IMAGE, 21, VIDEO, VIDEO, VIDEO, 22]])
    grids = {"image_grid_thw": torch.tensor([[1, 2, 4]]), "video_grid_thw": torch.tensor([[3, 2, 2]])}
    positions, deltas = model.model.get_rope_index(ids, **grids)
    assert positions[0, 0].tolist() == [0, 1, 1, 3, 4, 6, 8, 9]
    assert positions[2, 0].tolist() == [0, 1, 2, 3, 4, 4, 4, 9]
    assert deltas.tolist() == [[10 - 8]]
    assert model.model.get_rope_index(ids[:, :4], image_grid_thw=grids["image_grid_thw"])[1].tolist() == [[0]]


def test_a_checkpoint_of_the_other_rule_keeps_it_where_a_completion_goes_on_too() -> None:
    model = MODELS["qwen2_5_vl"]()
    model.config.text_after_video = "frame"
    correct_positions(model)
    ids = torch.tensor([[20, *[VIDEO] * 30, 21, 22]])
    positions, deltas = model.model.get_rope_index(ids, video_grid_thw=torch.tensor([[30, 2, 2]]))
    assert positions[0, 0, -2:].tolist() == [2, 3]  # 1 token wide, from position 1
    assert deltas.tolist() == [[4 - 33]]


def test_a_copy_asks_its_own_config() -> None:
    model = correct_positions(MODELS["qwen2_5_vl"]())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.model.get_rope_index.args == (other.model,)


def test_an_unknown_family_or_rule_is_refused() -> None:
    with pytest.raises(UserError, match=r"vcr1 knows the rules of glm4v, .* not of llava_onevision"):
        correct_positions(llava_onevision()[0])
    model = MODELS["qwen2_vl"]()
    model.config.text_after_video = "last"
    with pytest.raises(UserError, match="text_after_video=last"):
        correct_positions(model)


def other_relatives() -> dict[str, Any]:
    """Relatives of Qwen2-VL in transformers, without memory."""
    few: dict[str, Any] = {"text_config": {"num_hidden_layers": 1}}
    with torch.device("meta"):
        return {
            "paddleocr_vl": PaddleOCRVLForConditionalGeneration(PaddleOCRVLConfig(**few)),
            "ernie4_5_vl_moe": Ernie4_5_VLMoeForConditionalGeneration(Ernie4_5_VLMoeConfig(**few)),
        }


def test_a_family_that_places_text_inside_its_videos_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for name, model in other_relatives().items():
        assert text_overlaps_video(model), name
        caplog.clear()
        with caplog.at_level(logging.WARNING, "vcr1"):
            warn_of_the_plain_path(model)
        assert f"family {name}: transformers " in caplog.text
        assert "places the text behind a video inside the video's own times" in caplog.text
    model = MODELS["qwen2_5_vl"]()
    assert text_overlaps_video(model)
    assert not text_overlaps_video(correct_positions(model))
    for harmless in (MODELS["qwen3_vl"](), llava_onevision()[0]):
        assert not text_overlaps_video(harmless)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "vcr1"):
            warn_of_the_plain_path(harmless)
        assert "inside the video's own times" not in caplog.text
