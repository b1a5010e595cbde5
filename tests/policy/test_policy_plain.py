"""Families without an adapter: the plain path, held against the shared one and Hugging Face's own."""

import csv
import logging
from pathlib import Path

import pytest
import torch
from other_models import OTHERS, write_other
from policy_cases import calls_of, generate, gradients, largest_relative_error, plain_groups, roll
from small_models import MODELS, prompts, ragged, small_policy
from test_policy_families import clip
from transformers import AutoModelForImageTextToText

from vcr1.config.entry import load_config
from vcr1.errors import UserError
from vcr1.policy import Sampling, VideoPolicy, correct_positions, load_policy
from vcr1.policy.plain import PlainPolicy, followed_by, last_hidden, repeated
from vcr1.policy.weights.loading import freeze_parts
from vcr1.records import Prompt, PromptInputs, RolloutGroups
from vcr1.train import train

LENGTHS = [[3, 1, 5], [2, 4, 4], [1, 1, 2], [5, 2, 3]]


def both_ways(
    family: str, max_tokens: int | None = None, dtype: torch.dtype = torch.float32
) -> tuple[VideoPolicy, PlainPolicy]:
    """The same weights, sharing prompts and not; both at the published positions."""
    shared, again = small_policy(family, dtype=dtype), small_policy(family, dtype=dtype)
    correct_positions(again.model)
    return shared, PlainPolicy(again.model, again.encoder, max_tokens=max_tokens).eval()


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest, tmp_path: Path) -> PlainPolicy:
    """A model of another family, loaded from a folder."""
    policy = load_policy(write_other(request.param, tmp_path / "model")).eval()
    assert isinstance(policy, PlainPolicy)
    return policy


# ----------------------------------------------------------------------------------- against the shared way


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("max_tokens", [None, 60])
def test_scores_and_gradients_are_those_of_the_shared_way(family: str, max_tokens: int | None) -> None:
    # In float64: what is left in float32 is rounding, a few times 1e-6 at log-probs of -10. The norms of
    # Hugging Face's models compute in float32 all the same, which the gradients show.
    inputs = prompts(family, torch.float64)
    compare(*both_ways(family, max_tokens, torch.float64), ragged(inputs, LENGTHS), 1e-9, 1e-6)


def test_the_embedded_model_scores_as_the_shared_way(policy: VideoPolicy, three: list[PromptInputs]) -> None:
    groups = roll(policy, three, 4, max_new_tokens=20, temperature=1.2)
    model = load_policy("builtin:tiny").model
    correct_positions(model)
    compare(policy, PlainPolicy(model, policy.encoder).eval(), groups, 1e-5, 1e-5)


def compare(
    shared: VideoPolicy, plain: PlainPolicy, groups: RolloutGroups, tolerance: float, slope_tolerance: float
) -> None:
    """Log-probs, entropies, hidden states and gradients of both ways are equal."""
    inputs = groups.inputs
    weights = torch.randn(groups.completion_ids.shape, generator=torch.Generator().manual_seed(2))
    found = []
    for policy in (shared, plain):
        scores = policy.logprobs(groups, policy.vision(inputs), temperature=0.8)
        assert scores.prompt_hidden is not None
        loss = (scores.logprobs * weights).sum() + scores.prompt_hidden.square().mean()
        found.append((scores, gradients(policy.model, loss)))
    (expected, slopes), (scores, plain_slopes) = found
    assert (scores.logprobs - expected.logprobs).abs().max() <= tolerance
    assert (scores.entropy - expected.entropy).abs().max() <= tolerance
    assert (scores.logprobs[~groups.completion_mask] == 0).all()
    lengths = [item["input_ids"].shape[1] for item in inputs]
    for row, length in enumerate(lengths):
        error = scores.prompt_hidden[row, -length:] - expected.prompt_hidden[row, -length:]
        assert error.abs().max() <= tolerance
    assert largest_relative_error(plain_slopes, slopes) <= slope_tolerance


