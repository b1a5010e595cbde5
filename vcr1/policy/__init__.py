"""The only code that knows transformers: loading, encoding, rollout, log-probs."""

from vcr1.policy.generation.groups import RolloutEngine
from vcr1.policy.generation.sampling import Sampling
from vcr1.policy.policy import VideoPolicy
from vcr1.policy.prompts.encoding import PromptEncoder
from vcr1.policy.prompts.positions import correct_positions
from vcr1.policy.reference import Reference, reference_of
from vcr1.policy.scoring import TokenScores
from vcr1.policy.weights.loading import check_weights, floating_type, load_encoder, load_policy
from vcr1.policy.weights.lora import LoRA

__all__ = [
    "LoRA",
    "PromptEncoder",
    "Reference",
    "RolloutEngine",
    "Sampling",
    "TokenScores",
    "VideoPolicy",
    "check_weights",
    "correct_positions",
    "floating_type",
    "load_encoder",
    "load_policy",
    "reference_of",
]
