"""Which formulas an algorithm is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vcr1.errors import UserError
from vcr1.objectives.advantages import ADVANTAGES
from vcr1.objectives.penalties import KL_ESTIMATORS

CHOICES = {
    "advantage": ADVANTAGES,
    "ratio": ("token", "sequence"),
    "surrogate": ("clip", "reweight"),
    "average": ("completion", "token", "length", "sum"),
    "kl": tuple(KL_ESTIMATORS),
    "kl_place": ("loss", "reward"),
    "correction": (None, "token", "sequence", "mask"),
}


@dataclass(frozen=True, slots=True)
class Objective:
    """Choose the formulas of an algorithm; the defaults are GRPO's.

    Attributes:
        advantage: ``group`` (GRPO), ``centred`` (Dr. GRPO), ``leave_one_out`` (RLOO), ``batch`` or
            ``centred_batch`` (REINFORCE++ without and with its baseline).
        ratio: importance ratio of each ``token``, or of the whole ``sequence`` (GSPO).
        surrogate: ``clip`` takes the gradient from tokens that went far enough (PPO); ``reweight`` clips
            the ratio alone and keeps all gradients (CISPO).
        clip_low: how far below 1 the ratio may fall, 0..1; 1 sets no bound.
        clip_high: how far above 1 it may rise; larger than ``clip_low`` is DAPO's clip-higher.
        delta: the largest ratio that a loss may see, for the bad completions that ``clip_high`` does not hold
            (two-sided clipping); above ``1 + clip_high``, with ``surrogate=clip``. None sets no bound.
        average: over tokens of each ``completion``, then over completions (GRPO); over all tokens
            (``token``, DAPO); sums over tokens in units of the ``length`` limit (Dr. GRPO); or plain ``sum``
            over tokens, then a mean over completions (RLOO).
        kl: estimator of the distance from the reference: k1, k2 or k3.
        kl_place: charge it in the ``loss`` or in the ``reward``.
        kl_weight: beta of that penalty.
        correction: of what differs between the engine that sampled and the trainer. A ``token``, or the whole
            ``sequence``, is weighed by the ratio of its probabilities, at most ``correction_high`` (truncated
            importance sampling); ``mask`` leaves tokens out whose ratio is not within ``correction_low`` and
            ``correction_high`` (IcePop). None weighs nothing.
        correction_low: the smallest ratio that ``mask`` keeps.
        correction_high: the largest ratio that is kept, or the weight that larger ones get.

    Raises:
        UserError: an unknown choice, a number out of its range, or k1 in the loss, which penalises nothing.
    """

    advantage: str = "group"
    ratio: str = "token"
    surrogate: str = "clip"
    clip_low: float = 0.2
    clip_high: float = 0.2
    delta: float | None = None
    average: str = "completion"
    kl: str = "k3"
    kl_place: str = "loss"
    kl_weight: float = 0.04
    correction: str | None = None
    correction_low: float = 0.5
    correction_high: float = 2.0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                known = ", ".join("null" if choice is None else choice for choice in choices)
                raise UserError(f"algorithm.objective.{name}={value}; choose from {known}")
        if not 0 <= self.clip_low <= 1:
            raise UserError(
                f"algorithm.objective.clip_low={self.clip_low} is not in 0..1: the ratio is cut "
                f"at 1 - clip_low"
            )
        if not 0 <= self.clip_high < math.inf:
            raise UserError(f"algorithm.objective.clip_high={self.clip_high} is negative or no number")
        if self.delta is not None and not 1 + self.clip_high < self.delta < math.inf:
            raise UserError(
                f"algorithm.objective.delta={self.delta} is not above 1 + clip_high: it bounds the ratios "
                f"that clip_high={self.clip_high} does not hold; null sets no bound"
            )
        if self.delta is not None and self.surrogate != "clip":
            raise UserError("algorithm.objective.delta needs algorithm.objective.surrogate=clip")
        if not 0 <= self.correction_low < 1 < self.correction_high < math.inf:
            raise UserError(
                f"algorithm.objective.correction_low={self.correction_low} and correction_high="
                f"{self.correction_high}: the ratio of equal models, 1, has to lie between them"
            )
        if self.kl_weight < 0:
            raise UserError(f"algorithm.objective.kl_weight={self.kl_weight} is negative")
        if not self.kl_weight < math.inf:
            raise UserError(f"algorithm.objective.kl_weight={self.kl_weight} is no number")
        if self.kl == "k1" and self.kl_place == "loss" and self.kl_weight:
            raise UserError(
                "algorithm.objective.kl=k1 with algorithm.objective.kl_place=loss: its gradient is noise "
                "around 0 and penalises nothing; choose kl=k2 or k3, or kl_place=reward"
            )