@pytest.mark.parametrize("family", MODELS)
def test_greedy_tokens_are_those_of_the_shared_way(family: str) -> None:
    shared, plain = both_ways(family)
    inputs = prompts(family)
    expected, found = (roll(one, inputs, 2, max_new_tokens=12, temperature=0) for one in (shared, plain))
    assert torch.equal(found.completion_ids, expected.completion_ids)
    assert (found.logprobs - expected.logprobs).abs().max() <= 1e-4
    assert torch.equal(found.truncated, expected.truncated)
    assert found.texts == expected.texts


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 9},
        {"temperature": 1.5, "top_p": 0.6},
        {"temperature": 2.0, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
    ],
)
def test_a_seed_draws_what_it_draws_the_shared_way(settings: dict[str, float]) -> None:
    shared, plain = both_ways("qwen2_5_vl")
    inputs = prompts("qwen2_5_vl")[:1]
    drawn = []
    for policy in (shared, plain):
        state = torch.get_rng_state()
        drawn.append(policy.rollout(inputs, policy.vision(inputs), 5, Sampling(20, **settings), [11]))
        assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(drawn[0].completion_ids, drawn[1].completion_ids)
    assert (drawn[0].logprobs - drawn[1].logprobs).abs().max() <= 1e-4
    assert len(set(map(tuple, drawn[0].completion_ids[0].tolist()))) > 1


def test_completions_of_different_lengths_are_padded(three: list[PromptInputs]) -> None:
    base = load_policy("builtin:tiny")
    plain = PlainPolicy(base.model, base.encoder).train()
    groups = roll(plain, three, 6, max_new_tokens=24, temperature=2.0)
    assert all(module.training for module in plain.modules())
    assert groups.completion_ids.shape == groups.logprobs.shape == (3, 6, 24)
    assert len(set(groups.lengths.flatten().tolist())) > 2
    assert (groups.completion_ids[~groups.completion_mask] == plain.encoder.padding).all()
    assert (groups.logprobs[~groups.completion_mask] == 0).all()
    assert (groups.logprobs[groups.completion_mask] < 0).all()
    scores = plain.eval().logprobs(groups, [None] * 3, temperature=2.0)
    assert (scores.logprobs - groups.logprobs).abs().max() <= 1e-4


def test_a_budget_splits_by_completions_with_their_prompts() -> None:
    _, plain = both_ways("qwen2_5_vl", max_tokens=80)
    inputs = prompts("qwen2_5_vl")[:1]  # 21 tokens: 3 words, start, 12 of the video, end, 4 words
    assert inputs[0]["input_ids"].shape == (1, 21)
    groups = ragged(inputs, [[5, 5, 5, 5]])
    with calls_of(plain.model.lm_head) as seen, torch.no_grad():
        plain.logprobs(groups, [None])
    # 26 tokens each: three fit into 80. Only the last 5 hidden states of a row go through the head.
    assert [tuple(shape) for shape in seen] == [(3, 5, 48), (1, 5, 48)]


# ------------------------------------------------------------------------------------ another family at all


def test_another_family_rolls_out_and_scores_as_hugging_face_does(other: PlainPolicy) -> None:
    inputs = other.encoder(Prompt("What is this?"), clip())
    torch.manual_seed(5)
    groups = roll(other, [inputs], 3, max_new_tokens=8, temperature=1.3)
    greedy = roll(other, [inputs], 2, max_new_tokens=8, temperature=0)
    assert torch.equal(greedy.completion_ids[0], generate(other, inputs, 2, max_new_tokens=8, temperature=0))
    scores = other.logprobs(groups, other.vision([inputs]), temperature=1.3)
    assert (scores.logprobs - groups.logprobs).abs().max() <= 1e-4
    for place, logprobs, entropy in plain_groups(other.model, groups, temperature=1.3):
        assert (scores.logprobs[place][: len(logprobs)] - logprobs).abs().max() <= 1e-5
        assert (scores.entropy[place][: len(entropy)] - entropy).abs().max() <= 1e-5


