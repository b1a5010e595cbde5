"""The only code that knows transformers: loading, encoding, rollout, log-probs."""

from vcr1.policy.encoding import PromptEncoder
from vcr1.policy.loading import check_weights, floating_type, load_encoder, load_policy
from vcr1.policy.lora import LoRA
from vcr1.policy.policy import VideoPolicy
from vcr1.policy.positions import correct_positions
from vcr1.policy.reference import Reference, reference_of
from vcr1.policy.sampling import Sampling
from vcr1.policy.scoring import TokenScores

__all__ = [
    "LoRA",
    "PromptEncoder",
    "Reference",
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
