"""Numbers that are not finite are noticed in the update in which they appear, and reach no weight."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from test_module import SHORT, Gradients, data, fit, part, same, state, trainer
from test_module import policy as policy
from test_module import samples as samples
from torch import Tensor

from vcr1.errors import UserError
from vcr1.module import GRPOModule, SFTModule
from vcr1.module.base import PolicyModule
from vcr1.module.finite import MOST_SKIPPED, FiniteGuard, gradient_norm
from vcr1.module.update_log import mean_over_ranks
from vcr1.policy import VideoPolicy
from vcr1.records import Sample
from vcr1.tasks import GroundingTask

Break = Callable[[VideoPolicy, int], None]


def poisoned(policy: VideoPolicy, passes: set[int], value: float) -> None:
    """Let the policy's training passes of some numbers, counted from 0, compute no numbers."""
    original, count = policy.logprobs, iter(range(1000))

    def logprobs(*args: Any) -> Any:
        scores = original(*args)
        if next(count) in passes:
            object.__setattr__(scores, "logprobs", scores.logprobs * value)
        return scores

    policy.logprobs = logprobs  # type: ignore[method-assign]


def module_of(kind: type[PolicyModule], policy: VideoPolicy, **more: Any) -> PolicyModule:
    extra: dict[str, Any] = {"num_generations": 2} if kind is GRPOModule else {}
    return kind(policy, lr=1e-3, sampling=SHORT, **extra, **more)


