"""A device without memory left: what was too much at once is done in two halves."""

import logging
from typing import Any

import pytest
import torch
from policy_cases import calls_of, gradients, largest_relative_error
from small_models import prompts, ragged, small_policy

from vcr1.errors import UserError, VideoError
from vcr1.policy import Sampling, VideoPolicy
from vcr1.policy.memory import Unanswered, halved, together_or_alone

LENGTHS = [[5, 1, 7], [3, 7, 2], [6, 6, 1], [1, 2, 4]]


def with_memory_for(policy: VideoPolicy, tokens: int) -> VideoPolicy:
    """A policy whose language model runs out of memory above so many tokens in a forward."""

    def limited(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        rows, columns = kwargs["inputs_embeds"].shape[:2]
        if rows * columns > tokens:
            raise torch.OutOfMemoryError(f"{rows * columns} tokens")

    policy.model.model.language_model.register_forward_pre_hook(limited, with_kwargs=True)
    return policy


def test_what_does_not_fit_is_halved() -> None:
    assert halved(100, 30, "tokens") == 50
    assert halved(50, 30, "tokens") == 30
    with pytest.raises(
        UserError, match=r"^out of memory with tokens of 30, which cannot be divided: set model"
    ):
        halved(30, 30, "tokens")


def test_a_training_pass_that_does_not_fit_is_done_in_two(caplog: pytest.LogCaptureFixture) -> None:
    # Prompts of 21, 44, 9 and 45 tokens, 45 tokens of completions.
    policy = small_policy("qwen2_5_vl", "split")
    groups = ragged(prompts("qwen2_5_vl"), LENGTHS)
    whole = policy.logprobs(groups, policy.vision(groups.inputs)).logprobs
    slopes = gradients(policy.model, (whole**2).sum())
    with_memory_for(policy, 100)
    with caplog.at_level(logging.WARNING):
        found = policy.logprobs(groups, policy.vision(groups.inputs)).logprobs
    assert policy.max_tokens == 164 // 2
    (said,) = caplog.messages
    assert said.startswith("out of memory with tokens in a training pass of 164: 82 from now on")
    assert (found - whole).abs().max() <= 1e-5
    assert largest_relative_error(gradients(policy.model, (found**2).sum()), slopes) <= 1e-5
    # What is known by then is kept to: the next step does not try again.
    with calls_of(policy.model.model.language_model.layers[0]) as rows, torch.no_grad():
        policy.logprobs(groups, policy.vision(groups.inputs))
    assert max(columns for _, columns, _ in rows) <= 82


def test_a_pass_that_does_not_fit_in_two_either_ends_the_run() -> None:
    policy = with_memory_for(small_policy("qwen2_5_vl", "split"), 60)
    groups = ragged(prompts("qwen2_5_vl"), LENGTHS)
    with pytest.raises(torch.OutOfMemoryError):
        policy.logprobs(groups, policy.vision(groups.inputs))


def test_a_rollout_that_does_not_fit_is_decoded_in_two(caplog: pytest.LogCaptureFixture) -> None:
    policy = small_policy("qwen2_5_vl")
    inputs = prompts("qwen2_5_vl")
    greedy = Sampling(max_new_tokens=6, temperature=0.0)
    with torch.no_grad():
        features = policy.vision(inputs)
    expected = policy.rollout(inputs, features, 3, greedy)
    with_memory_for(policy, 100)  # two prompts at a time, of 45 columns at most, and six rows in a step
    with caplog.at_level(logging.WARNING):
        found = policy.rollout(inputs, features, 3, greedy)
    assert policy.max_rows == 6
    assert len(caplog.messages) == 1
    assert torch.equal(found.completion_ids, expected.completion_ids)
    torch.testing.assert_close(found.logprobs, expected.logprobs, atol=1e-5, rtol=0.0)


def test_what_cannot_be_answered_together_is_answered_alone(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[list[int]] = []

    def answer(places: list[int]) -> list[int]:
        asked.append(places)
        if len(places) > 1:
            raise torch.OutOfMemoryError("no memory\nat all")
        if places == [1]:
            raise RuntimeError("no numbers")
        if places == [2]:
            raise UserError("too long")
        return [10 * place for place in places]

    found = together_or_alone(4, answer)
    assert found == [0, Unanswered("the model cannot answer: no numbers"), Unanswered("too long"), 30]
    assert asked == [[0, 1, 2, 3], [0], [1], [2], [3]]
    assert caplog.messages == ["4 questions cannot be answered at once: the model cannot answer: no memory"]
    assert together_or_alone(1, lambda _: answer([2])) == [Unanswered("too long")]  # once, not twice
    assert len(asked) == 6
    assert together_or_alone(2, lambda places: [10 * place for place in places]) == [0, 10]


def test_a_video_that_cannot_be_shown_is_not_shown_again() -> None:
    asked: list[list[int]] = []

    def answer(places: list[int]) -> list[int]:
        asked.append(places)
        raise VideoError("broken")

    with pytest.raises(VideoError, match="broken"):
        together_or_alone(3, answer)
    assert asked == [[0, 1, 2]]
