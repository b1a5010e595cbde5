"""The relatives of GRPO in real runs of the embedded model: repeats, resampling, penalties, references."""

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import test_module
import torch
from test_module import (
    FREE,
    SHORT,
    Records,
    data,
    disturbed,
    fit,
    part,
    plain_logprobs,
    same,
    spied,
    state,
    trainer,
)
from torch import Tensor

from vcr1.config.building import build
from vcr1.config.entry import load_config
from vcr1.errors import UserError
from vcr1.module import GRPOModule
from vcr1.module.drafts import replace_groups
from vcr1.objectives import Objective, PolicyLoss, group_advantages, policy_loss
from vcr1.policy import Sampling, VideoPolicy, load_policy
from vcr1.records import Completion, RolloutGroups, Sample
from vcr1.tasks import GroundingTask

torch.set_num_threads(1)

policy, samples = test_module.policy, test_module.samples  # its fixtures

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*module.s. in eval mode.*"),
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable.*"),
]

FAMILY = {
    "grpo": Objective(),
    "grpo_tiny": Objective(kl_weight=0.02),
    "dr_grpo": Objective(advantage="centred", average="length", kl_weight=0),
    "dapo": Objective(clip_high=0.28, average="token", kl_weight=0),
    "gspo": Objective(ratio="sequence", clip_low=3e-4, clip_high=4e-4),
    "cispo": Objective(surrogate="reweight", clip_low=1, clip_high=4, average="token", kl_weight=0),
    "rloo": Objective(advantage="leave_one_out", average="sum", kl="k1", kl_place="reward"),
    "reinforce_pp": Objective(advantage="batch", kl="k1", kl_place="reward"),
    "reinforce_pp_baseline": Objective(advantage="centred_batch", kl="k2"),
}


def tiny() -> VideoPolicy:
    return load_policy("builtin:tiny", dtype="float32")


@pytest.mark.parametrize("name", FAMILY)
def test_an_algorithm_is_one_config(policy: VideoPolicy, samples: list[Sample], name: str) -> None:
    small = ["rollout.max_new_tokens=24", "algorithm.num_generations=4", "algorithm.lr=1e-3"]
    cfg = load_config([f"algorithm={name}", *small])
    module = build(cfg.algorithm)(policy=policy)
    assert module.objective == FAMILY[name]
    assert (module.reference is None) == (FAMILY[name].kl_weight == 0)
    before = state(policy)
    rows = fit(module, data(policy, samples[:2], 2), max_steps=2)
    assert not same(state(policy), before)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert rows[0]["train/ratio_max"] == 1
    assert (rows[1]["train/ratio_max"] == 1) == (module.updates_per_rollout == 1)


# ------------------------------------------------------------------------- several updates per rollout


class Watch(L.Callback):
    """Keeps the policy after every micro-batch, and how many micro-batches an epoch has."""

    def __init__(self) -> None:
        self.policies: list[VideoPolicy] = []
        self.epoch = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.policies.append(copy.deepcopy(pl_module.policy))
        self.epoch = trainer.num_training_batches


def decodes(source: Any) -> list[str]:
    """The ids of the samples that are loaded, as they are."""
    seen: list[str] = []
    make = source.dataset

    def dataset(chosen: Any) -> Any:
        made = make(chosen)
        load = type(made).__getitem__

        class Spy(type(made)):  # type: ignore[misc]
            def __getitem__(self, index: int) -> Any:
                seen.append(self.samples[index].id)
                return load(self, index)

        made.__class__ = Spy
        return made

    source.dataset = dataset
    return seen


def hash_of(text: str) -> float:
    """A reward that differs from text to text."""
    return sum(map(ord, text)) % 97 / 97


