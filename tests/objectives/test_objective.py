"""What an objective refuses."""

from typing import Any

import pytest

from vcr1.errors import UserError
from vcr1.objectives import Objective


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"advantage": "best"},
            r"algorithm\.objective\.advantage=best; choose from group, centred, leave_one_out, batch",
        ),
        ({"ratio": "word"}, r"algorithm\.objective\.ratio=word; choose from token, sequence"),
        ({"surrogate": "ppo"}, r"algorithm\.objective\.surrogate=ppo; choose from clip, reweight"),
        (
            {"average": "mean"},
            r"algorithm\.objective\.average=mean; choose from completion, token",
        ),
        ({"kl": "k4"}, r"algorithm\.objective\.kl=k4; choose from k1, k2, k3"),
        ({"kl_place": "both"}, r"algorithm\.objective\.kl_place=both; choose from loss, reward"),
        ({"clip_low": 1.5}, r"algorithm\.objective\.clip_low=1\.5 is not in 0\.\.1"),
        ({"clip_high": -0.1}, r"algorithm\.objective\.clip_high=-0\.1 is negative"),
        ({"clip_high": float("nan")}, r"algorithm\.objective\.clip_high=nan"),
        ({"kl_weight": -0.1}, r"algorithm\.objective\.kl_weight=-0\.1 is negative"),
        ({"kl_weight": float("nan")}, r"algorithm\.objective\.kl_weight=nan is no number"),
        (
            {"kl": "k1"},
            r"algorithm\.objective\.kl=k1 with .*kl_place=loss: .* choose kl=k2 or k3, or kl_place=reward",
        ),
    ],
)
def test_choices_that_cannot_be_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Objective(**settings)


def test_the_first_estimator_is_for_rewards() -> None:
    assert Objective(kl="k1", kl_place="reward").kl == "k1"
    assert Objective(kl="k1", kl_weight=0).kl_weight == 0  # without a penalty it is only logged