def test_the_video_matters(other: PlainPolicy) -> None:
    shown = clip()
    inputs = [other.encoder(Prompt("What?"), one) for one in (shown, clip())]
    name = next(name for name in inputs[0] if name.startswith("pixel"))
    inputs[1][name] = -inputs[1][name]
    groups = ragged(inputs, [[4, 3], [4, 3]])
    groups.completion_ids[1] = groups.completion_ids[0]
    scores = other.logprobs(groups, other.vision(inputs)).logprobs
    assert (scores[0] - scores[1]).abs().max() > 1e-3


def test_weights_settings_do_not_reach_the_rollout(other: PlainPolicy) -> None:
    inputs = other.encoder(Prompt("What is this?"), clip())
    expected = roll(other, [inputs], 1, max_new_tokens=8, temperature=0)
    other.model.generation_config.repetition_penalty = 5.0
    other.model.generation_config.no_repeat_ngram_size = 1
    found = roll(other, [inputs], 1, max_new_tokens=8, temperature=0)
    assert torch.equal(found.completion_ids, expected.completion_ids)
    assert torch.equal(found.logprobs, expected.logprobs)
    assert other.model.generation_config.repetition_penalty == 5.0


def test_placeholders_are_never_drawn(other: PlainPolicy) -> None:
    id_of = other.encoder.tokenizer.convert_tokens_to_ids
    # Also those that only the configuration names.
    other.model.config.some_token_id = 99
    never = PlainPolicy(other.model, other.encoder).never_sampled
    assert {id_of("<|image_pad|>"), id_of("<|video_pad|>"), 99} <= set(never)
    assert other.encoder.end_of_turn not in never


def test_parts_are_frozen(other: PlainPolicy) -> None:
    assert not other.vision_is_frozen
    freeze_parts(other.model, ["vision"])
    assert other.vision_is_frozen
    trained = {name for name, p in other.model.named_parameters() if p.requires_grad}
    assert any("multi_modal_projector" in name for name in trained)
    assert any("language_model" in name for name in trained)
    freeze_parts(other.model, ["merger", "language"])
    assert {name for name, p in other.model.named_parameters() if p.requires_grad} <= {
        "lm_head.weight",
        "model.image_newline",
    }


def test_a_part_that_is_not_found_is_named(other: PlainPolicy) -> None:
    del other.model.model.multi_modal_projector
    with pytest.raises(
        UserError, match=r"^model\.freeze names merger, which transformers does not tell apart"
    ):
        freeze_parts(other.model, ["merger"])


def test_a_reference_and_a_saved_folder_are_the_policy(other: PlainPolicy, tmp_path: Path) -> None:
    inputs = other.encoder(Prompt("What is this?"), clip())
    groups = roll(other, [inputs], 2, max_new_tokens=5)
    expected = other.logprobs(groups, [None]).logprobs
    reference = other.frozen_copy()
    assert isinstance(reference, PlainPolicy)
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    assert torch.equal(reference.logprobs(groups, [None]).logprobs, expected)
    other.save(tmp_path / "saved")
    again = load_policy(str(tmp_path / "saved")).eval()
    assert torch.equal(again.encoder(Prompt("What is this?"), clip())["input_ids"], inputs["input_ids"])
    assert torch.equal(again.logprobs(groups, [None]).logprobs, expected)


def test_checkpointing_changes_no_gradient(other: PlainPolicy, tmp_path: Path) -> None:
    other.save(tmp_path / "saved")
    saving = load_policy(str(tmp_path / "saved"), gradient_checkpointing=True).train()
    groups = ragged([other.encoder(Prompt("What?"), clip())], [[4, 2]])
    expected = gradients(other.model, other.logprobs(groups, [None]).logprobs.sum())
    found = gradients(saving.model, saving.logprobs(groups, [None]).logprobs.sum())
    assert largest_relative_error(found, expected) <= 1e-5


def test_a_model_that_tells_no_hidden_states_scores_all_the_same() -> None:
    shared, plain = both_ways("qwen2_5_vl", max_tokens=60)
    inputs = prompts("qwen2_5_vl")
    groups = ragged(inputs, LENGTHS)
    # transformers then takes the whole model for its body, and that returns logits alone.
    plain.model.base_model_prefix = "nothing"
    with last_hidden(plain.model) as seen:
        scores = plain.logprobs(groups, [None] * 4)
    assert seen == []
    assert scores.prompt_hidden is None
    expected = shared.logprobs(groups, shared.vision(inputs)).logprobs
    assert (scores.logprobs - expected).abs().max() <= 1e-5


