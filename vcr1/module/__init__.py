"""Thin LightningModules around the policy: GRPO and its sibling, supervised fine-tuning."""

from vcr1.module.base import PolicyModule
from vcr1.module.grpo import GRPOModule
from vcr1.module.rollouts import judge_groups, lost_judgement
from vcr1.module.schedule import lr_factor
from vcr1.module.sft import SFTModule

__all__ = ["GRPOModule", "PolicyModule", "SFTModule", "judge_groups", "lost_judgement", "lr_factor"]
