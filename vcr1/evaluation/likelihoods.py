"""Likelihoods of conversations: kept line by line, put together, and held against those of another model."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vcr1.evaluation.journal import PARTS, add_lines, read_journal
from vcr1.evaluation.statistics import differences, estimates
from vcr1.records import json_value
from vcr1.records.files import write_whole

log = logging.getLogger(__name__)

CONVERSATIONS = "conversations"
"""Their name in metrics.json, beside those of the benchmarks, and of their lines' file."""
_NLL = "nll"


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Likelihood of a conversation's answers under a model.

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
        """Return nats per token; NaN where there is no number."""
        return self.nll / self.tokens if self.tokens else math.nan

    def json_line(self) -> str:
        """Return one line of JSON, with its end."""
        return json.dumps(json_value(asdict(self))) + "\n"

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Likelihood:
        """Return what `json_line` wrote.

        Raises:
            TypeError: a field is missing, or there is one too many.
        """
        nll = content.get("nll")
        return cls(**{**content, "nll": math.nan if nll is None else float(nll)})


def add_likelihood(folder: Path, rank: int, one: Likelihood) -> None:
    """Write a likelihood down, so that it outlives this process."""
    add_lines(folder / PARTS / f"{CONVERSATIONS}{rank:05d}.jsonl", one.json_line())


def read_likelihoods(paths: Iterable[Path]) -> dict[int, Likelihood]:
    """Return likelihoods by their line, of all that have a number; of two of one line the first.

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


def likelihoods_in(folder: Path) -> list[Likelihood]:
    """Return those of a finished run; none where it has read no conversations."""
    path = folder / f"{CONVERSATIONS}.jsonl"
    return list(read_likelihoods([path]).values()) if path.is_file() else []


def conversation_parts(folder: Path) -> list[Path]:
    """Return what the ranks of a run have written."""
    return sorted((folder / PARTS).glob(f"{CONVERSATIONS}*.jsonl"))


def likelihoods_of(lines: Sequence[int], found: Mapping[int, Likelihood]) -> list[Likelihood]:
    """Return one for each conversation, by their lines; NaN where there is none."""
    return [found.get(line, Likelihood(line, 0, 0, math.nan, 0.0)) for line in lines]


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
    """Return what metrics.json says of conversations, in the form of a benchmark's.

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
    """Return two models on the same conversations.

    Returns:
        What :func:`~vcr1.evaluation.comparison.compare` says of a benchmark: ``samples`` are conversations
        that both have a number of, and ``nll`` is the metric; and the ``perplexity`` of both. Models that cut
        the texts into different tokens have no ``metrics``: their likelihoods per token cannot be compared.
    """
    ours, theirs = ({one.line: one for one in own if math.isfinite(one.nll)} for own in (first, second))
    pairs = [(ours[line], theirs[line]) for line in ours if line in theirs]
    alike = bool(pairs) and all(one.tokens == other.tokens for one, other in pairs)
    before, after = ({_NLL: [pair[side].per_token for pair in pairs]} for side in (0, 1))
    metrics = differences(before, after, [float(one.tokens) for one, _ in pairs]) if alike else {}
    return {
        "samples": len(pairs),
        "only_first": len(ours) - len(pairs),
        "only_second": len(theirs) - len(pairs),
        "metrics": metrics,
        "perplexity": {side: perplexity(metrics[_NLL][side]) for side in ("first", "second")}
        if metrics
        else {},
        "categories": {},
        "flips": {"metric": None, "gained": [], "lost": []},
    }
