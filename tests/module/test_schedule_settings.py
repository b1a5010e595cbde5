"""The warm-up in updates, or as a share of the run."""

import math

import pytest

from vcr1.errors import UserError
from vcr1.module.schedule import lr_factor, warmup_updates


@pytest.mark.parametrize(
    ("steps", "total", "updates"), [(0, 100, 0), (5, 100, 5), (0.1, 100, 10), (0.1, 15, 2), (1, 100, 1)]
)
def test_a_warm_up_below_1_is_a_share_of_the_run(steps: float, total: float, updates: int) -> None:
    assert warmup_updates(steps, total) == updates
    # No update is above the peak.
    assert max(lr_factor(update, updates, total, "constant", 0.0) for update in range(20)) <= 1.0


def test_a_share_of_a_run_without_end_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"algorithm\.warmup_steps=0\.1 is a share of the run, which has no end"
    ):
        warmup_updates(0.1, math.inf)
