"""How training passes lay groups out, and what computes their attention."""

from __future__ import annotations

from vcr1.errors import UserError
from vcr1.policy.attention.flex import KERNELS

ATTENTION_FORMS = ("auto", "dense", "split")
SPLIT_FROM = 512
"""Tokens of a row, prompt and completions, from which on the split form is the faster one."""


def check_forms(attention_form: str, tree_attention: str, max_tokens: int | None) -> None:
    """Check the settings of a policy.

    Raises:
        UserError: an unknown form or attention, or a limit below 1.
    """
    if attention_form not in ATTENTION_FORMS:
        raise UserError(f"model.attention_form={attention_form}; choose from {', '.join(ATTENTION_FORMS)}")
    if tree_attention not in KERNELS:
        raise UserError(f"model.tree_attention={tree_attention}; choose from {', '.join(KERNELS)}")
    if max_tokens is not None and max_tokens < 1:
        raise UserError(f"model.max_tokens={max_tokens}: a number of tokens, or null for no limit")
