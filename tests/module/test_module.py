"""The training modules, in real runs of the embedded model on a few synthetic clips."""

import copy
import itertools
import logging
import math
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from published import placed
from torch import Tensor

from vcr1.data import LoaderSettings, MixtureDataModule, TaskDataModule
from vcr1.errors import UserError
from vcr1.module import GRPOModule, PolicyModule, SFTModule, lr_factor, update_log
from vcr1.module.update_log import COUNTS, mean_over_ranks
from vcr1.objectives import Objective, PolicyLoss, policy_loss
from vcr1.policy import Sampling, VideoPolicy, load_policy
from vcr1.readers import Annotations
from vcr1.records import Batch, Completion, Interval, Judgement, RolloutGroups, Sample, Scorer
from vcr1.tasks import GroundingTask, QATask, Task
from vcr1.video import ClipSpec, FrameBudget, ShapeEvent, write_clip

torch.set_num_threads(1)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*module.s. in eval mode.*"),
]

BUDGET = FrameBudget(min_pixels=28 * 28, total_pixels=28 * 28)
SHORT = Sampling(max_new_tokens=24)
FREE = Objective(kl_weight=0.0)  # no penalty, and so no reference
REASONS = ("too_long", "no_answer", "no_interval", "ambiguous", "not_seconds", "out_of_range", "reversed")
PHASES = ("data", "vision", "rollout", "reward", "reference", "policy", "optimizer")


class Records(Logger):
    """Keeps every logged row."""

    name, version = "records", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(metrics)

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        pass


class Gradients(L.Callback):
    """Keeps what the optimizer gets to see: the gradients and the learning rate of every update."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.lr: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        parameters = pl_module.policy.named_parameters()
        self.gradients.append({n: p.grad.clone() for n, p in parameters if p.grad is not None})
        self.lr.append(optimizer.param_groups[0]["lr"])


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Two questions about each of two clips of six seconds, then one about a corrupt file."""
    folder = tmp_path_factory.mktemp("clips")
    found = []
    for number, (first, second) in enumerate([("red", "blue"), ("green", "yellow")]):
        events = (
            ShapeEvent(first, "square", 1.0, 2.5, x=40, y=60, vx=9, vy=3, radius=20),
            ShapeEvent(second, "circle", 3.0, 5.0, x=70, y=40, vx=-5, vy=4, radius=22),
        )
        spec = ClipSpec(6.0, (30, 40, 50), number, events)
        path = folder / f"{number}.mp4"
        write_clip(spec, path)
        found += [
            Sample(
                id=f"{number}-{event.color}",
                video=str(path),
                query=f"the {event.color} {event.shape} appears",
                target=Interval(event.start, event.end),
                duration=6.0,
                extra={"rationale": event.color, "spec": spec},
            )
            for event in events
        ]
    (folder / "corrupt.mp4").write_bytes((folder / "0.mp4").read_bytes()[:300])
    lost = Sample("lost", str(folder / "corrupt.mp4"), "the red square appears", Interval(1, 2), 6.0)
    return [*found, lost]


@pytest.fixture
def policy() -> VideoPolicy:
    return load_policy("builtin:tiny", dtype="float32")


def part(
    task: Task, policy: VideoPolicy, samples: list[Sample], batch_size: int, shuffle: bool = True
) -> TaskDataModule:
    annotations = {"train": Annotations("train", samples), "val": Annotations("val", samples)}
    settings = LoaderSettings(batch_size=batch_size, eval_batch_size=2, num_workers=0, shuffle=shuffle)
    return TaskDataModule(task, annotations, policy.encoder, policy.encoder.grid, BUDGET, settings)


def data(
    policy: VideoPolicy, samples: list[Sample], batch_size: int, think: bool = True, shuffle: bool = True
) -> TaskDataModule:
    return part(GroundingTask(think=think), policy, samples, batch_size, shuffle)


def two_tasks(
    policy: VideoPolicy, samples: list[Sample], batch_size: int = 1, shuffle: bool = False
) -> MixtureDataModule:
    """When an event happens, and which colour it has: as many samples of each, in turns."""
    questions = [
        replace(sample, options=("red", "blue", "green"), target="A", extra={"category": sample.id[0]})
        for sample in samples
    ]
    parts = [
        part(GroundingTask(), policy, samples, batch_size, shuffle),
        part(QATask(), policy, questions, batch_size, shuffle),
    ]
    settings = LoaderSettings(batch_size=batch_size, num_workers=0, shuffle=shuffle)
    return MixtureDataModule(parts, settings=settings)


def judge(task: Scorer, texts: list[str], samples: list[Sample]) -> list[Judgement]:
    return task.judge(texts, samples).result()


def trainer(**settings: Any) -> L.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_steps": 1,
        "max_epochs": -1,
        "logger": False,
        "log_every_n_steps": 1,
        "limit_val_batches": 0,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(**defaults | settings)


def fit(module: PolicyModule, source: L.LightningDataModule, **settings: Any) -> list[dict[str, float]]:
    """Train and return the logged rows."""
    records = Records()
    torch.manual_seed(0)
    trainer(logger=records, **settings).fit(module, source)
    return records.rows


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def calls(module: torch.nn.Module) -> list[bool]:
    """A list that grows with every forward of a module, by whether it is differentiated."""
    seen: list[bool] = []
    module.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    return seen


def spied(policy: VideoPolicy) -> list[RolloutGroups]:
    """The rollouts of a policy, as they are made."""
    seen: list[RolloutGroups] = []
    rollout = policy.rollout

    def spy(*args: Any, **kwargs: Any) -> RolloutGroups:
        seen.append(rollout(*args, **kwargs))
        return seen[-1]

    policy.rollout = spy  # type: ignore[method-assign]
    return seen


