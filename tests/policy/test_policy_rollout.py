from pathlib import Path
from typing import Any

import pytest
import torch
from policy_cases import SHORT, calls_of, generate, left_padded, make_clip, question, roll
from torch import Tensor

from vcr1.errors import UserError
from vcr1.policy import Sampling, VideoPolicy, load_policy
from vcr1.records import PromptInputs

DRAWN = [
    {"temperature": 1.0},
    {"temperature": 0.7},
    {"temperature": 1.5, "top_k": 3},
    {"temperature": 1.5, "top_p": 0.6},
    {"temperature": 1.5, "min_p": 0.1},
    {"temperature": 2.0, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
]


def name(settings: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in settings.items())


# ---------------------------------------------------------------------------------- equal to generate()


def test_greedy_tokens_are_those_of_generate(policy: VideoPolicy, three: list[PromptInputs]) -> None:
    expected = generate(policy, three[0], 4, max_new_tokens=40, temperature=0)
    groups = roll(policy, three[:1], 4, max_new_tokens=40, temperature=0)
    assert torch.equal(groups.completion_ids[0], expected)
    assert expected.shape[1] > 10  # the embedded model has something to say, and then stops
    assert (expected[:, -1] == policy.encoder.end_of_turn).all()


@pytest.mark.parametrize("settings", DRAWN, ids=name)
def test_tokens_drawn_from_one_seed_are_those_of_generate(
    policy: VideoPolicy, three: list[PromptInputs], settings: dict[str, Any]
) -> None:
    torch.manual_seed(7)
    expected = generate(policy, three[1], 4, max_new_tokens=40, **settings)
    torch.manual_seed(7)
    groups = roll(policy, three[1:2], 4, max_new_tokens=40, **settings)
    assert torch.equal(groups.completion_ids[0], expected)
    assert len(set(map(tuple, expected.tolist()))) > 1


@pytest.mark.parametrize("settings", [{"temperature": 0}, *DRAWN], ids=name)
def test_a_batch_of_prompts_is_rolled_out_as_generate_does(
    policy: VideoPolicy, three: list[PromptInputs], settings: dict[str, Any]
) -> None:
    torch.manual_seed(3)
    expected = generate(policy, left_padded(policy.encoder, three), 3, max_new_tokens=30, **settings)
    torch.manual_seed(3)
    groups = roll(policy, three, 3, max_new_tokens=30, **settings)
    assert torch.equal(groups.completion_ids.flatten(0, 1), expected)


def test_other_prompts_in_the_batch_change_nothing(
    policy: VideoPolicy, three: list[PromptInputs], text_only: PromptInputs
) -> None:
    inputs = [*three, text_only]
    assert len({item["input_ids"].shape[1] for item in inputs}) == 4
    together = roll(policy, inputs, 2, max_new_tokens=30, temperature=0)
    for row, item in enumerate(inputs):
        alone = roll(policy, [item], 1, max_new_tokens=30, temperature=0)
        length = int(alone.lengths)
        for column in range(2):
            kept = together.completion_mask[row, column]
            assert torch.equal(together.completion_ids[row, column][kept], alone.completion_ids[0, 0])
            error = together.logprobs[row, column, :length] - alone.logprobs[0, 0]
            assert float(error.abs().max()) < 1e-5


def test_a_prompt_without_video_is_rolled_out_as_generate_does(
    policy: VideoPolicy, text_only: PromptInputs
) -> None:
    for settings in ({"temperature": 0}, {"temperature": 1.3}):
        torch.manual_seed(5)
        expected = generate(policy, text_only, 3, max_new_tokens=30, **settings)
        torch.manual_seed(5)
        groups = roll(policy, [text_only], 3, max_new_tokens=30, **settings)
        assert torch.equal(groups.completion_ids[0], expected)


def test_a_clip_that_outlasts_its_question_is_rolled_out_as_generate_does(
    policy: VideoPolicy, clips: Path
) -> None:
    # 30 s reach position 4 + 58 on the axis of time, and the text behind the video goes on there.
    inputs = policy.encoder(SHORT, make_clip(clips, 30.0))
    for settings in ({"temperature": 0}, {"temperature": 1.3}):
        torch.manual_seed(5)
        expected = generate(policy, inputs, 3, max_new_tokens=20, **settings)
        torch.manual_seed(5)
        groups = roll(policy, [inputs], 3, max_new_tokens=20, **settings)
        assert torch.equal(groups.completion_ids[0], expected)


def test_a_seed_is_the_only_source_of_chance(policy: VideoPolicy, three: list[PromptInputs]) -> None:
    features = policy.vision(three)

    def drawn(seed: int) -> Tensor:
        seeds = [seed, seed + 10, seed + 20]
        return policy.rollout(three, features, 4, Sampling(30), seeds).completion_ids

    torch.manual_seed(0)
    first, state = drawn(1), torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(drawn(1), first)
    assert not torch.equal(drawn(2), first)


@pytest.mark.parametrize("rows", [1, 3, 5, 8, 13])
def test_no_token_depends_on_how_many_rows_are_decoded_at_once(
    policy: VideoPolicy, three: list[PromptInputs], text_only: PromptInputs, rows: int
) -> None:
    inputs = [*three, text_only, three[1]]
    features = policy.vision(inputs)
    seeds = [4, 5, 6, 7, 8]
    whole = policy.rollout(inputs, features, 4, Sampling(24, temperature=1.5, rows=None), seeds)
    assert len(set(whole.lengths.flatten().tolist())) > 3  # they end, and others enter, at many times
    parts = policy.rollout(inputs, features, 4, Sampling(24, temperature=1.5, rows=rows), seeds)
    assert torch.equal(parts.completion_ids, whole.completion_ids)
    assert (parts.logprobs - whole.logprobs).abs().max() <= 1e-5
    # Nor on the prompts beside it, nor on its place among them.
    (own,) = policy.rollout(inputs[2:3], features[2:3], 4, Sampling(24, temperature=1.5), [6]).texts
    assert own == whole.texts[2]


def test_prompts_enter_where_others_have_ended(policy: VideoPolicy, three: list[PromptInputs]) -> None:
    inputs = [three[0], three[1], three[2], three[0]]
    features = policy.vision(inputs)
    language = policy.model.model.language_model
    with calls_of(language.layers[0]) as shapes:
        groups = policy.rollout(inputs, features, 2, Sampling(30, temperature=1.5, rows=4), [1, 2, 3, 4])
    reads = [place for place, shape in enumerate(shapes) if shape[1] > 1]
    assert len(reads) > 1  # the later prompts are read while the others are decoded
    steps = [shape[0] for shape in shapes if shape[1] == 1]
    assert max(steps) == 4
    lengths = groups.lengths.amax(1).tolist()
    # One after the other in two places, and no step for a place that only waits.
    assert sum(lengths) / 2 - 2 <= len(steps) < sum(lengths)


def test_a_look_at_every_fourth_step_changes_nothing(
    policy: VideoPolicy, three: list[PromptInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = policy.vision(three)
    settings = Sampling(26, temperature=1.5, rows=5)
    expected = policy.rollout(three, features, 4, settings, [1, 2, 3])
    monkeypatch.setattr("vcr1.policy.generation.rollout.LOOK_EVERY", {"cpu": 4})
    found = policy.rollout(three, features, 4, settings, [1, 2, 3])
    assert torch.equal(found.completion_ids, expected.completion_ids)
    torch.testing.assert_close(found.logprobs, expected.logprobs, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------- what it hands over


def test_groups_are_masked_and_padded_behind_their_end(
    policy: VideoPolicy, three: list[PromptInputs]
) -> None:
    torch.manual_seed(3)
    groups = roll(policy, three, 8, max_new_tokens=24, temperature=2.0)
    assert groups.inputs is three
    assert groups.completion_ids.shape == groups.completion_mask.shape == groups.logprobs.shape == (3, 8, 24)
    assert (groups.completion_ids.dtype, groups.completion_mask.dtype) == (torch.int64, torch.bool)
    assert (groups.logprobs.dtype, groups.truncated.dtype) == (torch.float32, torch.bool)
    end, padding = policy.encoder.end_of_turn, policy.encoder.padding
    kinds = set()
    for row in range(3):
        for column in range(8):
            ids = groups.completion_ids[row, column].tolist()
            ended = end in ids
            length = ids.index(end) + 1 if ended else 24
            assert ids[length:] == [padding] * (24 - length)
            assert groups.completion_mask[row, column].tolist() == [True] * length + [False] * (24 - length)
            assert int(groups.lengths[row, column]) == length
            assert bool(groups.truncated[row, column]) is not ended
            assert (groups.logprobs[row, column, :length] < 0).all()
            assert groups.logprobs[row, column, length:].tolist() == [0.0] * (24 - length)
            text = ids[: length - 1] if ended else ids
            assert groups.texts[row][column] == policy.encoder.tokenizer.decode(text)
            kinds.add((ended, length))
    assert {ended for ended, _ in kinds} == {True, False}
    assert len(kinds) > 2  # ragged, or nothing was shown


def test_an_end_at_the_very_limit_is_no_truncation(policy: VideoPolicy, three: list[PromptInputs]) -> None:
    length = int(roll(policy, three[:1], 1, max_new_tokens=40, temperature=0).lengths)
    whole = roll(policy, three[:1], 1, max_new_tokens=length, temperature=0)
    assert (whole.truncated.tolist(), whole.completion_ids.shape) == ([[False]], (1, 1, length))
    cut = roll(policy, three[:1], 1, max_new_tokens=length - 1, temperature=0)
    assert (cut.truncated.tolist(), cut.completion_ids.shape) == ([[True]], (1, 1, length - 1))
    assert cut.texts == whole.texts  # end-of-turn is no text
    assert torch.equal(cut.completion_ids, whole.completion_ids[..., :-1])


def test_given_answers_are_groups_of_one(policy: VideoPolicy, three: list[PromptInputs]) -> None:
    answers = ["<answer>1.0 to 2.5</answer>", "red"]
    groups = policy.teacher_groups(three[:2], answers)
    first, second = (policy.encoder.completion_ids(answer) for answer in answers)
    assert len(first) > len(second) > 1
    assert first[-1] == second[-1] == policy.encoder.end_of_turn
    pad = len(first) - len(second)
    assert groups.completion_ids.tolist() == [[first], [second + [policy.encoder.padding] * pad]]
    assert groups.completion_mask[1, 0].tolist() == [True] * len(second) + [False] * pad
    assert groups.lengths.tolist() == [[len(first)], [len(second)]]
    assert groups.truncated.tolist() == [[False], [False]]
    assert groups.texts == [[answers[0]], [answers[1]]]


# ----------------------------------------------------------------------------------------- training mode


def test_rollout_while_training_with_checkpointing_is_that_of_evaluation(three: list[PromptInputs]) -> None:
    # In training mode checkpointed layers drop the cache: every token would see itself alone.
    policy = load_policy("builtin:tiny", dtype="float32", gradient_checkpointing=True)
    expected = roll(policy.eval(), three, 2, max_new_tokens=25, temperature=0)
    policy.train()
    found = roll(policy, three, 2, max_new_tokens=25, temperature=0)
    assert torch.equal(found.completion_ids, expected.completion_ids)
    assert torch.equal(found.logprobs, expected.logprobs)
    assert all(layer.gradient_checkpointing for layer in policy.model.model.language_model.layers)
    assert all(module.training for module in policy.modules())


def test_the_mode_is_restored_when_a_rollout_fails(policy: VideoPolicy, three: list[PromptInputs]) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    features = policy.vision(three)
    policy.model.lm_head.register_forward_hook(fail)
    for training in (True, False):
        policy.train(training)
        with pytest.raises(RuntimeError, match="out of memory"):
            policy.rollout(three, features, 2, Sampling(4))
        assert {module.training for module in policy.modules()} == {training}


def test_rollout_leaves_no_gradient_and_the_features_theirs(
    policy: VideoPolicy, three: list[PromptInputs]
) -> None:
    features = policy.train().vision(three)
    groups = policy.rollout(three, features, 2, Sampling(5))
    assert not groups.logprobs.requires_grad
    assert all(parameter.grad is None for parameter in policy.parameters())
    assert all(feature is not None and feature.requires_grad for feature in features)
    policy.logprobs(groups, features).logprobs.sum().backward()  # the graph behind them is whole
    assert policy.model.model.visual.patch_embed.proj.weight.grad.abs().sum() > 0


def test_a_group_shares_one_prefill_and_one_vision_pass(
    policy: VideoPolicy, three: list[PromptInputs]
) -> None:
    with calls_of(policy.model.model.visual.merger) as towers:
        features = policy.vision(three)
    patches = sum(int(item["video_grid_thw"].prod()) for item in three)
    assert towers == [torch.Size([patches, 64])]
    layer = policy.model.model.language_model.layers[0]
    with calls_of(layer) as columns:
        policy.rollout(three, features, 8, Sampling(3, temperature=0))
    longest = max(item["input_ids"].shape[1] for item in three)
    assert [tuple(shape[:2]) for shape in columns] == [(3, longest), (24, 1), (24, 1)]


# ------------------------------------------------------------------------------ what must not be sampled


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_special_tokens_are_never_sampled(
    policy: VideoPolicy, three: list[PromptInputs], temperature: float
) -> None:
    tokenizer = policy.encoder.tokenizer
    unwanted = ["<|video_pad|>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"]
    unwanted += ["<|im_start|>", "<|endoftext|>"]
    ids = [*tokenizer.convert_tokens_to_ids(unwanted), *range(len(tokenizer), 640)]
    assert len(set(ids)) == 7 + 640 - len(tokenizer)

    def push(_module: Any, _args: Any, logits: Tensor) -> Tensor:
        logits = logits.clone()
        logits[..., ids] += 100
        return logits

    unharmed = roll(policy, three, 4, max_new_tokens=20, temperature=temperature)
    handle = policy.model.lm_head.register_forward_hook(push)
    with torch.no_grad():
        wanted = policy.model(**three[0]).logits[0, -1].argmax()
    assert int(wanted) in ids
    torch.manual_seed(1)
    groups = roll(policy, three, 4, max_new_tokens=20, temperature=temperature)
    kept = groups.completion_ids[groups.completion_mask]
    assert not torch.isin(kept, torch.tensor(ids)).any()
    if temperature == 0:
        assert torch.equal(groups.completion_ids, unharmed.completion_ids)
        assert (kept == policy.encoder.end_of_turn).any()  # end-of-turn stays possible
    # The log-probs are the model's own: all that it would rather say counts against these tokens.
    assert (groups.logprobs[groups.completion_mask] < -80).all()
    handle.remove()
    policy.logprobs(groups, policy.vision(three))  # and the next forward goes through


# ---------------------------------------------------------------------------------------- its parameters


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_k", -1),
        ("min_p", -0.1),
        ("min_p", 1.0),
    ],
)
def test_a_parameter_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"^rollout\.{field}={value} "):
        Sampling(**{field: value})  # type: ignore[arg-type]


def test_the_ends_of_the_ranges_are_allowed() -> None:
    Sampling(max_new_tokens=1, temperature=0.0, top_p=1.0, top_k=0, min_p=0.0)


def test_a_long_question_gives_more_tokens_than_a_short_one(policy: VideoPolicy, clips: Path) -> None:
    # What the tests above rely on: prompts that need padding.
    clip = make_clip(clips, 4.0)
    lengths = [policy.encoder(prompt, clip)["input_ids"].shape[1] for prompt in (SHORT, question())]
    assert lengths[0] < lengths[1]