def test_an_update_s_completions_are_those_of_its_micro_batches_alone(samples: list[Sample]) -> None:
    def sampled(ahead: bool) -> tuple[list[list[str]], list[float]]:
        policy = load_policy("builtin:tiny", dtype="float32")
        rollouts = spied(policy)
        module = GRPOModule(policy, num_generations=3, lr=1e-3, sampling=SHORT, max_resamples=1)
        module.looks_ahead = ahead
        # Answers to the first two samples are worth the same whatever they are.
        flat = {sample.id for sample in samples[:2]}
        task = only(lambda answer, of: 0.0 if of.id in flat else hash_of(answer.text))
        source = test_module.part(task, policy, samples[:4], 1, shuffle=False)
        rows = fit(module, source, max_steps=1, accumulate_grad_batches=4)
        sizes = [len(groups.texts) for groups in rollouts]
        assert sizes[0] == (4 if ahead else 1)
        return [texts for groups in rollouts for texts in groups.texts], [row["train/loss"] for row in rows]

    (together, loss), (alone, other) = sampled(True), sampled(False)
    assert sorted(together) == sorted(alone)
    assert len(together) >= 4 + 2  # two groups were sampled again
    assert loss == pytest.approx(other, rel=1e-4)


def test_a_rollout_is_trained_on_several_times(policy: VideoPolicy, samples: list[Sample]) -> None:
    rollouts, watch = spied(policy), Watch()
    source = data(policy, samples[:4], 1, shuffle=False)
    loaded = decodes(source)
    module = GRPOModule(policy, num_generations=4, lr=1e-3, sampling=SHORT, updates_per_rollout=3)
    rows = fit(module, source, max_steps=6, max_epochs=1, accumulate_grad_batches=2, callbacks=[watch])
    # Two micro-batches an update, each rollout in three updates: six updates over four samples.
    assert watch.epoch == 12
    assert loaded == [sample.id for sample in samples[:4]]
    assert [len(groups.texts) for groups in rollouts] == [2] * 2  # an update is sampled in one go
    assert len(rows) == 6
    for first in (0, 3):
        once, *again = rows[first : first + 3]
        assert once["train/ratio_max"] == 1
        for row in again:
            assert row["train/ratio_max"] != 1
            for name in ("reward", "reward_std", "completion_tokens", "grounding/iou", "sampler_mismatch"):
                assert row[f"train/{name}"] == once[f"train/{name}"]
            assert row["train/seconds/rollout"] == 0
            assert row["train/seconds/vision"] > 0
    assert rows[0]["train/reward"] != rows[3]["train/reward"]


def test_the_loss_of_a_second_update_is_the_clipped_formula(
    policy: VideoPolicy,
    samples: list[Sample],
) -> None:
    rollouts, watch, before = spied(policy), Watch(), copy.deepcopy(policy)
    settings = {"objective": Objective(clip_low=0.1, clip_high=0.3, kl_weight=0.0), "updates_per_rollout": 2}
    module = GRPOModule(policy, num_generations=4, lr=1e-3, sampling=SHORT, **settings)
    source = data(policy, samples[:1], 1)
    rows = fit(module, source, max_steps=2, callbacks=[watch])
    (groups,) = rollouts
    judged = source.task.judge(groups.texts[0], samples[:1] * 4).result()
    advantages = group_advantages(torch.tensor([[one.total for one in judged]]))[0].tolist()
    costs, ratios, held = [], [], []
    for member, advantage in enumerate(advantages):
        ids = groups.completion_ids[0, member][groups.completion_mask[0, member]].tolist()
        now, then = (plain_logprobs(one, groups.inputs[0], ids) for one in (watch.policies[0], before))
        own = (now - then).exp().tolist()
        gains = [min(r * advantage, min(max(r, 0.9), 1.3) * advantage) for r in own]
        costs.append(-sum(gains) / len(gains))
        ratios += own
        held += [(r > 1.3 and advantage > 0) or (r < 0.9 and advantage < 0) for r in own]
    assert rows[1]["train/loss"] == pytest.approx(sum(costs) / 4, abs=1e-4)
    assert rows[1]["train/ratio_max"] == pytest.approx(max(ratios), rel=1e-3)
    assert rows[1]["train/clip_fraction"] == pytest.approx(sum(held) / len(held), abs=1.5 / len(held))
    assert max(ratios) > 1.01


