"""How likely a model finds plain conversations: what a checkpoint has forgotten shows here."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vcr1.errors import UserError
from vcr1.evaluation.answers import plain
from vcr1.evaluation.journal import PARTS, add_lines, read_journal, write_whole
from vcr1.evaluation.statistics import differences, estimates
from vcr1.policy import VideoPolicy
from vcr1.readers.annotations import read_lines
from vcr1.records import to_device

log = logging.getLogger(__name__)

CONVERSATIONS = "conversations"
"""Their name in metrics.json, beside those of the benchmarks, and of their lines' file."""
BUILTIN = "builtin"
"""Names the conversations that come with the package."""
ROLES = ("system", "user", "assistant")
MAX_BYTES = 1 << 28
MAX_CONVERSATIONS = 10_000
MAX_MESSAGES = 64
MAX_CHARACTERS = 32_768
"""Of all messages of a conversation."""
_NLL = "nll"


class Conversation(NamedTuple):
    """One conversation. A tuple: Lightning takes dataclasses apart, and fails at those that do not change.

    Attributes:
        line: of its file, from 1; 0 for one that is only computed along, and not written down.
        messages: role and text of each, a system's first if there is one, then user and assistant in turns.
    """

    line: int
    messages: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What a model says of a conversation.

    Attributes:
        line: of its file.
        turns: of the assistant.
        tokens: of these turns, the end of each included.
        nll: minus their log-probability in nats, all tokens together; NaN where it could not be computed.
        seconds: that it took.
    """

    line: int
    turns: int
    tokens: int
    nll: float
    seconds: float

    @property
    def per_token(self) -> float:
        """Nats per token; NaN where there is no number."""
        return self.nll / self.tokens if self.tokens else math.nan

    def json_line(self) -> str:
        """One line of JSON, with its end."""
        return json.dumps(plain(asdict(self))) + "\n"

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Likelihood:
        """What `json_line` wrote.

        Raises:
            TypeError: a field is missing, or there is one too many.
        """
        nll = content.get("nll")
        return cls(**{**content, "nll": math.nan if nll is None else float(nll)})


# ------------------------------------------------------------------------------------------------ reading


def read_conversations(path: str) -> list[Conversation]:
    """Conversations of a JSONL file in the Hugging Face conversational format.

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
    """The conversation of a line.

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
    """Tokens of the assistant's turns, and minus their log-probability in nats.

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
    """How likely a model finds a conversation; raises as `score_conversation` does."""
    begin = time.perf_counter()
    tokens, nll = score_conversation(policy, conversation.messages)
    turns = sum(role == "assistant" for role, _ in conversation.messages)
    return Likelihood(conversation.line, turns, tokens, nll, round(time.perf_counter() - begin, 3))


def add_likelihood(folder: Path, rank: int, one: Likelihood) -> None:
    """Write a likelihood down, so that it outlives this process."""
    add_lines(folder / PARTS / f"{CONVERSATIONS}{rank:05d}.jsonl", one.json_line())


def read_likelihoods(paths: Iterable[Path]) -> dict[int, Likelihood]:
    """Likelihoods by their line, of all that have a number; of two of one line the first.

    Args:
        paths: files of lines; one that was being written when the machine stopped is passed over.
    """
    found: dict[int, Likelihood] = {}
    for path in paths:
        for content in read_journal(path):
            try:
                one = Likelihood.from_json(content)
            except (TypeError, ValueError, AttributeError):
                continue
            if math.isfinite(one.nll):
                found.setdefault(one.line, one)
    return found


def conversation_parts(folder: Path) -> list[Path]:
    """What the ranks of a run have written."""
    return sorted((folder / PARTS).glob(f"{CONVERSATIONS}*.jsonl"))


# ------------------------------------------------------------------------------------------------ results


def likelihoods_of(conversations: Sequence[Conversation], found: dict[int, Likelihood]) -> list[Likelihood]:
    """One for each conversation, in their order; NaN where there is none."""
    return [found.get(one.line, Likelihood(one.line, 0, 0, math.nan, 0.0)) for one in conversations]


def write_likelihoods(folder: Path, likelihoods: Sequence[Likelihood]) -> dict[str, dict[str, Any]]:
    """Write conversations.jsonl, whole or not at all.

    Returns:
        What metrics.json says of them, by its name there.
    """
    write_whole(folder / f"{CONVERSATIONS}.jsonl", "".join(one.json_line() for one in likelihoods))
    metrics = conversation_metrics(likelihoods)
    if metrics["unscored"]:
        log.warning("%d conversations could not be read and are left out", metrics["unscored"])
    return {CONVERSATIONS: metrics}


def perplexity(nll: float) -> float:
    """Of nats per token; infinite where it cannot be written down."""
    return math.exp(nll) if not nll > 700 else math.inf


def conversation_metrics(likelihoods: Sequence[Likelihood]) -> dict[str, Any]:
    """What metrics.json says of conversations, in the form of a benchmark's.

    ``nll`` is the mean over all tokens in nats, ``perplexity`` its exponential; their intervals are of a
    bootstrap over conversations. ``unscored`` counts those that have no number; they are left out.
    """
    weights = [float(one.tokens) for one in likelihoods]
    nll = asdict(estimates({_NLL: [one.per_token for one in likelihoods]}, weights)[_NLL])
    return {
        "samples": len(likelihoods),
        "draws": 1,
        "turns": sum(one.turns for one in likelihoods),
        "tokens": sum(one.tokens for one in likelihoods),
        "metrics": {_NLL: nll, "perplexity": {name: perplexity(value) for name, value in nll.items()}},
        "categories": {},
        "failures": {},
        "unscored": sum(not math.isfinite(one.nll) for one in likelihoods),
    }


def compare_likelihoods(first: Sequence[Likelihood], second: Sequence[Likelihood]) -> dict[str, Any]:
    """Two models on the same conversations, in the form of :func:`~vcr1.evaluation.comparison.compare`.

    Returns:
        ``samples``, those that both have a number of; ``metrics`` with the paired difference of ``nll``; and
        the ``perplexity`` of both. Models that cut the texts into different tokens have no ``metrics``: their
        likelihoods per token cannot be compared.
    """
    known = {one.line: one for one in first if math.isfinite(one.nll)}
    pairs = [(known[one.line], one) for one in second if math.isfinite(one.nll) and one.line in known]
    alike = bool(pairs) and all(one.tokens == other.tokens for one, other in pairs)
    before, after = ({_NLL: [pair[side].per_token for pair in pairs]} for side in (0, 1))
    metrics = differences(before, after, [float(one.tokens) for one, _ in pairs]) if alike else {}
    return {
        "samples": len(pairs),
        "metrics": metrics,
        "perplexity": {side: perplexity(metrics[_NLL][side]) for side in ("first", "second")}
        if metrics
        else {},
    }
