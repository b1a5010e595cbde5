"""The timer of a training step, with a clock that the test moves."""

import time

import pytest

from vcr1.module.phases import PHASES, PhaseTimer


class HandTimer(PhaseTimer):
    """A timer whose clock stands still until the test moves it."""

    clock = 0.0

    def _now(self) -> float:
        return self.clock


@pytest.fixture
def timer() -> HandTimer:
    timer = HandTimer()
    timer.mark()
    return timer


def test_a_block_is_charged_to_its_phase(timer: HandTimer) -> None:
    timer.clock = 5.0  # nobody's time
    with timer("rollout"):
        timer.clock += 2.0
    timer.clock += 7.0  # nobody's either
    with timer("policy"):
        timer.clock += 0.5
    with timer("rollout"):
        timer.clock += 1.0
    assert timer.take() == dict.fromkeys(PHASES, 0.0) | {"rollout": 3.0, "policy": 0.5}


def test_spans_end_where_they_are_charged(timer: HandTimer) -> None:
    timer.clock = 1.0
    timer.charge("data")  # 0 to 1
    timer.clock = 4.0
    timer.charge("policy")  # 1 to 4
    timer.clock = 10.0
    timer.mark()  # 4 to 10 is nobody's
    timer.clock = 10.25
    timer.charge("optimizer")
    found = timer.take()
    assert (found["data"], found["policy"], found["optimizer"]) == (1.0, 3.0, 0.25)


def test_taking_starts_anew(timer: HandTimer) -> None:
    with timer("vision"):
        timer.clock += 1.0
    assert timer.take()["vision"] == 1.0
    assert timer.take() == dict.fromkeys(PHASES, 0.0)


def test_all_phases_are_always_there() -> None:
    phases = ("data", "vision", "rollout", "reward", "reference", "policy", "optimizer")
    assert tuple(PhaseTimer().take()) == PHASES == phases


def test_an_unknown_phase_is_refused(timer: HandTimer) -> None:
    with pytest.raises(KeyError, match="lunch"):
        timer.charge("lunch")


def test_an_error_goes_through(timer: HandTimer) -> None:
    with pytest.raises(ValueError, match="inside"), timer("reward"):
        raise ValueError("inside")


def test_the_clock_is_real() -> None:
    timer = PhaseTimer()
    began = time.perf_counter()
    with timer("reward"):
        time.sleep(0.02)
    assert 0.02 <= timer.take()["reward"] <= time.perf_counter() - began