def test_a_lost_micro_batch_comes_again_as_nothing(policy: VideoPolicy, samples: list[Sample]) -> None:
    # A good one and a lost one make an update, twice.
    source = data(policy, [samples[0], samples[4]], 1, shuffle=False)
    module = GRPOModule(policy, num_generations=2, lr=1e-3, sampling=SHORT, updates_per_rollout=2)
    rows = fit(module, source, max_steps=2, accumulate_grad_batches=2)
    assert [row["train/lost_samples"] for row in rows] == [1.0, 1.0]  # counted once
    assert all(math.isfinite(row["train/loss"]) for row in rows)


def test_unjudged_completions_of_a_repeated_rollout_count_once(
    policy: VideoPolicy,
    samples: list[Sample],
) -> None:
    task = GroundingTask(rewards={"own": lambda completion, sample: math.nan})
    module = GRPOModule(policy, num_generations=2, sampling=SHORT, updates_per_rollout=2)
    rows = fit(module, part(task, policy, samples[:1], 1), max_steps=2)
    assert [row["train/unjudged"] for row in rows] == [2.0, 2.0]


def test_a_resume_between_rollouts_is_exact_and_within_one_makes_another(
    samples: list[Sample],
    tmp_path: Path,
) -> None:
    class Saver(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def run(start: int | None) -> tuple[list[list[list[str]]], list[str], dict[str, Tensor]]:
        policy = tiny()
        rollouts, source = spied(policy), data(policy, samples[:4], 1)
        loaded = decodes(source)
        module = GRPOModule(policy, num_generations=6, lr=1e-3, sampling=SHORT, updates_per_rollout=2)
        one = trainer(max_steps=4, callbacks=[] if start else [Saver()])
        path = None if start is None else tmp_path / f"{start}.ckpt"
        one.fit(module, source, ckpt_path=path, weights_only=False)
        assert one.global_step == 4
        return [groups.texts for groups in rollouts], loaded, state(policy)

    whole, seen, weights = run(None)
    assert len(whole) == 2
    assert not same(weights, state(tiny()))
    between, loaded, same_weights = run(2)
    assert between == whole[1:]
    assert loaded[0] == seen[1]
    assert same(weights, same_weights)
    # After one of two updates: the first prompt anew for what is left of its turn, then the second prompt.
    within, loaded, other_weights = run(1)
    assert len(within) == 2
    assert loaded[:2] == seen[:2]
    assert not same(weights, other_weights)


# ------------------------------------------------------------------------------------ dynamic sampling


class Later:
    """A reward of 1 for the first ``count`` completions it sees, then 0, 1, 0, 1, ..."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, itertools.count()

    def __call__(self, completion: Completion, sample: Sample) -> float:
        place = next(self.asked)
        return 1.0 if place < self.count else float((place - self.count) % 2)


def only(reward: Any) -> GroundingTask:
    """A task with that reward alone."""
    return GroundingTask(rewards={"own": reward}, weights={"format": 0, "iou": 0})


def test_groups_of_equal_rewards_are_sampled_again(policy: VideoPolicy, samples: list[Sample]) -> None:
    rollouts = spied(policy)
    module = GRPOModule(policy, num_generations=4, sampling=SHORT, max_resamples=5, objective=FREE)
    # Both groups at first, then both again, of which the first still is as equal; then that one alone.
    (row,) = fit(module, part(only(Later(12)), policy, samples[:2], 2))
    assert [len(groups.texts) for groups in rollouts] == [2, 2, 1]
    assert (row["train/resampled_groups"], row["train/left_out_groups"]) == (3, 0)
    assert row["train/zero_variance_groups"] == 0
    assert row["train/reward"] == 0.5
    assert rollouts[1].texts != rollouts[0].texts


def test_groups_that_stay_equal_are_left_out(policy: VideoPolicy, samples: list[Sample]) -> None:
    rollouts = spied(policy)
    # Even a KL penalty and punished lengths do not move the policy by a group that is left out.
    settings = {
        "objective": Objective(kl="k1", kl_place="reward", average="token"),
        "overlong_buffer": 1.0,
    }
    module = GRPOModule(policy, num_generations=4, sampling=SHORT, lr=1e-3, max_resamples=2, **settings)
    before = state(disturbed(policy))  # away from the reference, so that the penalties differ
    (row,) = fit(module, part(only(lambda completion, sample: 1.0), policy, samples[:2], 2))
    assert len(rollouts) == 3  # and no more
    assert (row["train/resampled_groups"], row["train/left_out_groups"]) == (4, 2)
    assert (row["train/zero_variance_groups"], row["train/loss"]) == (1, 0)
    assert same(state(policy), before)


def groups_of(ids: list[list[list[int]]]) -> RolloutGroups:
    """Completions by their token ids, where 0 is padding; their log-probs are a tenth of the ids."""
    tokens = torch.tensor(ids)
    return RolloutGroups(
        inputs=[{} for _ in ids],
        completion_ids=tokens,
        completion_mask=tokens > 0,
        logprobs=tokens / 10,
        truncated=tokens[..., 0] % 2 == 1,
        texts=[[str(row) for row in group] for group in ids],
    )


def test_replaced_groups_are_padded_to_one_length() -> None:
    ours = groups_of([[[1, 2], [3, 0]], [[4, 5], [6, 0]]])
    for theirs in ([[[7, 8, 9], [10, 0, 0]]], [[[7], [8]]]):
        found = replace_groups(ours, [1], groups_of(theirs), padding=99)
        width = max(len(theirs[0][0]), 2)
        expected = groups_of(
            [[row + [0] * (width - len(row)) for row in group] for group in ([[1, 2], [3, 0]], *theirs)]
        )
        filled = expected.completion_ids.clone()
        filled[0, :, 2:] = 99
        filled[1, :, len(theirs[0][0]) :] = 99
        assert torch.equal(found.completion_ids, filled)
        for name in ("completion_mask", "logprobs", "truncated"):
            assert torch.equal(getattr(found, name), getattr(expected, name))
        assert found.texts == [ours.texts[0], groups_of(theirs).texts[0]]


# ------------------------------------------------------------------------------------ rewards, log-probs


def spied_losses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, dict[str, Any]]]:
    """Advantages and further arguments of every loss."""
    seen: list[tuple[Tensor, dict[str, Any]]] = []

    def spy(logprobs: Tensor, advantages: Tensor, *others: Any, **more: Any) -> PolicyLoss:
        seen.append((advantages, more | {"logprobs": logprobs.detach()}))
        return policy_loss(logprobs, advantages, *others, **more)

    monkeypatch.setattr("vcr1.module.grpo.policy_loss", spy)
    return seen


def test_all_passes_score_at_the_temperature_of_the_sampling(
    policy: VideoPolicy, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = Sampling(max_new_tokens=24, temperature=0.7)
    seen, watch, before = spied_losses(monkeypatch), Watch(), copy.deepcopy(policy)
    module = GRPOModule(policy, num_generations=2, lr=1e-3, sampling=warm, updates_per_rollout=2)
    rollouts = spied(policy)
    fit(module, data(policy, samples[:1], 1), max_steps=2, callbacks=[watch])
    (groups,) = rollouts
    for member in range(2):
        kept = groups.completion_mask[0, member]
        ids = groups.completion_ids[0, member][kept].tolist()
        first, second = (
            plain_logprobs(model, groups.inputs[0], ids, 0.7) for model in (before, watch.policies[0])
        )
        # The sampler, the reference and the first pass are one model; then the policy has moved.
        for found in (groups.logprobs, seen[0][1]["reference"], seen[0][1]["logprobs"]):
            assert found[0, member][kept].tolist() == pytest.approx(first.tolist(), abs=1e-4)
        assert seen[1][1]["logprobs"][0, member][kept].tolist() == pytest.approx(second.tolist(), abs=1e-4)
        assert (first - plain_logprobs(before, groups.inputs[0], ids)).abs().max() > 0.01


def test_rewards_pay_for_distance_and_length(
    policy: VideoPolicy,
    samples: list[Sample],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = spied_losses(monkeypatch)
    settings = {
        "objective": Objective(advantage="centred", kl="k1", kl_place="reward", kl_weight=0.5),
        "overlong_buffer": 1,
    }
    module = GRPOModule(policy, num_generations=4, sampling=Sampling(max_new_tokens=60), **settings)
    policy = disturbed(policy, 0.04)
    rollouts = spied(policy)
    source = data(policy, samples[:1], 1)
    (row,) = fit(module, source)
    ((groups,), ((advantages, more),)) = rollouts, seen
    rewards = torch.tensor(
        [one.total for one in source.task.judge(groups.texts[0], samples[:1] * 4).result()]
    )
    # A buffer as long as the limit of 60 costs a 60th for each token.
    penalties = -groups.lengths[0] / 60
    assert len(set(penalties.tolist())) > 1  # else its sign could not be told
    distances = (more["logprobs"] - more["reference"])[0].sum(-1)
    assert distances.abs().min() > 1e-3
    shaped = rewards + penalties - 0.5 * distances
    assert torch.allclose(advantages[0], shaped - shaped.mean(), atol=1e-5)
    assert row["train/overlong_penalty"] == pytest.approx(penalties.mean().item())
    assert row["train/reward"] == pytest.approx(rewards.mean().item(), abs=1e-6)  # the task's own


@pytest.mark.parametrize("source", ["trainer", "sampler"])
def test_ratios_are_relative_to_the_one_or_the_other(
    policy: VideoPolicy,
    samples: list[Sample],
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    seen, rollouts = spied_losses(monkeypatch), spied(policy)
    module = GRPOModule(policy, num_generations=2, sampling=SHORT, old_logprobs=source)
    fit(module, data(policy, samples[:1], 1))
    (_, more), (groups,) = seen[0], rollouts
    expected = more["logprobs"] if source == "trainer" else groups.logprobs
    assert torch.equal(more["old_logprobs"], expected)


def test_a_rank_without_samples_sends_its_share_of_the_batch(samples: list[Sample]) -> None:
    counts = []
    for chosen in (samples[:1], samples[4:]):
        policy = tiny()
        module = GRPOModule(
            policy, num_generations=2, sampling=SHORT, objective=Objective(advantage="batch", kl_weight=0.0)
        )
        sent: list[list[int]] = []

        class Spy(L.Callback):
            def on_train_start(self, trainer: L.Trainer, *_: Any, sent: list[list[int]] = sent) -> None:
                reduce = trainer.strategy.reduce
                trainer.strategy.reduce = lambda tensor, **more: (  # type: ignore[method-assign]
                    sent.append(list(tensor.shape)) or reduce(tensor, **more)
                )

        fit(module, data(policy, chosen, 1), callbacks=[Spy()])
        counts.append(sent)
    assert counts[0] == counts[1]  # the same messages in the same order
    assert counts[0][0] == [3]


# ---------------------------------------------------------------------------------- a moving reference


def test_a_reference_that_moves_is_saved_and_goes_on(samples: list[Sample], tmp_path: Path) -> None:
    class Saver(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def run(start: int | None) -> tuple[list[dict[str, float]], GRPOModule]:
        policy, records = tiny(), Records()
        module = GRPOModule(policy, num_generations=2, lr=1e-3, sampling=SHORT, reference_refresh=2)
        one = trainer(max_steps=4, logger=records, callbacks=[] if start else [Saver()])
        path = None if start is None else tmp_path / f"{start}.ckpt"
        one.fit(module, data(policy, samples[:2], 2), ckpt_path=path, weights_only=False)
        return records.rows, module

    whole, module = run(None)
    kls = [row["train/kl"] for row in whole]
    assert kls[0] < 1e-6 < 1e-4 < kls[1]
    assert kls[2] < 1e-6 < 1e-4 < kls[3]  # the policy after two updates became the reference
    saved = [torch.load(tmp_path / f"{step}.ckpt", weights_only=False)["state_dict"] for step in (2, 3)]
    assert not any(name.startswith("reference.") for name in saved[0])  # still the model of the beginning
    for name, weight in tiny().state_dict().items():
        assert torch.equal(saved[1][f"reference.{name}"], saved[0][f"policy.{name}"]), name
        assert saved[1][f"reference.{name}"].shape == weight.shape
    # Saved before the refresh that was due, and after it.
    for start in (2, 3):
        rows, resumed = run(start)
        assert [row["train/kl"] for row in rows] == kls[start:]
        assert same(state(resumed.policy), state(module.policy))
        assert resumed.reference is not None
        assert module.reference is not None
        assert same(state(resumed.reference), state(module.reference))


def test_a_saved_reference_is_dropped_where_none_is_wanted(
    policy: VideoPolicy,
    samples: list[Sample],
    tmp_path: Path,
) -> None:
    module = GRPOModule(policy, num_generations=2, lr=1e-3, sampling=SHORT, reference_refresh=1)
    first = trainer(max_steps=2)
    first.fit(module, data(policy, samples[:1], 1))
    first.save_checkpoint(tmp_path / "two.ckpt")
    more: dict[str, Any] = {"num_generations": 2, "sampling": SHORT}
    without = GRPOModule.load_from_checkpoint(tmp_path / "two.ckpt", policy=tiny(), objective=FREE, **more)
    assert same(state(without.policy), state(policy))
    # A run that refreshes no more keeps the reference that it was given, and saves it.
    fixed = GRPOModule.load_from_checkpoint(tmp_path / "two.ckpt", policy=tiny(), **more)
    assert fixed.reference is not None
    assert module.reference is not None
    assert same(state(fixed.reference), state(module.reference))
    assert fixed.reference_moved


def test_what_differs_between_sampler_and_trainer_weighs_tokens(
    policy: VideoPolicy, samples: list[Sample]
) -> None:
    def corrected(shift: float, how: str | None) -> dict[str, float]:
        learner = copy.deepcopy(policy)
        rollout = learner.rollout

        def shifted(*args: Any, **kwargs: Any) -> RolloutGroups:
            groups = rollout(*args, **kwargs)
            groups.logprobs -= shift * groups.completion_mask
            return groups

        learner.rollout = shifted  # type: ignore[method-assign]
        objective = Objective(kl_weight=0.0, correction=how)
        module = GRPOModule(learner, num_generations=4, lr=1e-3, sampling=SHORT, objective=objective)
        (row,) = fit(module, data(learner, samples[:2], 2), max_steps=1)
        return row

    plain = corrected(0.5, None)
    assert (plain["train/sampler_correction"], plain["train/loss"]) == (1, pytest.approx(0, abs=1e-6))
    assert plain["train/sampler_mismatch"] == pytest.approx(0.5, abs=1e-3)
    # Every token is exp(0.5) times as likely to the trainer as the sampler says.
    token = corrected(0.5, "token")
    assert token["train/sampler_correction"] == pytest.approx(math.exp(0.5), rel=1e-3)
    assert token["train/grad_norm"] == pytest.approx(math.exp(0.5) * plain["train/grad_norm"], rel=1e-2)
    assert corrected(0.8, "token")["train/sampler_correction"] == pytest.approx(2.0)  # exp(0.8) is cut
    out = corrected(0.8, "mask")
    assert (out["train/sampler_correction"], out["train/grad_norm"]) == (0, 0)
    with pytest.raises(UserError, match=r"algorithm\.old_logprobs=sampler mends what differs"):
        GRPOModule(policy, sampling=SHORT, old_logprobs="sampler", objective=Objective(correction="token"))
