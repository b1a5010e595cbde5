"""Randomness as a function of the place in the run: no state to save, none that an interruption loses."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_of(*place: object) -> int:
    """Return a seed for one place; hashed, as neighbouring places must not have alike ones."""
    digest = hashlib.sha256("-".join(map(str, place)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_process(seed: int) -> None:
    """Set the process's own randomness: dropout draws from it, and a user's reward may."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