# ----------------------------------------------------------------------------------------------- the inputs


def test_inputs_are_repeated_and_followed() -> None:
    inputs = {
        "input_ids": torch.tensor([[5, 6, 7]]),
        "attention_mask": torch.tensor([[1, 1, 1]]),
        "token_type_ids": torch.tensor([[0, 2, 0]], dtype=torch.int32),
        "pixel_values": torch.tensor([[1.0], [2.0]]),  # two patches
        "scale": torch.tensor(3.0),
    }
    longer = followed_by(repeated(inputs, 2), torch.tensor([[8, 9], [1, 2]]))
    assert longer["input_ids"].tolist() == [[5, 6, 7, 8, 9], [5, 6, 7, 1, 2]]
    assert longer["attention_mask"].tolist() == [[1] * 5] * 2
    assert longer["token_type_ids"].tolist() == [[0, 2, 0, 0, 0]] * 2
    assert longer["token_type_ids"].dtype == torch.int32
    assert longer["pixel_values"].tolist() == [[1.0], [2.0], [1.0], [2.0]]
    assert longer["scale"].item() == 3.0


def test_pixels_have_the_weights_type_and_times_do_not() -> None:
    _, plain = both_ways("qwen2_5_vl")
    plain.model.to(torch.bfloat16)
    cast = plain._cast(prompts("qwen2_5_vl")[0])
    assert cast["pixel_values_videos"].dtype == torch.bfloat16
    assert cast["second_per_grid_ts"].dtype == torch.float32


# ------------------------------------------------------------------------------------------------ whole runs


@pytest.mark.parametrize(
    ("family", "algorithm"),
    [("llava_onevision", "grpo_tiny"), ("internvl", "grpo_tiny"), ("internvl", "sft")],
)
def test_a_run_trains_another_family_and_says_once_what_it_costs(
    family: str, algorithm: str, small: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_other(family, tmp_path / "model")
    overrides = [
        "experiment=demo",
        f"algorithm={algorithm}",
        *small,
        f"model.path={path}",
        "trainer.max_steps=2",
        "data.video.max_frames=4",
        "data.sources.grounding.val=null",
        "rollout.max_new_tokens=6",
        "algorithm.lr=1e-2",
        *(["algorithm.num_generations=2"] if algorithm != "sft" else []),
        "logger=csv",
        "callbacks.progress=null",
        "trainer.enable_progress_bar=false",
        "report=none",
        "report.before=false",
        "report.wrong_video=false",
    ]
    with caplog.at_level(logging.WARNING, "vcr1"):
        train(load_config(overrides, tmp_path / "run"))
    said = [record.getMessage() for record in caplog.records if "adapter" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(f"family {family} has no adapter: ")
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        updates = [row for row in csv.DictReader(file) if row.get("train/loss")]
    assert len(updates) == 2
    before = AutoModelForImageTextToText.from_pretrained(path).state_dict()
    after = AutoModelForImageTextToText.from_pretrained(tmp_path / "run" / "huggingface").state_dict()
    assert before.keys() == after.keys()
    if algorithm == "sft":
        moved = [name for name in before if not torch.equal(before[name], after[name])]
        for part in ("vision_tower", "multi_modal_projector", "language_model"):
            assert any(part in name for name in moved), part
    else:  # the sampler's log-probs are the trainer's; a random model earns nothing that it could learn from
        assert max(float(row["train/sampler_mismatch_max"]) for row in updates) <= 1e-4


def test_a_step_moves_all_parts_of_another_family(other: PlainPolicy) -> None:
    inputs = [other.encoder(Prompt("What?"), clip())]
    groups = ragged(inputs, [[4, 3]])
    slopes = gradients(other.model, -other.logprobs(groups, [None]).logprobs[0, 0].sum())
    for part in ("vision_tower", "multi_modal_projector", "language_model"):
        assert any(part in name and float(slope.abs().max()) > 0 for name, slope in slopes.items()), part
