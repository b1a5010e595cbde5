"""Every forward must see the published positions, and so the times that the weights know."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from policy_cases import (
    SHORT,
    TASK,
    followed_by,
    generate,
    make_clip,
    plain_groups,
    question,
    roll,
    unpacked,
    watched,
)
from published import published_positions
from small_models import MODELS, small_policy, video_prompt
from torch import Tensor

from vcr1.errors import UserError
from vcr1.module import SFTModule
from vcr1.policy import Sampling, VideoPolicy, load_policy
from vcr1.policy.families import VideoClock
from vcr1.policy.generation.answering import answer_together
from vcr1.policy.prompts import layout
from vcr1.policy.prompts.layout import mrope_positions, prompt_positions
from vcr1.records import Batch, Interval, PromptInputs, Sample

# seconds of clip, asked fps, seconds per grid step, position in time of each step: floor(2 · step · seconds)
TIMES = [
    (6.0, 1, 2.0, [0, 4, 8]),
    (6.0, 2, 1.0, [0, 2, 4, 6, 8, 10]),
    (6.0, 3, 2 / 3, [0, 1, 2, 4, 5, 6, 8, 9, 10]),
    (5.5, 2, 1.1, [0, 2, 4, 6, 8]),  # 11 frames wanted, 10 whole pairs taken: one every 0.55 s
    (5.5, 3, 0.6875, [0, 1, 2, 4, 5, 6, 8, 9]),  # 16.5 wanted, 16 taken: steps of 1.375 positions
]


HF = Version(transformers.__version__)
HF_KEEPS_FRACTIONS = Version("5.23") <= HF
"""Older versions round the seconds of a grid step down to whole ones, and so lose time."""
HF_IGNORES_TIME = Version("5.3") <= HF < Version("5.24")
"""These versions place the text behind a video by its frame alone (issue 45381 of transformers)."""

BEFORE = 4
"""Tokens before the video: <|im_start|>, user, newline, <|vision_start|>."""


@pytest.mark.parametrize(("seconds", "fps", "interval", "steps"), TIMES)
def test_all_forwards_see_the_clips_own_times(
    policy: VideoPolicy,
    clips: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    fps: int,
    interval: float,
    steps: list[int],
) -> None:
    clip = make_clip(clips, seconds, fps)
    prompt = question()
    inputs = policy.encoder(prompt, clip)
    reference = policy.frozen_copy()
    given: list[Tensor] = []

    def spy(*args: Any, **kwargs: Any) -> Tensor:
        given.append(args[1].seconds_per_grid)
        return mrope_positions(*args, **kwargs)

    monkeypatch.setattr(layout, "mrope_positions", spy)

    # Rollout, policy, reference, evaluation, prediction; and Hugging Face at the published positions.
    features = [feature.detach() for feature in policy.vision([inputs]) if feature is not None]
    with watched(policy.model) as rollout:
        torch.manual_seed(0)
        groups = policy.rollout([inputs], list(features), 2, Sampling(6))
    with watched(policy.model) as scored:
        policy.logprobs(groups, list(features))
    with watched(reference.model) as judged:
        reference.logprobs(groups, reference.vision([inputs]))
    sample = Sample("s", "v.mp4", "the red square appears", Interval(1.0, 2.5))
    batch = Batch(TASK, [sample], [clip.without_frames()], [inputs], [])
    with watched(policy.model) as evaluated:
        SFTModule(policy, sampling=Sampling(6)).answer(batch)
    with watched(policy.model) as predicted:
        answer_together(policy, [inputs], Sampling(6))
    with watched(policy.model) as generated:
        generate(policy, inputs, 2, max_new_tokens=6, temperature=1.0)

    assert len(given) == 5  # rollout, policy, reference, evaluation, prediction
    assert [float(times) for times in given] == pytest.approx([interval] * 5, rel=1e-6)

    length = inputs["input_ids"].shape[1]
    expected = published_positions(policy.model, inputs)
    assert expected.shape == (3, 1, length)
    assert torch.equal(rollout[0], expected)
    assert expected[0, 0, : BEFORE + len(steps)].tolist() == [
        *range(BEFORE),
        *(BEFORE + step for step in steps),
    ]
    for prefill in (evaluated[0], predicted[0], generated[0]):
        assert torch.equal(prefill, expected.expand_as(prefill))
    rows = [unpacked(seen[0], length, 2)[:, 0] for seen in (scored, judged)]
    for whole in rows:
        assert torch.equal(whole[..., :length], expected.expand(-1, 2, -1))

    # The text behind the video begins after its last time, the completion where the text stopped.
    assert int(expected[0, 0, BEFORE + len(steps)]) == BEFORE + steps[-1] + 1
    start = int(expected[0, 0, -1]) + 1
    columns = torch.arange(start, start + 6).expand(3, 2, 6)
    assert len(rollout) == 6  # a prefill and five single columns: the sixth token is not read any more
    assert torch.equal(torch.cat(rollout[1:], -1), columns[..., :5])
    assert torch.equal(torch.cat(generated[1:], -1), columns[..., :5])
    for alone in (evaluated, predicted):
        assert torch.equal(torch.cat(alone[1:], -1), columns[:, :1, :5])
    for whole in rows:
        assert torch.equal(whole[..., length:], columns)


@pytest.mark.parametrize("seconds", [2, 10, 30, 120, 300])
@pytest.mark.parametrize("family", MODELS)
@torch.no_grad()
def test_clips_of_any_length_and_pairs_of_them_are_placed_as_published(family: str, seconds: int) -> None:
    # One token a frame and a step a second: long in time, cheap to compute. A second video of 3 steps.
    policy = small_policy(family)
    one = video_prompt(family, [3, 4], [(seconds, 2, 2)])
    two = video_prompt(family, [2, 3, 4], [(seconds, 2, 2), (3, 4, 2)])
    for inputs in (one, two):
        if family == "qwen2_5_vl":
            inputs["second_per_grid_ts"] = torch.ones(len(inputs["video_grid_thw"]))
        expected = published_positions(policy.model, inputs)
        positions, next_position = prompt_positions(policy.model, inputs)
        assert torch.equal(positions, expected[:, 0])
        assert next_position == int(expected.max()) + 1
    # By hand: 3 words and the opening token, then the video's steps, 1 or 2 positions each.
    last = {"qwen2_5_vl": 4 + 2 * (seconds - 1), "qwen2_vl": 4 + seconds - 1}
    if family in last:  # behind it the closing token and 4 words
        assert prompt_positions(policy.model, one)[1] == last[family] + 1 + 5
    for settings in ({"temperature": 0}, {"temperature": 1.3}):
        torch.manual_seed(5)
        wanted = generate(policy, one, 2, max_new_tokens=4, **settings)
        torch.manual_seed(5)
        groups = roll(policy, [one], 2, max_new_tokens=4, **settings)
        assert torch.equal(groups.completion_ids[0], wanted)  # training, and evaluation
        torch.manual_seed(5)
        first = generate(policy, one, 1, max_new_tokens=4, **settings)
        torch.manual_seed(5)
        seeds = torch.randint(2**62, (1,)).tolist() * 2
        answers = answer_together(policy, [one, one], Sampling(max_new_tokens=4, **settings), seeds)
        assert torch.equal(answers.completion_ids[:, 0], first.expand(2, -1))  # prediction and the page
    reference = policy.frozen_copy()
    for scores in (
        policy.logprobs(groups, policy.vision([one])),
        reference.logprobs(groups, reference.vision([one])),
    ):
        for place, logprobs, _ in plain_groups(policy.model, groups, temperature=1.3):
            scaled = groups.logprobs[place][: len(logprobs)]
            assert (scaled - logprobs).abs().max() <= 3e-5  # float32; a place more or less changes 1e-3
        for place, logprobs, _ in plain_groups(policy.model, groups):
            assert (scores.logprobs[place][: len(logprobs)] - logprobs).abs().max() <= 1e-5


@pytest.mark.parametrize(("seconds", "gap"), [(2, 2), (10, 18), (30, 58), (120, 238), (300, 598)])
def test_transformers_places_the_text_behind_a_video_too_early(
    policy: VideoPolicy, seconds: int, gap: int
) -> None:
    # One token a frame, two positions a second. As published, the text begins 2 · (seconds - 1) + 1 behind
    # the video's first position; by the size of the frame alone, 1 behind it.
    types = torch.tensor([[0] * 4 + [2] * seconds + [0] * 3])
    inputs = {
        "input_ids": types * policy.model.config.video_token_id // 2,
        "attention_mask": torch.ones_like(types),
        "mm_token_type_ids": types,
        "video_grid_thw": torch.tensor([[seconds, 2, 2]]),
        "second_per_grid_ts": torch.tensor([1.0]),
    }
    own, _ = prompt_positions(policy.model, inputs)
    theirs, _ = policy.model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=types,
        video_grid_thw=inputs["video_grid_thw"],
        second_per_grid_ts=inputs["second_per_grid_ts"],
    )
    assert torch.equal(own, published_positions(policy.model, inputs)[:, 0])
    assert torch.equal(own[:, :-3], theirs[:, 0, :-3])  # up to the video's end there is no difference
    assert (own - theirs[:, 0])[:, -3:].unique().tolist() == [gap if HF_IGNORES_TIME else 0]


def test_a_checkpoint_states_its_rule_and_a_config_may(tmp_path: Path) -> None:
    published = load_policy("builtin:tiny")
    assert published.model.config.text_after_video == "largest"
    other = load_policy("builtin:tiny", text_after_video="frame")
    inputs = video_inputs(30)
    assert prompt_positions(published.model, inputs)[0][:, -1].tolist() == [4 + 58 + 3] * 3
    assert prompt_positions(other.model, inputs)[0][:, -1].tolist() == [4 + 3] * 3
    other.save(tmp_path / "model", torch.float32)  # an export remembers it
    assert load_policy(str(tmp_path / "model")).model.config.text_after_video == "frame"
    with pytest.raises(UserError, match=r"model.text_after_video=last; choose from largest, frame"):
        load_policy("builtin:tiny", text_after_video="last")


def video_inputs(seconds: int) -> PromptInputs:
    """Four tokens of text, one a second of video, three of text; ids that do not matter."""
    types = torch.tensor([[0] * 4 + [2] * seconds + [0] * 3])
    return {
        "input_ids": torch.zeros_like(types),
        "mm_token_type_ids": types,
        "video_grid_thw": torch.tensor([[seconds, 2, 2]]),
        "second_per_grid_ts": torch.tensor([1.0]),
    }


@torch.no_grad()
def test_each_prompt_of_a_batch_keeps_its_own_times(policy: VideoPolicy, clips: Path) -> None:
    clips_at = [make_clip(clips, seconds, fps) for seconds, fps, *_ in TIMES]
    inputs = [policy.encoder(question(), clip) for clip in clips_at]
    inputs.append(policy.encoder(SHORT, None))
    with watched(policy.model) as rollout:
        groups = roll(policy, inputs, 2, max_new_tokens=4, temperature=1.0)
    with watched(policy.model) as scored:
        policy.logprobs(groups, policy.vision(inputs))
    longest = max(item["input_ids"].shape[1] for item in inputs)
    own = unpacked(scored[0], longest, 2)
    for row, item in enumerate(inputs):
        length = item["input_ids"].shape[1]
        for column in range(2):
            longer = followed_by(item, groups.completion_ids[row, column])
            expected = published_positions(policy.model, longer)[:, 0]
            assert torch.equal(own[:, row, column, longest - length :], expected)
            assert torch.equal(rollout[0][:, row, longest - length :], expected[:, :length])
            decoded = torch.stack([step[:, 2 * row + column, 0] for step in rollout[1:]], -1)
            assert torch.equal(decoded, expected[:, length:-1])


def test_a_text_alone_counts_its_tokens(policy: VideoPolicy) -> None:
    inputs = policy.encoder(SHORT, None)
    positions, next_position = prompt_positions(policy.model, inputs)
    length = inputs["input_ids"].shape[1]
    assert positions.tolist() == [list(range(length))] * 3
    assert next_position == length


def test_frames_of_several_tokens_have_rows_and_columns(policy: VideoPolicy) -> None:
    # Two steps of 2 x 3 tokens, a second apart: two positions in time.
    inputs = {
        "input_ids": torch.zeros(1, 15, dtype=torch.long),
        "mm_token_type_ids": torch.tensor([[0] + [2] * 12 + [0] * 2]),
        "video_grid_thw": torch.tensor([[2, 4, 6]]),
        "second_per_grid_ts": torch.tensor([1.0]),
    }
    positions, next_position = prompt_positions(policy.model, inputs)
    assert positions[0].tolist() == [0] + [1] * 6 + [3] * 6 + [4, 5]
    assert positions[1].tolist() == [0] + [1, 1, 1, 2, 2, 2] * 2 + [4, 5]
    assert positions[2].tolist() == [0] + [1, 2, 3] * 4 + [4, 5]
    assert next_position == 6


def test_positions_of_two_videos_by_hand() -> None:
    # A token of text; 2 steps of 1 x 2 tokens, 1.5 s apart, 2 positions a second: at 0 and 3 from where the
    # video starts, so at 1 and 4. The text behind goes on at 5. Then 3 steps of one token, 0.4 s apart:
    # at 0, 0.8 and 1.6 from 6, rounded down; the text behind goes on at 8.
    types = torch.tensor([0, 2, 2, 2, 2, 0, 2, 2, 2, 0, 0])
    clock = VideoClock(torch.tensor([[2, 2, 4], [3, 2, 2]]), torch.tensor([1.5, 0.4]), 2)
    positions = mrope_positions(types, clock, merge=2)
    assert positions[0].tolist() == [0, 1, 1, 4, 4, 5, 6, 6, 7, 8, 9]
    assert positions[1].tolist() == [0, 1, 1, 1, 1, 5, 6, 6, 6, 8, 9]
    assert positions[2].tolist() == [0, 1, 2, 1, 2, 5, 6, 6, 6, 8, 9]
    # By the size of the frame: the text behind the first video goes on at 1 + 2, behind the second at 4 + 1.
    by_frame = mrope_positions(types, replace(clock, text_after_video="frame"), merge=2)
    assert by_frame[0].tolist() == [0, 1, 1, 4, 4, 3, 4, 4, 5, 5, 6]
    assert by_frame[1].tolist() == [0, 1, 1, 1, 1, 3, 4, 4, 4, 5, 6]
    assert by_frame[2].tolist() == [0, 1, 2, 1, 2, 3, 4, 4, 4, 5, 6]


@pytest.mark.skipif(not HF_IGNORES_TIME, reason="the rule of transformers 5.3 to 5.23")
@pytest.mark.parametrize("seconds", [1.0, 2.0, *([2 / 3, 1.0008, 0.9995, 0.4] if HF_KEEPS_FRACTIONS else [])])
def test_the_rule_by_frame_is_that_of_these_transformers(policy: VideoPolicy, seconds: float) -> None:
    types = torch.tensor([0] * 5 + [2] * 40 + [0] * 7)
    grid, times = torch.tensor([[10, 4, 4]]), torch.tensor([seconds])
    theirs, _ = policy.model.model.get_rope_index(
        types[None], types[None], video_grid_thw=grid, second_per_grid_ts=times
    )
    assert torch.equal(mrope_positions(types, VideoClock(grid, times, 2, "frame"), merge=2), theirs[:, 0])


def test_real_frame_rates_keep_their_times() -> None:
    # 29.97 frames a second, sampled at 2: a step of 1.0008 s, or of 0.9995 s, is not 1 s and not 0 s.
    for seconds in (1.0008, 0.9995):
        clock = VideoClock(torch.tensor([[300, 2, 2]]), torch.tensor([seconds]), 2)
        positions = mrope_positions(torch.full((300,), 2), clock, merge=2)
        assert positions[0, -1] == int(299 * 2 * seconds)