class States(L.Callback):
    """Keeps the weights after each micro-batch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *more: Any) -> None:
        self.states.append({name: tensor.clone() for name, tensor in state(pl_module.policy).items()})


@pytest.mark.parametrize("kind", [GRPOModule, SFTModule])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_without_finite_numbers_is_skipped_and_counted(
    kind: type[PolicyModule], value: float, policy: VideoPolicy, samples: list[Sample]
) -> None:
    poisoned(policy, {1}, value)
    states = States()
    source = data(policy, samples[:3], 1, shuffle=False)
    rows = fit(module_of(kind, policy), source, max_steps=3, callbacks=[states])
    assert [row["train/skipped_updates"] for row in rows] == [0, 1, 1]
    assert [math.isfinite(row["train/loss"]) for row in rows] == [True, False, True]  # the log hides nothing
    assert same(states.states[0], states.states[1])
    assert not same(states.states[1], states.states[2])
    assert all(tensor.isfinite().all() for tensor in state(policy).values())


def test_one_micro_batch_without_finite_numbers_costs_its_whole_update(
    policy: VideoPolicy, samples: list[Sample]
) -> None:
    poisoned(policy, {0}, math.nan)
    before = {name: tensor.clone() for name, tensor in state(policy).items()}
    source = data(policy, samples[:2], 1, shuffle=False)
    (row,) = fit(module_of(SFTModule, policy), source, accumulate_grad_batches=2)
    assert row["train/skipped_updates"] == 1
    assert math.isnan(row["train/loss"])  # not the mean of what is left
    assert same(before, state(policy))


def test_the_run_ends_at_the_first_such_update_where_it_is_told_to(
    policy: VideoPolicy, samples: list[Sample]
) -> None:
    poisoned(policy, {1}, math.nan)
    source = data(policy, samples[:3], 1, shuffle=False)
    with pytest.raises(UserError, match=r"^update 2: the log-probs is not finite, and algorithm\.on_non"):
        fit(module_of(GRPOModule, policy, on_nonfinite="stop"), source, max_steps=3)


def test_the_run_ends_where_nothing_but_skipping_is_left(policy: VideoPolicy, samples: list[Sample]) -> None:
    poisoned(policy, set(range(50)), math.inf)
    source = data(policy, samples[:1], 1)
    with pytest.raises(
        UserError, match=rf"^update {MOST_SKIPPED}: the loss is not finite, and so were the 4"
    ):
        fit(module_of(SFTModule, policy), source, max_steps=20, max_epochs=-1)


def test_an_infinite_reward_is_named(policy: VideoPolicy, samples: list[Sample]) -> None:
    task = GroundingTask(rewards={"own": lambda completion, sample: math.inf})
    with pytest.raises(UserError, match=r"^update 1: the reward is not finite"):
        fit(module_of(GRPOModule, policy, on_nonfinite="stop"), part(task, policy, samples[:1], 1))


@pytest.mark.parametrize("value", [None, "high", [1.0]])
def test_a_reward_that_is_no_number_is_named(value: Any, policy: VideoPolicy, samples: list[Sample]) -> None:
    task = GroundingTask(rewards={"own": lambda completion, sample: value})
    with pytest.raises(UserError, match=r"^tasks\.grounding\.rewards\.own returned .* for sample .*: a rew"):
        fit(module_of(GRPOModule, policy), part(task, policy, samples[:1], 1))


def test_a_gradient_that_is_not_finite_is_named(policy: VideoPolicy, samples: list[Sample]) -> None:
    weight = next(p for name, p in policy.named_parameters() if name.endswith("layers.1.mlp.up_proj.weight"))
    weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(UserError, match=r"^update 1: the gradient is not finite"):
        fit(module_of(SFTModule, policy, on_nonfinite="stop"), data(policy, samples[:1], 1))


def test_weights_that_an_update_destroys_are_never_saved(
    policy: VideoPolicy, samples: list[Sample], tmp_path: Path
) -> None:
    class Overflow(L.Callback):
        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            if trainer.global_step == 2:
                next(pl_module.policy.parameters()).data[0, 0] = math.inf

    source = data(policy, samples[:3], 1)
    with pytest.raises(UserError, match=r"^update 3: model\..* holds numbers that are not finite; nothing"):
        fit(module_of(SFTModule, policy), source, max_steps=3, callbacks=[Overflow()])
    with pytest.raises(UserError, match=r"model is not written: .* holds numbers that are not finite"):
        policy.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(
        UserError,
        match=r"^model\..* that are not finite before anything was trained: take another",
    ):
        fit(module_of(SFTModule, policy), source)


def test_finite_weights_are_written(policy: VideoPolicy, tmp_path: Path) -> None:
    policy.save(tmp_path / "model")
    assert all(
        tensor.isfinite().all() for tensor in load_file(tmp_path / "model" / "model.safetensors").values()
    )


def test_all_ranks_skip_what_one_has_found() -> None:
    class Two:
        """The first of two ranks, the other of which has found an infinite loss."""

        root_device = torch.device("cpu")

        def reduce(self, flags: Tensor, reduce_op: str) -> Tensor:
            return flags + torch.tensor([0.0, 0, 0, 0, 1, 0])

    guard = FiniteGuard("skip")
    guard.look("loss", torch.tensor(1.0))
    strategy: Any = Two()
    assert guard.refuses(torch.tensor(1.0), 7, strategy)
    with pytest.raises(UserError, match=r"^update 8: the loss is not finite"):
        FiniteGuard("stop").refuses(torch.tensor(1.0), 8, strategy)


def test_an_unknown_choice_is_refused(policy: VideoPolicy) -> None:
    with pytest.raises(UserError, match=r"algorithm\.on_nonfinite=ignore; choose from skip, stop"):
        SFTModule(policy, on_nonfinite="ignore")


@pytest.mark.parametrize("clip", [None, 1e-3, 1e6])
def test_the_gradients_norm_and_its_clipped_share_are_logged(
    clip: float | None, policy: VideoPolicy, samples: list[Sample]
) -> None:
    seen = Gradients()
    (row,) = fit(
        module_of(SFTModule, policy), data(policy, samples[:1], 1), callbacks=[seen], gradient_clip_val=clip
    )
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in seen.gradients[0].values()))
    assert row["train/grad_norm"] == pytest.approx(norm, rel=1e-5)
    share = {None: 0.0, 1e-3: 1 - 1e-3 / norm, 1e6: 0.0}[clip]
    assert row["train/grad_clipped"] == pytest.approx(share, abs=1e-5)


def test_clipping_by_value_is_no_share_of_the_norm(policy: VideoPolicy, samples: list[Sample]) -> None:
    settings = {"gradient_clip_val": 1e-6, "gradient_clip_algorithm": "value"}
    (row,) = fit(module_of(SFTModule, policy), data(policy, samples[:1], 1), **settings)
    assert row["train/grad_norm"] > 1e-6
    assert row["train/grad_clipped"] == 0


def test_means_and_counts_are_exact_in_half_precision_runs() -> None:
    strategy: Any = trainer().strategy
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # as Lightning does for trainer.precision=bf16-true
    try:
        found = mean_over_ranks(
            {"count": 70_001.0, "loss": 0.123456, "nothing": None, "bad": math.nan}, strategy
        )
    finally:
        torch.set_default_dtype(default)
    assert found["count"] == 70_001
    assert found["loss"] == pytest.approx(0.123456, rel=1e-6)
    assert math.isnan(found["bad"])
    assert "nothing" not in found


def test_without_gradients_the_norm_is_0() -> None:
    assert float(gradient_norm([torch.nn.Parameter(torch.ones(2))])) == 0.0
    assert trainer().strategy is not None
