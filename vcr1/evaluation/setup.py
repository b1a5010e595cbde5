"""From the config of an evaluation to what is asked in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from vcr1.config.building import build
from vcr1.config.preflight import check_all, check_devices
from vcr1.errors import UserError
from vcr1.evaluation.benchmarks import Benchmark, read_benchmarks
from vcr1.evaluation.conversations import Conversation, read_conversations
from vcr1.evaluation.likelihoods import CONVERSATIONS
from vcr1.evaluation.looking import check_plan
from vcr1.inference.clues import CluePlan
from vcr1.inference.limits import Limits
from vcr1.policy import Sampling


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything that a model, and its base, is asked in an evaluation.

    Attributes:
        benchmarks: whose questions are answered.
        sampling: how.
        plan: whether and how the model looks again.
        conversations: what it reads behind them.
        limits: what is not asked.
    """

    benchmarks: list[Benchmark]
    sampling: Sampling
    plan: CluePlan
    conversations: list[Conversation]
    limits: Limits


def preflight_evaluation(cfg: DictConfig, models: Sequence[Callable[[], object]]) -> Asked:
    """Check everything that an evaluation needs, and read its annotations on the way.

    Args:
        cfg: the evaluation's config.
        models: see that the models can be had.

    Raises:
        UserError: all that is missing, in one message.
    """
    benchmarks: list[Benchmark] = []
    sampling: list[Sampling] = []
    plan: list[CluePlan] = []
    limits: list[Limits] = []
    conversations: list[Conversation] = []
    checks: list[Callable[[], object]] = [
        lambda: check_devices(cfg.trainer.accelerator, cfg.trainer.devices),
        *models,
        lambda: benchmarks.extend(read_benchmarks(cfg, cfg.evaluation.limit)),
        lambda: sampling.append(sampling_of(cfg)),
        lambda: plan.append(build(cfg.clues)),
        lambda: check_plan(benchmarks, plan[0], cfg.evaluation.draws) if plan else None,
        lambda: conversations.extend(conversations_of(cfg)),
        lambda: limits.append(limits_of(cfg)),
        lambda: probe_tasks(benchmarks),
    ]
    check_all(checks)
    return Asked(benchmarks, sampling[0], plan[0], conversations, limits[0])


def conversations_of(cfg: DictConfig) -> list[Conversation]:
    """Return the conversations whose likelihood is wanted.

    Raises:
        UserError: they cannot be read, or a benchmark has their name.
    """
    if cfg.conversations is None:
        return []
    if CONVERSATIONS in (cfg.get("benchmarks") or {}):
        raise UserError(f"conversations={cfg.conversations}: no benchmark may be called {CONVERSATIONS} then")
    return read_conversations(str(cfg.conversations))


def probe_tasks(benchmarks: Sequence[Benchmark]) -> None:
    """See that what the tasks need from outside, such as a judge, answers."""
    for one in benchmarks:
        one.task.probe()


def limits_of(cfg: DictConfig) -> Limits:
    """Return what is not asked.

    Raises:
        UserError: a limit that is none.
    """
    longest, seconds = cfg.evaluation.longest, cfg.evaluation.seconds
    if not isinstance(longest, int) or longest < 1:
        raise UserError(f"evaluation.longest={longest} is no whole number of at least 1")
    if not isinstance(seconds, int | float) or not seconds > 0:
        raise UserError(f"evaluation.seconds={seconds} is no positive number")
    return Limits(longest, float(seconds), group="evaluation")


def sampling_of(cfg: DictConfig) -> Sampling:
    """Return how completions are drawn.

    Raises:
        UserError: a number of draws that makes no sense, several of them without a temperature included.
    """
    draws, sampling = cfg.evaluation.draws, build(cfg.rollout)
    if not isinstance(draws, int) or draws < 1:
        raise UserError(f"evaluation.draws={draws} is no whole number of at least 1")
    if draws > 1 and sampling.temperature == 0:
        raise UserError(
            f"evaluation.draws={draws} with rollout.temperature=0: all draws would be the same; "
            f"set a temperature, such as rollout.temperature=0.7"
        )
    found: Sampling = sampling
    return found
