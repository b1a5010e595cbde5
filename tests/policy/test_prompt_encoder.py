import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from policy_cases import SHORT, make_clip, question

from vcr1.errors import UserError
from vcr1.policy import PromptEncoder, VideoPolicy, load_encoder
from vcr1.policy.families import FAMILIES
from vcr1.records import Prompt, VideoClip
from vcr1.video import PatchGrid


@pytest.fixture
def encoder() -> PromptEncoder:
    return load_encoder("builtin:tiny")


class Tampered:
    """A processor whose output is changed before it is handed over."""

    def __init__(self, processor: Any, **changes: Any) -> None:
        self._processor = processor
        self._changes = changes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, **kwargs: Any) -> dict[str, Any]:
        output = dict(self._processor(**kwargs)) | self._changes
        return {name: value for name, value in output.items() if value is not None}


def test_a_video_prompt_has_all_inputs(encoder: PromptEncoder, clips: Path) -> None:
    inputs = encoder(SHORT, make_clip(clips, 6.0))
    assert tuple(inputs) == FAMILIES["qwen2_5_vl"].inputs
    length = inputs["input_ids"].shape[1]
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        assert (inputs[name].shape, inputs[name].dtype) == ((1, length), torch.int64)
    assert inputs["attention_mask"].tolist() == [[1] * length]
    # 12 frames at 2 fps: 6 steps of 2 x 2 patches, merged into 6 tokens of a second each.
    assert inputs["video_grid_thw"].tolist() == [[6, 2, 2]]
    assert inputs["pixel_values_videos"].shape == (24, 3 * 2 * 14 * 14)
    assert inputs["second_per_grid_ts"].tolist() == [1.0]
    video = encoder.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    places = (inputs["input_ids"][0] == video).tolist()
    assert places == [False] * 4 + [True] * 6 + [False] * (length - 10)
    assert inputs["mm_token_type_ids"][0].tolist() == [2 if place else 0 for place in places]


def test_the_prompt_is_the_models_own_chat(encoder: PromptEncoder, clips: Path) -> None:
    inputs = encoder(Prompt("When?", system="You are a helpful assistant."), make_clip(clips, 4.0))
    assert encoder.tokenizer.decode(inputs["input_ids"][0]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|>" + "<|video_pad|>" * 4 + "<|vision_end|>When?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_frames_are_taken_as_they_are(encoder: PromptEncoder) -> None:
    # Neither resized nor sampled again: 6 frames of 56 x 84 stay 3 steps of 4 x 6 patches. A grey of
    # 255 · mean is 0 to the model, in each colour.
    means = (0.48145466, 0.4578275, 0.40821073)
    grey = torch.tensor([round(255 * mean) for mean in means], dtype=torch.uint8)
    frames = grey[None, :, None, None].expand(6, 3, 56, 84)
    clip = VideoClip(frames, tuple(range(0, 60, 10)), (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), 6.0, 60)
    inputs = encoder(SHORT, clip)
    assert inputs["video_grid_thw"].tolist() == [[3, 4, 6]]
    assert inputs["second_per_grid_ts"].tolist() == [2.0]  # 6 frames over 6 s, two to a step
    assert inputs["pixel_values_videos"].shape == (72, 1176)
    assert inputs["pixel_values_videos"].abs().max() < 0.01


@pytest.mark.parametrize(
    ("seconds", "fps", "interval"),
    [(6.0, 1, 2.0), (6.0, 2, 1.0), (6.0, 3, 2 / 3), (5.5, 2, 1.1), (7.0, 0.7, 3.5)],
)
def test_times_are_the_clips(
    encoder: PromptEncoder, clips: Path, seconds: float, fps: float, interval: float
) -> None:
    inputs = encoder(SHORT, make_clip(clips, seconds, fps))
    assert inputs["second_per_grid_ts"].tolist() == pytest.approx([interval])


@pytest.mark.parametrize("name", [name for name in FAMILIES["qwen2_5_vl"].inputs if name != "input_ids"])
def test_an_input_that_is_left_out_is_named(encoder: PromptEncoder, clips: Path, name: str) -> None:
    tampered = PromptEncoder(Tampered(encoder.processor, **{name: None}))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"^Tampered returned no {name}: .* not supported"):
        tampered(SHORT, make_clip(clips, 6.0))


@pytest.mark.parametrize("interval", [2 / 24, 2.0, 1.01])
def test_another_time_than_the_clips_is_refused(encoder: PromptEncoder, clips: Path, interval: float) -> None:
    # 2 / 24 is what a processor says that was told nothing of the source: transformers assumes 24 fps.
    tampered = PromptEncoder(Tampered(encoder.processor, second_per_grid_ts=[interval]))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"{interval:.4f} s apart per grid step, but they are 1.0000 s"):
        tampered(SHORT, make_clip(clips, 6.0))


def test_a_text_alone_has_no_video(encoder: PromptEncoder) -> None:
    inputs = encoder(SHORT, None)
    assert set(inputs).isdisjoint({"pixel_values_videos", "video_grid_thw", "second_per_grid_ts"})
    assert encoder.tokenizer.decode(inputs["input_ids"][0]) == (
        "<|im_start|>user\nWhen does the red square appear?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape


@pytest.mark.parametrize("text", ["<answer>1.0 to 2.5</answer>", "naïve ✓ 日本", " two\n\nlines ", ""])
def test_a_completion_comes_back(encoder: PromptEncoder, text: str) -> None:
    ids = encoder.completion_ids(text)
    assert ids.count(encoder.end_of_turn) == 1
    assert ids[-1] == encoder.end_of_turn
    assert encoder.decode(ids) == text


def test_a_completion_ends_where_the_chat_template_ends_a_turn(encoder: PromptEncoder) -> None:
    assert encoder.tokenizer.convert_ids_to_tokens(encoder.end_of_turn) == "<|im_end|>"
    assert encoder.tokenizer.convert_ids_to_tokens(encoder.padding) == "<|endoftext|>"


def test_a_grid_is_what_the_processor_merges(encoder: PromptEncoder) -> None:
    assert encoder.grid == PatchGrid(temporal=2, spatial=28)


def test_all_but_text_and_end_of_turn_is_never_sampled(policy: VideoPolicy) -> None:
    encoder = policy.encoder
    never = encoder.never_sampled(512)
    written = set(encoder.completion_ids("<think>red</think><answer>1.0 to 2.5</answer>"))
    assert written.isdisjoint(never)
    assert never == [0, 1, 3, 4, 5, 6, 7, *range(len(encoder.tokenizer), 512)]  # 2 is <|im_end|>


def test_an_encoder_travels_to_a_worker(encoder: PromptEncoder, clips: Path) -> None:
    clip = make_clip(clips, 6.0)
    sent = pickle.dumps(encoder)
    assert len(sent) < 500_000  # no weights: those are 2.4 MB
    expected, found = encoder(question(), clip), pickle.loads(sent)(question(), clip)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
