"""Plain conversations, and how likely a model finds them: what a checkpoint has forgotten shows here."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vcr1.errors import UserError
from vcr1.evaluation.likelihoods import Likelihood
from vcr1.policy import VideoPolicy
from vcr1.readers.files import read_lines
from vcr1.records import to_device

BUILTIN = "builtin"
"""Names the conversations that come with the package."""
ROLES = ("system", "user", "assistant")
MAX_BYTES = 1 << 28
MAX_CONVERSATIONS = 10_000
MAX_MESSAGES = 64
MAX_CHARACTERS = 32_768
"""Of all messages of a conversation."""


class Conversation(NamedTuple):
    """One conversation. A tuple: Lightning takes dataclasses apart, and fails at those that do not change.

    Attributes:
        line: of its file, from 1; 0 for one that is only computed along, and not written down.
        messages: role and text of each, a system's first if there is one, then user and assistant in turns.
    """

    line: int
    messages: tuple[tuple[str, str], ...]


# ------------------------------------------------------------------------------------------------ reading


def read_conversations(path: str) -> list[Conversation]:
    """Return conversations of a JSONL file in the Hugging Face conversational format.

    Args:
        path: the file, of lines ``{"messages": [{"role": ..., "content": ...}, ...]}`` that may hold other
            fields too; or ``builtin``.

    Raises:
        UserError: the file cannot be read, is too large, or has a line that is no conversation: names it.
    """
    file = (
        Path(str(resources.files("vcr1"))) / "assets" / "conversations.jsonl"
        if path == BUILTIN
        else Path(path)
    )
    if not file.is_file():
        raise UserError(f"conversations={path}: there is no such file; conversations={BUILTIN} needs none")
    if (size := file.stat().st_size) > MAX_BYTES:
        raise UserError(f"conversations={path}: {size} bytes, more than {MAX_BYTES}; take a part of the file")
    lines = read_lines(file)
    if len(lines) > MAX_CONVERSATIONS:
        raise UserError(
            f"conversations={path}: {len(lines)} conversations, more than {MAX_CONVERSATIONS}; take fewer"
        )
    return [_conversation(number, line, f"conversations={path}, line {number}") for number, line in lines]


def _conversation(number: int, line: str, place: str) -> Conversation:
    """Return the conversation of a line.

    Raises:
        UserError: it is none; begins with ``place``.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not valid JSON ({error})") from error
    found = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(found, list) or not found:
        raise UserError(f'{place}: expected {{"messages": [{{"role": ..., "content": ...}}, ...]}}')
    if len(found) > MAX_MESSAGES:
        raise UserError(f"{place}: {len(found)} messages, more than {MAX_MESSAGES}")
    messages = tuple(_message(message, f"{place}, message {count}") for count, message in enumerate(found, 1))
    if (size := sum(len(text) for _, text in messages)) > MAX_CHARACTERS:
        raise UserError(f"{place}: {size} characters, more than {MAX_CHARACTERS}")
    roles = [role for role, _ in messages]
    talk = roles[1:] if roles[0] == "system" else roles
    turns = ("user", "assistant")
    if "assistant" not in talk or any(role != turns[count % 2] for count, role in enumerate(talk)):
        raise UserError(
            f"{place}: the roles are {', '.join(roles[:8])}; expected an optional system, then user and "
            f"assistant in turns"
        )
    return Conversation(number, messages)


def _message(message: Any, place: str) -> tuple[str, str]:
    role, text = (
        (message.get(name) for name in ("role", "content")) if isinstance(message, dict) else (None, "")
    )
    if role not in ROLES:
        raise UserError(f"{place}: the role must be one of {', '.join(ROLES)}")
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{place}: the content must be a text that is not empty")
    return str(role), text


# ------------------------------------------------------------------------------------------------ scoring


@torch.no_grad()
def score_conversation(policy: VideoPolicy, messages: Sequence[tuple[str, str]]) -> tuple[int, float]:
    """Return tokens of the assistant's turns, and minus their log-probability in nats.

    Each turn is scored behind all that is said before it, as the model's chat template writes it; like an
    answer in training, it is cut into tokens by itself and has the token that ends a turn behind it.

    Args:
        policy: the model.
        messages: role and text of each.

    Raises:
        RuntimeError, UserError: there is no memory for it.
    """
    device = next(policy.parameters()).device
    places = [place for place, (role, _) in enumerate(messages) if role == "assistant"]
    inputs = [to_device(policy.encoder.turns(messages[:place]), device) for place in places]
    groups = policy.teacher_groups(inputs, [messages[place][1] for place in places])
    with policy.evaluating():
        scores = policy.logprobs(groups, policy.vision(inputs))
    return int(groups.completion_mask.sum()), -float(scores.logprobs.double().sum())


def read_along(policy: VideoPolicy, conversation: Conversation) -> Likelihood:
    """Return how likely a model finds a conversation; raises as `score_conversation` does."""
    begin = time.perf_counter()
    tokens, nll = score_conversation(policy, conversation.messages)
    turns = sum(role == "assistant" for role, _ in conversation.messages)
    return Likelihood(conversation.line, turns, tokens, nll, round(time.perf_counter() - begin, 3))
