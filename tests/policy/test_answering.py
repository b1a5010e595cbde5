"""Several questions about one video, read together."""

from pathlib import Path

import pytest
import torch
from policy_cases import calls_of, make_clip, question, roll

from vcr1.policy import Sampling, VideoPolicy
from vcr1.policy.generation.answering import answer_together
from vcr1.records import Prompt, PromptInputs

QUERIES = ("the red square appears", "a blue circle is seen, and then it goes", "?")


@pytest.fixture
def about_one(policy: VideoPolicy, clips: Path) -> list[PromptInputs]:
    """Three prompts of different lengths about one clip."""
    clip = make_clip(clips, 8.0)
    return [policy.encoder(question(query), clip) for query in QUERIES]


def test_answers_are_those_of_each_question_alone(policy: VideoPolicy, about_one: list[PromptInputs]) -> None:
    together = answer_together(policy, about_one, Sampling(30, temperature=0))
    for row, item in enumerate(about_one):
        alone = roll(policy, [item], 1, max_new_tokens=30, temperature=0)
        length = int(alone.lengths)
        assert together.texts[row] == alone.texts[0]
        assert torch.equal(together.completion_ids[row, 0, :length], alone.completion_ids[0, 0])
        error = together.logprobs[row, 0, :length] - alone.logprobs[0, 0]
        assert float(error.abs().max()) < 1e-5


def test_the_video_is_seen_once_and_read_once(policy: VideoPolicy, about_one: list[PromptInputs]) -> None:
    language = policy.model.model.language_model.layers[0]
    with calls_of(policy.model.model.visual) as seen, calls_of(language) as read:
        answer_together(policy, about_one, Sampling(1))
    assert len(seen) == 1
    ids = [item["input_ids"][0] for item in about_one]
    (_, common, _), *rest = read
    assert (ids[0] == policy.model.config.video_token_id).nonzero().max() < common
    assert all(torch.equal(row[:common], ids[0][:common]) for row in ids)
    assert [tuple(shape[:2]) for shape in rest] == [(1, len(row) - common) for row in ids]


def test_without_a_video_or_a_common_beginning_each_is_read_for_itself(
    policy: VideoPolicy, clips: Path
) -> None:
    texts = [policy.encoder(Prompt(query), None) for query in ("When?", "Where is it, then?")]
    clip = make_clip(clips, 8.0)
    others = [policy.encoder(Prompt("When?", system=system), clip) for system in ("Be brief.", "Answer.")]
    for inputs in (texts, others):
        together = answer_together(policy, inputs, Sampling(8, temperature=0))
        alone = [roll(policy, [item], 1, max_new_tokens=8, temperature=0).texts[0] for item in inputs]
        assert together.texts == alone


def test_an_answer_is_watched_as_it_grows(policy: VideoPolicy, about_one: list[PromptInputs]) -> None:
    seen: list[torch.Tensor] = []
    groups = answer_together(
        policy, about_one, Sampling(12, temperature=0), watch=lambda ids: seen.append(ids.clone())
    )
    assert [ids.shape[1] for ids in seen] == list(range(1, groups.completion_ids.shape[2] + 1))
    assert torch.equal(seen[-1], groups.completion_ids[:, 0])
    assert torch.equal(seen[4], groups.completion_ids[:, 0, :5])


def test_sampled_answers_follow_their_seeds(policy: VideoPolicy, about_one: list[PromptInputs]) -> None:
    def drawn(seed: int) -> list[list[str]]:
        seeds = [seed + 10 * place for place in range(len(about_one))]
        return answer_together(policy, about_one, Sampling(10), seeds).texts

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_no_answer(
    policy: VideoPolicy, about_one: list[PromptInputs], temperature: float
) -> None:
    hook = policy.model.lm_head.register_forward_hook(lambda *args: torch.full_like(args[2], torch.nan))
    with pytest.raises(RuntimeError, match=r"^its logits are not finite numbers"):
        answer_together(policy, about_one, Sampling(4, temperature=temperature))
    hook.remove()