def disturbed(policy: VideoPolicy, scale: float = 0.02) -> VideoPolicy:
    """The policy with noise on every weight."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return policy


@torch.no_grad()
def plain_logprobs(
    policy: VideoPolicy, inputs: dict[str, Tensor], completion: list[int], temperature: float = 1.0
) -> Tensor:
    """Log-probs of a completion by one plain forward of the Hugging Face model."""
    ids = torch.tensor([completion])
    length = inputs["input_ids"].shape[1]
    whole = inputs | {
        "input_ids": torch.cat([inputs["input_ids"], ids], 1),
        "attention_mask": torch.ones(1, length + len(completion), dtype=torch.long),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(ids)], 1),
    }
    logits = policy.model(**placed(policy.model, whole), use_cache=False).logits[0, length - 1 : -1]
    return (logits / temperature).log_softmax(-1).gather(-1, ids[0, :, None])[:, 0]


# ------------------------------------------------------------------------------------------------ GRPO


def test_a_run_changes_the_policy_and_not_the_reference(policy: VideoPolicy, samples: list[Sample]) -> None:
    before = state(policy)
    module = GRPOModule(policy, num_generations=4, lr=1e-3, sampling=SHORT)
    assert module.reference is not None
    trainer(max_steps=2).fit(module, data(policy, samples[:4], 2))
    assert same(state(module.reference), before)
    changed = {name for name, tensor in policy.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any("visual" in name for name in changed)
    assert any("language_model" in name for name in changed)
    assert not any(parameter.requires_grad for parameter in module.reference.parameters())


def test_all_that_is_promised_is_logged(policy: VideoPolicy, samples: list[Sample]) -> None:
    module = GRPOModule(policy, num_generations=4, lr=1e-3, sampling=SHORT)
    rows = fit(module, data(policy, samples[:4], 2), max_steps=2)
    parts = (
        "reward/total",
        "reward/format",
        "reward/iou",
        "iou",
        *(f"failed/{reason}" for reason in REASONS),
    )
    plain = (
        "loss kl clip_fraction clip_fraction_low clip_fraction_high ratio_max entropy reward reward_std "
        "advantage_spread zero_variance_groups resampled_groups left_out_groups overlong_penalty "
        "completion_tokens truncated sampler_mismatch sampler_mismatch_max sampler_correction "
        "lost_samples unjudged skipped_micro_batches skipped_updates grad_norm grad_clipped lr"
    )
    expected = {f"train/{name}" for name in plain.split()}
    expected |= {f"train/grounding/{name}" for name in parts}
    expected |= {f"train/seconds/{name}" for name in PHASES}
    assert len(rows) == 2
    for row in rows:
        assert set(row) - {"epoch"} == expected
        assert all(math.isfinite(value) for value in row.values())
        assert all(row[f"train/seconds/{name}"] > 0 for name in PHASES)
        assert row["train/clip_fraction"] == 0  # one update per rollout
        assert row["train/ratio_max"] == 1
        # The sampler decodes token by token over a cache, the trainer takes all at once: rounding apart.
        assert 0 < row["train/sampler_mismatch"] <= row["train/sampler_mismatch_max"] < 1e-4
        assert (row["train/lost_samples"], row["train/unjudged"]) == (0, 0)
        assert row["train/grounding/iou"] == row["train/grounding/reward/iou"]
        assert row["train/reward"] == pytest.approx(
            row["train/grounding/reward/format"] + row["train/grounding/reward/iou"], abs=1e-6
        )
        assert row["train/grounding/reward/total"] == row["train/reward"]
    assert rows[0]["train/kl"] < 1e-6  # the policy still is the reference
    assert rows[1]["train/kl"] > 1e-4  # and now it is not


def test_without_kl_there_is_no_reference(policy: VideoPolicy, samples: list[Sample]) -> None:
    module = GRPOModule(policy, num_generations=2, objective=FREE, sampling=SHORT)
    assert module.reference is None
    assert [name for name, _ in module.named_parameters()] == [
        f"policy.{name}" for name, _ in policy.named_parameters()
    ]
    (row,) = fit(module, data(policy, samples[:2], 1))
    assert row["train/kl"] == 0


def test_the_loss_of_a_step_is_the_formula(policy: VideoPolicy, samples: list[Sample]) -> None:
    beta = 0.3
    module = GRPOModule(
        policy, num_generations=4, objective=Objective(kl_weight=beta), lr=1e-3, sampling=SHORT
    )
    assert module.reference is not None
    reference, policy = copy.deepcopy(module.reference), disturbed(policy, 0.04)
    before = copy.deepcopy(policy)
    rollouts = spied(policy)
    source = data(policy, samples[:4], 2)
    batches: list[Batch] = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
            batches.append(batch)

    (row,) = fit(module, source, callbacks=[Watch()])
    ((groups,), (batch,)) = rollouts, batches
    costs, spreads, kls, lengths, totals = [], [], [], [], []
    for prompt, sample in enumerate(batch.samples):
        rewards = [one.total for one in judge(source.task, groups.texts[prompt], [sample] * 4)]
        mean = sum(rewards) / 4
        std = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / 3)
        advantages = [(reward - mean) / (std + 1e-4) for reward in rewards]
        spreads.append(max(advantages) - min(advantages))
        totals += rewards
        for member in range(4):
            kept = groups.completion_mask[prompt, member]
            ids = groups.completion_ids[prompt, member][kept].tolist()
            ours = plain_logprobs(before, batch.inputs[prompt], ids)
            theirs = plain_logprobs(reference, batch.inputs[prompt], ids)
            # -(ratio A - beta KL) with a ratio of 1, averaged over the completion's tokens.
            kl = torch.exp(theirs - ours) - (theirs - ours) - 1
            costs.append((-advantages[member] + beta * kl).mean().item())
            kls += kl.tolist()
            lengths.append(len(ids))
            assert (ids[-1] == policy.encoder.end_of_turn) != groups.truncated[prompt, member].item()
    assert len(set(lengths)) > 1  # else the order of the two means could not be told apart
    assert row["train/loss"] == pytest.approx(sum(costs) / 8, abs=2e-5)
    assert row["train/kl"] == pytest.approx(sum(kls) / len(kls), rel=1e-3)
    assert row["train/kl"] > 0.01
    assert row["train/reward"] == pytest.approx(sum(totals) / 8, abs=1e-6)
    assert row["train/advantage_spread"] == pytest.approx(sum(spreads) / 2, rel=1e-4)
    assert row["train/completion_tokens"] == pytest.approx(sum(lengths) / 8)


def test_the_first_update_favours_the_better_completions(policy: VideoPolicy, samples: list[Sample]) -> None:
    module = GRPOModule(policy, num_generations=8, objective=FREE, lr=3e-5, sampling=SHORT)
    before = copy.deepcopy(policy)
    rollouts = spied(policy)
    source = data(policy, samples[:1], 1)
    fit(module, source)
    (groups,) = rollouts
    rewards = [one.total for one in judge(source.task, groups.texts[0], samples[:1] * 8)]
    assert len(set(rewards)) > 1
    mean = sum(rewards) / 8
    gain = 0.0
    for member, reward in enumerate(rewards):
        ids = groups.completion_ids[0, member][groups.completion_mask[0, member]].tolist()
        now, then = (plain_logprobs(one, groups.inputs[0], ids) for one in (policy, before))
        gain += (reward - mean) * (now - then).mean().item()
    assert gain > 0


@pytest.mark.parametrize("freeze", [[], ["vision"]])
def test_vision_runs_once_per_model_that_has_its_own(samples: list[Sample], freeze: list[str]) -> None:
    policy = load_policy("builtin:tiny", dtype="float32", freeze=freeze)
    module = GRPOModule(policy, num_generations=2, lr=1e-3, sampling=SHORT)
    assert module.reference is not None
    vision = state(policy.model.model.visual)
    ours, theirs = calls(policy.model.model.visual), calls(module.reference.model.model.visual)
    fit(module, data(policy, samples[:4], 2), max_steps=2)
    # One pass per step serves rollout and update of a batch of two; the reference repeats it only where the
    # policy's vision tower moves away from its own.
    assert len(ours) == 2
    assert theirs == ([] if freeze else [False, False])
    assert same(state(policy.model.model.visual), vision) == bool(freeze)


# ---------------------------------------------------------------------------------------- lost samples


def test_a_run_goes_on_without_a_lost_sample(
    policy: VideoPolicy, samples: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    module = GRPOModule(policy, num_generations=2, lr=1e-3, sampling=SHORT)
    before = state(policy)
    rows = fit(module, data(policy, samples[3:], 2), max_steps=2)
    assert re.search(r"sample lost is lost: .*corrupt\.mp4", caplog.text)
    assert [row["train/lost_samples"] for row in rows] == [1.0, 2.0]  # one in each of two updates
    assert all(math.isfinite(row["train/loss"]) for row in rows)
    assert not same(state(policy), before)


@pytest.mark.parametrize("algorithm", [GRPOModule, SFTModule])
def test_a_batch_without_samples_teaches_nothing(
    policy: VideoPolicy, samples: list[Sample], algorithm: Callable[..., PolicyModule]
) -> None:
    module = algorithm(policy, lr=1e-3, sampling=SHORT)
    before = state(policy)
    gradients = Gradients()
    (row,) = fit(module, data(policy, samples[4:], 1), callbacks=[gradients])
    assert same(state(policy), before)
    assert row["train/lost_samples"] == 1
    assert "train/loss" not in row  # no rank has a value
    assert all(math.isfinite(value) for value in row.values())
    # Every parameter takes part, so that ranks that wait for one another all go on.
    assert gradients.gradients[0].keys() == {name for name, _ in policy.named_parameters()}
    assert all(bool((gradient == 0).all()) for gradient in gradients.gradients[0].values())


def test_a_lost_batch_sends_the_same_numbers_to_the_other_ranks(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, logged = [], []
    for chosen in (samples[:1], samples[4:]):
        policy = load_policy("builtin:tiny", dtype="float32")
        module = GRPOModule(policy, num_generations=2, sampling=SHORT)
        keys: list[str] = []

        def spy(metrics: dict[str, float], *more: Any, keys: list[str] = keys) -> dict[str, float]:
            keys.extend(metrics)
            return mean_over_ranks(metrics, *more)

        monkeypatch.setattr(update_log, "mean_over_ranks", spy)
        (row,) = fit(module, data(policy, chosen, 1))
        sent.append(keys)
        logged.append(set(row))
    assert sent[0] == sent[1]  # in order, too: the mean over the ranks is taken position by position
    known = {
        "lr",
        "grad_norm",
        "grad_clipped",
        *COUNTS,
        *(f"seconds/{name}" for name in logged_phases(logged[1])),
    }
    assert logged[1] - {"epoch"} == {f"train/{name}" for name in known}
    assert {"train/loss", "train/reward", "train/grounding/iou"} <= logged[0]


def logged_phases(keys: set[str]) -> set[str]:
    return {key.rsplit("/", 1)[1] for key in keys if "/seconds/" in key}


# --------------------------------------------------------------------------------------------- batches


def test_accumulated_micro_batches_are_one_batch(samples: list[Sample]) -> None:
    # Answers of the synthetic world have equally many tokens, so the mean over the tokens of two samples is
    # the mean of their means; the order of a batch does not matter to it.
    gradients, weights = [], []
    for batch_size, accumulate in ((2, 1), (1, 2)):
        policy = load_policy("builtin:tiny", dtype="float32")
        lengths = {len(policy.encoder.completion_ids(GroundingTask().answer(s))) for s in samples[:2]}
        assert len(lengths) == 1
        watch = Gradients()
        module = SFTModule(policy, lr=1e-3)
        rows = fit(
            module,
            data(policy, samples[:2], batch_size),
            accumulate_grad_batches=accumulate,
            callbacks=[watch],
        )
        assert len(rows) == len(watch.gradients) == 1
        gradients.append(watch.gradients[0])
        weights.append(state(policy))
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-3, atol=1e-6), name
    # AdamW's first step is lr * g / (|g| + 1e-8): it doubles rounding errors where g is nearly 0, so the
    # weights are compared where it is not.
    for name, gradient in gradients[0].items():
        clear = gradient.abs() > 1e-4
        assert torch.allclose(weights[0][name][clear], weights[1][name][clear], atol=1e-6), name


def test_an_update_logs_all_of_its_micro_batches(policy: VideoPolicy, samples: list[Sample]) -> None:
    # One prompt at a time, in order: a good one, then the lost one; both orders make one update of two.
    for order in ([samples[0], samples[4]], [samples[4], samples[0]]):
        source = data(policy, order, 1, shuffle=False)
        module = GRPOModule(policy, num_generations=2, sampling=SHORT)
        (row,) = fit(module, source, max_steps=1, accumulate_grad_batches=2)
        assert row["train/lost_samples"] == 1.0
        assert math.isfinite(row["train/loss"])
        assert math.isfinite(row["train/reward"])


# --------------------------------------------------------------------------------------- several tasks

GROUNDING_KEYS = {"reward/total", "reward/format", "reward/iou", "iou"}
QA_KEYS = {"reward/total", "reward/format", "reward/accuracy", "accuracy"}


def test_an_update_over_two_tasks_logs_both(policy: VideoPolicy, samples: list[Sample]) -> None:
    module = GRPOModule(policy, num_generations=2, lr=1e-3, sampling=SHORT)
    source = two_tasks(policy, samples[:2])
    rows = fit(module, source, max_steps=2, accumulate_grad_batches=2)
    assert len(rows) == 2
    for row in rows:
        assert {f"train/grounding/{name}" for name in GROUNDING_KEYS} <= set(row)
        assert {f"train/qa/{name}" for name in QA_KEYS} <= set(row)
        assert {f"train/qa/failed/{name}" for name in source.parts["qa"].task.failure_reasons} <= set(row)
        assert [name for name, value in row.items() if math.isnan(value)] == []
        # A micro-batch of each task makes an update: what both have is the mean, what one has is its own.
        totals = [row[f"train/{name}/reward/total"] for name in ("grounding", "qa")]
        assert row["train/reward"] == pytest.approx(sum(totals) / 2, abs=1e-6)
        for name, parts in (("grounding", ("format", "iou")), ("qa", ("format", "accuracy"))):
            own = sum(row[f"train/{name}/reward/{one}"] for one in parts)
            assert row[f"train/{name}/reward/total"] == pytest.approx(own, abs=1e-6)


def test_an_update_of_one_task_says_nothing_of_the_other(policy: VideoPolicy, samples: list[Sample]) -> None:
    module = GRPOModule(policy, num_generations=2, lr=1e-3, sampling=SHORT)
    rows = fit(module, two_tasks(policy, samples[:1]), max_steps=2)
    named = [{part for key in row for part in key.split("/")} & {"grounding", "qa"} for row in rows]
    assert named == [{"grounding"}, {"qa"}]
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_each_task_teaches_with_its_own_answers(policy: VideoPolicy, samples: list[Sample]) -> None:
    source = two_tasks(policy, samples[:1])
    taught: list[list[str]] = []
    groups_of = policy.teacher_groups

    def spy(inputs: Any, answers: list[str]) -> RolloutGroups:
        taught.append(answers)
        return groups_of(inputs, answers)

    policy.teacher_groups = spy  # type: ignore[method-assign]
    rows = fit(SFTModule(policy, lr=1e-3), source, max_steps=2)
    assert taught == [
        ["<think>red</think><answer>1.0 to 2.5</answer>"],
        [source.parts["qa"].task.answer(source.parts["qa"].samples("train")[0])],
    ]
    assert taught[1][0].endswith("<answer>A</answer>")
    assert all(math.isfinite(row["train/loss"]) for row in rows)


# -------------------------------------------------------------------------------------- failed judges


class EveryOther:
    """A reward whose judge fails at every second completion, or at all but every ``n``-th."""

    def __init__(self, n: int = 2) -> None:
        self.n, self.asked = n, itertools.count()
        self.judged: list[float] = []

    def __call__(self, completion: Completion, sample: Sample) -> float:
        place = next(self.asked)
        if place % self.n:
            return math.nan
        self.judged.append(place / 100)
        return self.judged[-1]


class SlowJudge(GroundingTask):
    """Begins to judge, and ends when it is told to; after ten seconds in any case."""

    def __init__(self, happened: list[str]) -> None:
        super().__init__()
        self.happened = happened
        self.may_end = threading.Event()

    def judge(self, texts: Any, samples: Any) -> Future[list[Judgement]]:
        self.happened.append("judging begins")
        judgements = super().judge(texts, samples).result()

        def end() -> list[Judgement]:
            self.may_end.wait(10)
            self.happened.append("judging ends")
            return judgements

        return ThreadPoolExecutor(1).submit(end)


def test_a_judge_works_while_the_passes_run(policy: VideoPolicy, samples: list[Sample]) -> None:
    happened: list[str] = []
    judge = SlowJudge(happened)
    module = GRPOModule(policy, num_generations=2, sampling=SHORT)
    for name, model in (("policy", policy), ("reference", module.reference)):
        original = model.logprobs  # type: ignore[union-attr]

        def noted(*args: Any, _name: str = name, _original: Any = original) -> Any:
            happened.append(f"{_name} pass")
            if _name == "policy":
                judge.may_end.set()
            return _original(*args)

        model.logprobs = noted  # type: ignore[method-assign, union-attr]
    fit(module, part(judge, policy, samples[:1], 1))
    assert happened == ["judging begins", "reference pass", "policy pass", "judging ends"]


def test_unjudged_completions_are_counted_and_teach_nothing(
    policy: VideoPolicy, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def spy(logprobs: Tensor, advantages: Tensor, *others: Any, **more: Any) -> PolicyLoss:
        seen.append(advantages)
        return policy_loss(logprobs, advantages, *others, **more)

    monkeypatch.setattr("vcr1.module.grpo.policy_loss", spy)
    reward = EveryOther()
    source = part(
        GroundingTask(rewards={"own": reward}, weights={"format": 0, "iou": 0}), policy, samples[:2], 2
    )
    module = GRPOModule(policy, num_generations=4, lr=1e-3, sampling=SHORT)
    rows = fit(module, source, max_steps=2)
    assert [row["train/unjudged"] for row in rows] == [4.0, 8.0]  # of eight completions each, added up
    # Groups of x, x + 0.02 and two that are not judged: std 0.02 / sqrt(2).
    high = 0.01 / (0.02 / math.sqrt(2) + 1e-4)
    for advantages, row, first in zip(seen, rows, (0.0, 0.08), strict=True):
        assert advantages.tolist() == [pytest.approx([-high, 0, high, 0], rel=1e-4)] * 2
        # first, + 0.02, + 0.04, + 0.06
        assert row["train/grounding/reward/own"] == pytest.approx(first + 0.03, abs=1e-6)
        assert row["train/reward"] == row["train/grounding/reward/total"] == row["train/grounding/reward/own"]
        assert row["train/reward_std"] == pytest.approx(0.02 / math.sqrt(2), rel=1e-4)
        assert row["train/zero_variance_groups"] == 0
        assert all(math.isfinite(value) for value in row.values())


def test_a_judge_that_fails_all_but_once_changes_nothing(policy: VideoPolicy, samples: list[Sample]) -> None:
    # One judged completion of a group of four has nothing to be compared with.
    before = state(policy)
    task = GroundingTask(rewards={"own": EveryOther(4)})
    module = GRPOModule(policy, num_generations=4, objective=FREE, lr=1e-3, sampling=SHORT)
    (row,) = fit(module, part(task, policy, samples[:2], 2))
    assert same(state(policy), before)
    assert row["train/unjudged"] == 6
    assert (row["train/zero_variance_groups"], row["train/reward_std"], row["train/loss"]) == (1, 0, 0)


def test_a_judge_that_fails_always_logs_no_reward(policy: VideoPolicy, samples: list[Sample]) -> None:
    before = state(policy)
    task = GroundingTask(rewards={"own": lambda completion, sample: math.nan})
    module = GRPOModule(policy, num_generations=2, objective=FREE, lr=1e-3, sampling=SHORT)
    (row,) = fit(module, part(task, policy, samples[:1], 1))
    assert same(state(policy), before)
    missing = {"train/reward", "train/grounding/reward/total", "train/grounding/reward/own"}
    assert missing & set(row) == set()
    assert "train/grounding/reward/iou" in row
    assert (row["train/unjudged"], row["train/loss"]) == (2, 0)


def test_a_place_in_the_run_has_its_own_draws(policy: VideoPolicy) -> None:
    def draws(seed: int = 0, epoch: int = 0, batch: int = 0, rank: int = 0) -> list[float]:
        module = SFTModule(policy, seed=seed)
        module.trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)  # type: ignore[assignment]
        return [float(seed) for seed in module.seeds(batch, 2)]

    assert draws() == draws()
    places = [{}, {"seed": 1}, {"epoch": 1}, {"batch": 1}, {"rank": 1}, {"epoch": 1, "batch": 1}]
    assert len({tuple(draws(**place)) for place in places}) == len(places)
    assert draws(epoch=1, batch=11) != draws(epoch=11, batch=1)


def test_equal_seeds_give_equal_runs(samples: list[Sample]) -> None:
    def run(seed: int) -> tuple[list[list[list[str]]], dict[str, Tensor]]:
        policy = load_policy("builtin:tiny", dtype="float32")
        rollouts = spied(policy)
        module = GRPOModule(policy, num_generations=4, lr=1e-3, sampling=SHORT, seed=seed)
        fit(module, data(policy, samples[:2], 2), max_steps=2)
        return [groups.texts for groups in rollouts], state(policy)

    texts, weights = run(7)
    again, same_weights = run(7)
    assert texts == again
    assert same(weights, same_weights)
    assert texts[0] != texts[1]
    assert run(8)[0][0] != texts[0]


# ----------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_leaves_the_reference_out_and_loads_back(
    policy: VideoPolicy, samples: list[Sample], tmp_path: Path
) -> None:
    module = GRPOModule(policy, num_generations=2, lr=1e-3, sampling=SHORT)
    first = trainer(max_steps=1)
    first.fit(module, data(policy, samples[:2], 2))
    path = tmp_path / "one.ckpt"
    first.save_checkpoint(path)
    saved = torch.load(path, weights_only=False)["state_dict"]
    assert saved.keys() == {f"policy.{name}" for name in policy.state_dict()}

    other = disturbed(load_policy("builtin:tiny", dtype="float32"))
    started_as = state(other)
    fresh = GRPOModule.load_from_checkpoint(path, policy=other, num_generations=2, sampling=SHORT)
    assert same(state(fresh.policy), state(policy))
    assert fresh.reference is not None
    assert same(state(fresh.reference), started_as)

    resumed = GRPOModule(
        load_policy("builtin:tiny", dtype="float32"), num_generations=2, lr=1e-3, sampling=SHORT
    )
    records = Records()
    second = trainer(max_steps=2, logger=records)
    second.fit(resumed, data(resumed.policy, samples[:2], 2), ckpt_path=path, weights_only=False)
    assert second.global_step == 2
    assert len(records.rows) == 1
    assert records.rows[0]["train/kl"] > 1e-4  # against the model that the first run began with


# ------------------------------------------------------------------------------------- settings, rates


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_generations": 1}, r"algorithm\.num_generations=1: a group needs at least 2"),
        ({"sampling": Sampling(temperature=0.0)}, r"rollout\.temperature=0 makes all completions"),
        (
            {"num_generations": 0, "objective": Objective(advantage="batch")},
            r"algorithm\.num_generations=0: a group needs at least 1",
        ),
        ({"updates_per_rollout": 0}, r"algorithm\.updates_per_rollout=0 is no whole number of at least 1"),
        ({"max_resamples": -1}, r"algorithm\.max_resamples=-1 is no whole number of at least 0"),
        ({"old_logprobs": "both"}, r"algorithm\.old_logprobs=both; choose from trainer, sampler"),
        ({"overlong_buffer": 2}, r"algorithm\.overlong_buffer=2 is no share"),
        ({"reference_refresh": 0}, r"algorithm\.reference_refresh=0 is no whole number of at least 1"),
        (
            {"reference_refresh": 5, "objective": Objective(kl_weight=0)},
            r"algorithm\.reference_refresh=5, but .*kl_weight=0",
        ),
        (
            {"warmup_steps": 2.5},
            r"algorithm\.warmup_steps=2\.5 must be a whole number of updates, or a share",
        ),
        ({"warmup_steps": -3}, r"algorithm\.warmup_steps=-3 must be"),
        ({"warmup_steps": None}, r"algorithm\.warmup_steps=None must be"),
        ({"final_lr": -1}, r"algorithm\.final_lr=-1 must be a share"),
        ({"betas": [0.9]}, r"algorithm\.betas=\[0\.9\] must be two numbers"),
        ({"betas": [0.9, 1.0]}, r"algorithm\.betas=\[0\.9, 1\.0\] must be two numbers"),
        ({"betas": None}, r"algorithm\.betas=None must be two numbers"),
        ({"weight_decay": -0.1}, r"algorithm\.weight_decay=-0\.1 must be"),
        ({"weight_decay": math.nan}, r"algorithm\.weight_decay=nan must be"),
        ({"schedule": "step"}, r"algorithm\.schedule=step; choose from constant, linear, cosine"),
    ],
)
def test_settings_that_cannot_be_are_named(
    policy: VideoPolicy, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        GRPOModule(policy, **settings)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        # Warm-up of 2: 1/2, 1. Then updates 2, 3, 4, 5, 6 and one beyond lie at 0, 1/4, ... 1, 1 of the way.
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1]),
        # 0.2 + 0.8 (1 - p)
        ("linear", [0.5, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2]),
        # 0.2 + 0.8 (1 + cos(pi p)) / 2, with cos(pi / 4) = 0.70710678: 0.2 + 0.8 * 0.85355339
        ("cosine", [0.5, 1, 1, 0.88284271, 0.6, 0.31715729, 0.2, 0.2]),
    ],
)
def test_learning_rate_over_the_updates(schedule: str, factors: list[float]) -> None:
    found = [lr_factor(update, warmup=2, total=6, schedule=schedule, final=0.2) for update in range(8)]
    assert found == pytest.approx(factors)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_learning_rate_at_the_borders(schedule: str) -> None:
    assert lr_factor(0, warmup=0, total=10, schedule=schedule, final=0.0) == 1
    assert lr_factor(10, warmup=0, total=10, schedule=schedule, final=0.0) == (schedule == "constant")
    assert lr_factor(99, warmup=0, total=math.inf, schedule=schedule, final=0.0) == 1  # a run without an end
    assert lr_factor(3, warmup=4, total=4, schedule=schedule, final=0.5) == 1
    assert lr_factor(0, warmup=10, total=5, schedule=schedule, final=0.5) == 0.1  # shorter than its warm-up


def test_an_update_uses_the_scheduled_rate(policy: VideoPolicy, samples: list[Sample]) -> None:
    watch = Gradients()
    module = SFTModule(policy, lr=1e-3, schedule="linear", warmup_steps=2)
    fit(module, data(policy, samples[:2], 2), max_steps=4, callbacks=[watch])
    # Warm-up 1/2, 1; then 1 and, half way to the end, 1/2.
    assert watch.lr == pytest.approx([0.5e-3, 1e-3, 1e-3, 0.5e-3])


def test_the_logged_rate_is_the_one_of_the_update(policy: VideoPolicy, samples: list[Sample]) -> None:
    watch = Gradients()
    module = SFTModule(policy, lr=1e-3, schedule="linear")
    rows = fit(module, data(policy, samples[:2], 2), max_steps=2, callbacks=[watch])
    assert [row["train/lr"] for row in rows] == pytest.approx(watch.lr)


def test_waiting_for_data_starts_with_training(policy: VideoPolicy, samples: list[Sample]) -> None:
    module = SFTModule(policy)
    time.sleep(1.0)
    (row,) = fit(module, data(policy, samples[:1], 1))
    assert row["train/seconds/data"] < 0.9


def test_validation_is_not_waiting_for_data(policy: VideoPolicy, samples: list[Sample]) -> None:
    class Slow(L.Callback):
        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            time.sleep(1.0)

    module = SFTModule(policy, sampling=Sampling(max_new_tokens=1))
    settings = {"limit_val_batches": 1, "val_check_interval": 1, "num_sanity_val_steps": 0}
    rows = fit(module, data(policy, samples[:1], 1), max_steps=2, callbacks=[Slow()], **settings)
    steps = [row for row in rows if "train/seconds/data" in row]
    assert len(steps) == 2
    assert steps[1]["train/seconds/data"] < 0.9


# ------------------------------------------------------------------------------------------------- SFT


def test_the_loss_of_sft_is_the_cross_entropy(policy: VideoPolicy, samples: list[Sample]) -> None:
    before = copy.deepcopy(policy)
    source = data(policy, samples[:2], 2)
    # An answer of another length, so that a mean over tokens is no mean over answers.
    longer = copy.copy(samples[1])
    object.__setattr__(longer, "extra", samples[1].extra | {"rationale": "blue blue blue red circle"})
    source.annotations["train"].samples[1] = longer
    (batch,) = source.train_dataloader()
    (row,) = fit(SFTModule(policy, lr=1e-3), source)
    logs = []
    for sample, inputs in zip(batch.samples, batch.inputs, strict=True):
        ids = policy.encoder.tokenizer(source.task.answer(sample))["input_ids"]
        logs.append(plain_logprobs(before, inputs, [*ids, policy.encoder.end_of_turn]))
    assert len(logs[0]) != len(logs[1])
    assert row["train/cross_entropy"] == pytest.approx(-torch.cat(logs).mean().item(), abs=1e-5)
    assert row["train/loss"] == pytest.approx(row["train/cross_entropy"], abs=1e-6)
    assert row["train/auxiliary_loss"] == 0
    assert row["train/entropy"] > 0


def test_sft_learns_its_answers(policy: VideoPolicy, samples: list[Sample]) -> None:
    rows = fit(SFTModule(policy, lr=1e-3), data(policy, samples[:4], 4), max_steps=10)
    losses = [row["train/loss"] for row in rows]
    assert len(losses) == 10
    assert losses[-1] < 0.6 * losses[0]


def test_an_auxiliary_loss_has_its_weight(policy: VideoPolicy, samples: list[Sample]) -> None:
    seen = []

    def auxiliary(given: VideoPolicy, batch: Batch, hidden: Tensor) -> Tensor:
        length = batch.inputs[0]["input_ids"].shape[1]
        seen.append((given is policy, [s.id for s in batch.samples], list(hidden.shape[:2]) == [1, length]))
        return 2.0 + 0.0 * given.model.lm_head.weight.sum()

    module = SFTModule(policy, auxiliary=auxiliary, auxiliary_weight=0.25)
    (row,) = fit(module, data(policy, samples[:1], 1))
    assert seen == [(True, ["0-red"], True)]
    assert row["train/auxiliary_loss"] == 2.0
    assert row["train/loss"] == pytest.approx(row["train/cross_entropy"] + 0.25 * 2.0)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*deprecated")
def test_sft_recomputes_where_gradient_checkpointing_is_asked_for(samples: list[Sample]) -> None:
    policy = load_policy("builtin:tiny", dtype="float32", gradient_checkpointing=True)
    entered: list[int] = []
    block = policy.model.model.language_model.layers[0].mlp
    block.register_forward_pre_hook(lambda *_: entered.append(1))
    fit(SFTModule(policy), data(policy, samples[:1], 1))
    assert len(entered) == 2  # once forward, once more in the backward pass


# ------------------------------------------------------------------------------------------ validation


def test_validation_counts_lost_samples_with_zero(policy: VideoPolicy, samples: list[Sample]) -> None:
    module = GRPOModule(policy, num_generations=2, sampling=SHORT)
    source = data(policy, samples, 1)
    rollouts = spied(policy)
    (metrics,) = trainer(limit_val_batches=None).validate(module, source, verbose=False)
    assert {len(texts) for groups in rollouts for texts in groups.texts} == {1}
    # The four good samples come in their order, in batches of 2, 2 and the lost one alone.
    texts = [texts[0] for groups in rollouts for texts in groups.texts]
    judged = judge(source.task, texts, samples[:4])
    ious = [judgement.metrics["iou"] for judgement in judged] + [0.0]
    assert sum(ious) > 0.5
    assert metrics["val/grounding/mIoU"] == pytest.approx(sum(ious) / 5)
    assert metrics["val/grounding/R@0.5"] == pytest.approx(sum(iou >= 0.5 for iou in ious) / 5)
    assert metrics["val/grounding/format"] <= 4 / 5 + 1e-6
    assert set(metrics) == {f"val/grounding/{name}" for name in ("mIoU", "R@0.3", "R@0.5", "R@0.7", "format")}
    (name, found), *others = module.judgements.items()
    assert (name, others) == ("grounding", [])
    assert list(found) == [sample.id for sample in samples]
    assert [found[sample.id] for sample in samples[:4]] == judged
    lost = found["lost"]
    assert (lost.total, lost.rewards, lost.metrics) == (0.0, {"format": 0.0, "iou": 0.0}, {"iou": 0.0})
    assert lost.failure == "lost_video"
    assert module.validated == {"grounding": source.task}
    assert module.summaries() == {"grounding": source.task.summarise([*sorted(judged, key=by_id), lost])}


def by_id(judgement: Judgement) -> str:
    return judgement.sample_id


def test_each_task_is_validated_by_itself(policy: VideoPolicy, samples: list[Sample]) -> None:
    module = GRPOModule(policy, num_generations=2, sampling=SHORT)
    source = two_tasks(policy, samples)
    run = trainer(limit_val_batches=None)
    rows = run.validate(module, source, verbose=False)
    found = {name: value for row in rows for name, value in row.items()}
    assert set(found) == {
        *(f"val/grounding/{name}" for name in ("mIoU", "R@0.3", "R@0.5", "R@0.7", "format")),
        *(f"val/qa/{name}" for name in ("accuracy", "accuracy/0", "accuracy/1", "accuracy/l", "format")),
    }
    # Both tasks ask about the same ids; neither takes the other's place.
    ids = [sample.id for sample in samples]
    assert {name: list(judged) for name, judged in module.judgements.items()} == {"grounding": ids, "qa": ids}
    assert {set(one.metrics).pop() for one in module.judgements["qa"].values()} == {"accuracy"}
    assert module.judgements["qa"]["lost"].category == "l"  # a lost sample counts in its category
    scores = module.summaries()
    assert found == pytest.approx(
        {f"val/{name}/{metric}": value for name, one in scores.items() for metric, value in one.items()}
    )
    assert scores["qa"]["accuracy/l"] == 0
    run.validate(module, source.parts["qa"], verbose=False)
    assert list(module.judgements) == list(module.summaries()) == ["qa"]


def test_validation_is_greedy_and_forgets_the_one_before(policy: VideoPolicy, samples: list[Sample]) -> None:
    module = GRPOModule(policy, num_generations=2, sampling=SHORT)
    run = trainer(limit_val_batches=None)
    run.validate(module, data(policy, samples[:4], 1), verbose=False)
    first = dict(module.judgements["grounding"])
    run.validate(module, data(policy, samples[:2], 1), verbose=False)
    found = module.judgements["grounding"]
    assert list(found) == ["0-red", "0-blue"]
    assert all(found[id_].completion == first[id_].completion for id_ in found)


def test_validation_between_updates_leaves_training_as_it_is(samples: list[Sample]) -> None:
    weights = []
    for interval in (None, 1):
        policy = load_policy("builtin:tiny", dtype="float32")
        module = GRPOModule(policy, num_generations=2, lr=1e-3, sampling=SHORT)
        settings = {"limit_val_batches": 1, "val_check_interval": 1} if interval else {}
        fit(module, data(policy, samples[:2], 2), max_steps=2, num_sanity_val_steps=0, **settings)
        weights.append(state(policy))
    assert same(weights[0], weights[1])


@pytest.mark.filterwarnings("ignore:Total length of .DataLoader. across ranks is zero")
def test_validation_without_any_sample_logs_nothing(policy: VideoPolicy) -> None:
    module = GRPOModule(policy, num_generations=2, sampling=SHORT)
    assert trainer(limit_val_batches=None).validate(module, data(policy, [], 1), verbose=False) in ([], [{}])


# -------------------------------------------------------------------------------------------- out of memory


class OutOfMemory(L.Callback):
    """Breaks off one backward pass in the middle of the language model."""

    def __init__(self, micro_batch: int) -> None:
        self.micro_batch = micro_batch
        self.handle: Any = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.micro_batch:
            layer = pl_module.policy.model.model.language_model.layers[1]
            self.handle = layer.register_full_backward_pre_hook(self.break_off)

    def break_off(self, *_: Any) -> None:
        self.handle.remove()
        raise torch.OutOfMemoryError("no memory left")


class Without(L.Callback):
    """Takes back the gradients of one micro-batch."""

    def __init__(self, micro_batch: int) -> None:
        self.micro_batch = micro_batch

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.micro_batch:
            pl_module.zero_grad()


@pytest.mark.parametrize("build", [GRPOModule, SFTModule])
@pytest.mark.parametrize("broken", [0, 1])
def test_a_backward_pass_without_memory_costs_what_its_update_has_so_far(
    build: type[PolicyModule], broken: int, samples: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    policy = load_policy("builtin:tiny")
    extra: dict[str, Any] = {"num_generations": 3} if build is GRPOModule else {}
    module = build(policy, sampling=SHORT, **extra)
    whole, mended = Gradients(), Gradients()
    with caplog.at_level(logging.WARNING):
        source = data(policy, samples[:-1], batch_size=2, shuffle=False)
        (row,) = fit(module, source, callbacks=[OutOfMemory(broken), mended], accumulate_grad_batches=2)
    # The gradients of an earlier micro-batch go with those that were broken off.
    assert row["train/skipped_micro_batches"] == 1 + broken
    assert sum("out of memory with tokens in a training pass" in said for said in caplog.messages) == 1
    assert policy.max_tokens is not None  # passes are smaller from now on
    if broken == 1:  # the second of two micro-batches: nothing is left
        assert not mended.gradients[0]
        return
    # The first of two: the update is the mean over the second one alone, and not half of it.
    policy = load_policy("builtin:tiny")
    module = build(policy, sampling=SHORT, **extra)
    only = data(policy, samples[:-1], batch_size=2, shuffle=False)
    fit(module, only, callbacks=[Without(0), whole], accumulate_grad_batches=2)
    assert whole.gradients[0].keys() == mended.gradients[0].keys()
    for name, expected in whole.gradients[0].items():
        assert (mended.gradients[0][name] / 2 - expected).norm() <= 1e-4 * expected.norm(), name
