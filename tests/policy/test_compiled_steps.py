"""Compiled decode steps: held to the plain ones, token by token."""

import logging
from typing import Any

import pytest
import torch
from small_models import prompts, small_policy
from torch import Tensor

from vcr1.errors import UserError
from vcr1.policy import Sampling
from vcr1.policy.generation import compiled
from vcr1.policy.generation.slots import PlainStep


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What stands for ``torch.compile``: the step itself, off by ``error``, counting its calls."""
    found: dict[str, Any] = {"error": 0.0, "calls": 0}

    def compile_(step: Any, **_: Any) -> Any:
        def run(*arguments: Any) -> Tensor:
            found["calls"] += 1
            if isinstance(found["error"], Exception):
                raise found["error"]
            logits: Tensor = step(*arguments)
            logits[:, 3] += found["error"]
            return logits

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    return found


def rolled(compile: bool | str, dtype: torch.dtype = torch.float32) -> Any:
    policy = small_policy("qwen2_5_vl").to(dtype)
    inputs = prompts("qwen2_5_vl")
    with torch.no_grad():
        features = policy.vision(inputs)
    settings = Sampling(20, temperature=1.3, rows=8, compile=compile)
    return policy, policy.rollout(inputs, features, 3, settings, [1, 2, 3, 4])


def test_one_compilation_serves_a_whole_rollout_with_the_same_tokens() -> None:
    # Rows end, leave and make room on the way: batches of 2 x 4, 2 x 2 and 1 x 2 slots.
    # In float64: the float32 of one form is 1.1e-5 from that of the other at one token in 240.
    _, expected = rolled(False, torch.float64)
    torch._dynamo.reset()
    policy, found = rolled(True, torch.float64)
    assert policy.steps.of(Sampling(compile=True), torch.device("cpu")).agrees  # type: ignore[attr-defined]
    assert torch.equal(found.completion_ids, expected.completion_ids)
    torch.testing.assert_close(found.logprobs, expected.logprobs, atol=1e-5, rtol=0)


def test_a_step_that_agrees_is_taken(fake: dict[str, Any]) -> None:
    _, expected = rolled(False)
    assert fake["calls"] == 0
    _, found = rolled(True)
    assert fake["calls"] > 10
    assert torch.equal(found.completion_ids, expected.completion_ids)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (1.0, "its log-probs differ by "),
        (float("nan"), "its log-probs differ by nan"),
        (RuntimeError("no compiler\nat all"), "no compiler"),
    ],
)
def test_a_step_that_does_not_agree_is_left_with_a_sentence(
    fake: dict[str, Any], error: Any, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr(compiled, "PAYS_ON", {"cpu": 16})
    fake["error"] = error
    _, expected = rolled(False)
    with caplog.at_level(logging.WARNING):
        _, found = rolled("auto")
    assert fake["calls"] == 1
    (message,) = caplog.messages
    assert message.startswith(f"rollout.compile=auto: decode steps are not compiled: {said}")
    assert torch.equal(found.completion_ids, expected.completion_ids)
    with pytest.raises(UserError, match=r"^rollout.compile=true: the decode step cannot be compiled here: "):
        rolled(True)


def test_auto_compiles_long_rollouts_on_a_gpu() -> None:
    steps = compiled.Steps()
    for length, device, taken in ((128, "cuda", True), (127, "cuda", False), (4096, "cpu", False)):
        found = steps.of(Sampling(length), torch.device(device))
        assert isinstance(found, PlainStep) is not taken
    assert isinstance(steps.of(Sampling(4096, compile=False), torch.device("cuda")), PlainStep)
    assert isinstance(steps.of(Sampling(4096), torch.device("cuda"), sharded=True), PlainStep)
    with pytest.raises(UserError, match=r"^rollout\.compile=true compiles no weights that are spread"):
        steps.of(Sampling(compile=True), torch.device("cpu"), sharded=True)
    with pytest.raises(UserError, match=r"rollout\.compile=fast; choose from auto, true, false"):
        Sampling(compile="fast")
