"""Every forward must see the same positions, and so the same times."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from policy_cases import SHORT, TASK, followed_by, generate, make_clip, question, roll, unpacked, watched
from torch import Tensor

from vcr1.module import SFTModule
from vcr1.policy import Sampling, VideoPolicy, prompts
from vcr1.policy.prompts import mrope_positions, prompt_positions
from vcr1.records import Batch, Interval, Sample

# seconds of clip, asked fps, seconds per grid step, position in time of each step: floor(2 · step · seconds)
TIMES = [
    (6.0, 1, 2.0, [0, 4, 8]),
    (6.0, 2, 1.0, [0, 2, 4, 6, 8, 10]),
    (6.0, 3, 2 / 3, [0, 1, 2, 4, 5, 6, 8, 9, 10]),
    (5.5, 2, 1.1, [0, 2, 4, 6, 8]),  # 11 frames wanted, 10 whole pairs taken: one every 0.55 s
    (5.5, 3, 0.6875, [0, 1, 2, 4, 5, 6, 8, 9]),  # 16.5 wanted, 16 taken: steps of 1.375 positions
]


HF_KEEPS_FRACTIONS = Version(transformers.__version__) >= Version("5.23")
"""Older versions round the seconds of a grid step down to whole ones, and so lose time."""

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
        given.append(args[2])
        return mrope_positions(*args, **kwargs)

    monkeypatch.setattr(prompts, "mrope_positions", spy)

    # Rollout, policy, reference, evaluation; and Hugging Face, left to itself.
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
    with watched(policy.model) as plain, torch.no_grad():
        policy.model(**inputs)
    with watched(policy.model) as generated:
        generate(policy, inputs, 2, max_new_tokens=6, temperature=1.0)

    assert len(given) == 4  # rollout, policy, reference, evaluation
    assert [float(times) for times in given] == pytest.approx([interval] * 4, rel=1e-6)

    length = inputs["input_ids"].shape[1]
    expected = rollout[0]
    assert expected.shape == (3, 1, length)
    assert expected[0, 0, : BEFORE + len(steps)].tolist() == [
        *range(BEFORE),
        *(BEFORE + step for step in steps),
    ]
    assert torch.equal(evaluated[0], expected)
    if HF_KEEPS_FRACTIONS or interval == int(interval):
        for prefill in (plain[0], generated[0]):
            assert torch.equal(prefill, expected.expand_as(prefill))
    rows = [unpacked(seen[0], length, 2)[:, 0] for seen in (scored, judged)]
    for whole in rows:
        assert torch.equal(whole[..., :length], expected.expand(-1, 2, -1))

    # The completion goes on where the text stopped, one by one, alike on all axes and rows.
    start = int(expected[0, 0, -1]) + 1
    columns = torch.arange(start, start + 6).expand(3, 2, 6)
    assert len(rollout) == 6  # a prefill and five single columns: the sixth token is not read any more
    assert torch.equal(torch.cat(rollout[1:], -1), columns[..., :5])
    assert torch.equal(torch.cat(generated[1:], -1), columns[..., :5])
    assert torch.equal(torch.cat(evaluated[1:], -1), columns[:, :1, :5])
    for whole in rows:
        assert torch.equal(whole[..., length:], columns)


def test_a_completion_goes_on_where_its_question_ends(policy: VideoPolicy, clips: Path) -> None:
    # 30 s at 2 fps: the last step lies at 4 + 2 · 29 = 62, and only 14 tokens of text follow.
    inputs = policy.encoder(SHORT, make_clip(clips, 30.0))
    with watched(policy.model) as rollout:
        groups = roll(policy, [inputs], 2, max_new_tokens=4, temperature=1.0)
    with watched(policy.model) as scored:
        policy.logprobs(groups, policy.vision([inputs]))
    with watched(policy.model) as generated:
        generate(policy, inputs, 2, max_new_tokens=4, temperature=1.0)
    with watched(policy.model) as plain, torch.no_grad():
        policy.model(**followed_by(inputs, groups.completion_ids[0, 0]))
    assert int(plain[0][0, 0, BEFORE + 29]) == BEFORE + 58
    length = inputs["input_ids"].shape[1]
    own = unpacked(scored[0], length, 2)[:, 0]
    assert torch.equal(own, plain[0].expand_as(own))
    assert torch.equal(rollout[0], plain[0][..., :length])
    for seen in (rollout, generated):
        columns = torch.cat(seen[1:], -1)
        assert torch.equal(columns, plain[0][..., length:-1].expand_as(columns))


def test_each_prompt_of_a_batch_keeps_its_own_times(policy: VideoPolicy, clips: Path) -> None:
    kept = [case for case in TIMES if HF_KEEPS_FRACTIONS or case[2] == int(case[2])]
    clips_at = [make_clip(clips, seconds, fps) for seconds, fps, *_ in kept]
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
            with watched(policy.model) as alone, torch.no_grad():
                policy.model(**followed_by(item, groups.completion_ids[row, column]))
            expected = alone[0][:, 0]
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
    # video starts. Its larger side is 2: the text behind goes on at 1 + 2. Then 3 steps of one token, 0.4 s.
    positions = mrope_positions(
        torch.tensor([0, 2, 2, 2, 2, 0, 2, 2, 2, 0, 0]),
        torch.tensor([[2, 2, 4], [3, 2, 2]]),
        torch.tensor([1.5, 0.4]),
        tokens_per_second=2,
        merge=2,
    )
    assert positions[0].tolist() == [0, 1, 1, 4, 4, 3, 4, 4, 5, 5, 6]
    assert positions[1].tolist() == [0, 1, 1, 1, 1, 3, 4, 4, 4, 5, 6]
    assert positions[2].tolist() == [0, 1, 2, 1, 2, 3, 4, 4, 4, 5, 6]


@pytest.mark.parametrize("seconds", [1.0, 2.0, *([2 / 3, 1.0008, 0.9995, 0.4] if HF_KEEPS_FRACTIONS else [])])
def test_positions_are_those_of_transformers(policy: VideoPolicy, seconds: float) -> None:
    types = torch.tensor([0] * 5 + [2] * 40 + [0] * 7)
    grid, times = torch.tensor([[10, 4, 4]]), torch.tensor([seconds])
    theirs, _ = policy.model.model.get_rope_index(
        types[None], types[None], video_grid_thw=grid, second_per_grid_ts=times
    )
    assert torch.equal(mrope_positions(types, grid, times, tokens_per_second=2, merge=2), theirs[:, 0])


def test_real_frame_rates_keep_their_times() -> None:
    # 29.97 frames a second, sampled at 2: a step of 1.0008 s, or of 0.9995 s, is not 1 s and not 0 s.
    for seconds in (1.0008, 0.9995):
        types, grid = torch.full((300,), 2), torch.tensor([[300, 2, 2]])
        positions = mrope_positions(types, grid, torch.tensor([seconds]), tokens_per_second=2, merge=2)
        assert positions[0, -1] == int(299 * 2 * seconds)
