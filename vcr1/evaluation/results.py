"""From answers to metrics.json: a pure function, the same to the byte wherever the answers come from."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vcr1.evaluation.answers import AnswerRecord
from vcr1.evaluation.statistics import Estimate, best_at_k, differences, estimates, nan_mean
from vcr1.records import json_value

BINARY = "pass"
GRADED = "best"


def by_benchmark(answers: Iterable[AnswerRecord]) -> dict[str, list[AnswerRecord]]:
    """Return answers of each benchmark, in the order in which they come."""
    groups: dict[str, list[AnswerRecord]] = {}
    for answer in answers:
        groups.setdefault(answer.benchmark, []).append(answer)
    return groups


def columns_of(answers: Sequence[AnswerRecord], draws: int) -> dict[str, list[float]]:
    """Return metric -> one value for each sample, samples in the order in which they first come.

    With one draw the metrics have their own names. With k draws there are ``NAME avg@k``, the mean of a
    sample's draws, and the best of them: ``NAME pass@k`` of a metric that is 0 or 1 for each answer, the
    chance that one draw passes, else ``NAME best@k``.

    Args:
        answers: of one benchmark.
        draws: k.
    """
    samples: dict[str, list[AnswerRecord]] = {}
    for answer in answers:
        samples.setdefault(answer.id, []).append(answer)
    names = dict.fromkeys(name for answer in answers for name in answer.scores)
    columns: dict[str, list[float]] = {}
    for name in names:
        values = [[one.scores.get(name, float("nan")) for one in group] for group in samples.values()]
        if draws == 1:
            columns[name] = [group[0] for group in values]
            continue
        # A sample that was lost has one answer, which stands for all of its draws.
        full = [group if len(group) == draws else group * draws for group in values]
        kind = BINARY if all(value in (0.0, 1.0) for group in values for value in group) else GRADED
        columns[f"{name} avg@{draws}"] = [nan_mean(group) for group in full]
        columns[f"{name} {kind}@{draws}"] = [best_at_k(group, draws) for group in full]
    return columns


def metrics_of(answers: Sequence[AnswerRecord], draws: int = 1) -> dict[str, Any]:
    """Return what metrics.json says of one benchmark.

    Args:
        answers: every sample's, in the order of the annotations; failures included.
        draws: completions of each sample.

    Raises:
        ValueError: no answers.
    """
    groups: defaultdict[str, list[AnswerRecord]] = defaultdict(list)
    for answer in answers:
        if answer.category is not None:
            groups[answer.category].append(answer)
    return {
        "samples": _samples(answers),
        "draws": draws,
        "metrics": _as_json(estimates(columns_of(answers, draws))),
        "categories": {
            name: {
                "samples": _samples(groups[name]),
                "metrics": _as_json(estimates(columns_of(groups[name], draws))),
            }
            for name in sorted(groups)
        },
        "failures": dict(sorted(Counter(answer.failure for answer in answers if answer.failure).items())),
    } | ({} if (looks := looks_of(answers)) is None else {"looks": looks})


def looks_of(answers: Sequence[AnswerRecord]) -> dict[str, Any] | None:
    """Return what metrics.json says of the looks of a benchmark; None where nothing was looked at again.

    Returns:
        ``per_question`` and ``vision_tokens``, means over the questions whose video could be shown;
        ``stopped``, answers by why there was no further look; and ``metrics``: each of the ``first`` look and
        after the last (``second``), with the paired ``difference``. There every sample counts.
    """
    traces = [answer.trace for answer in answers if answer.trace is not None]
    if not traces:
        return None
    names = dict.fromkeys(name for answer in answers for name in answer.scores)
    first = [answer.scores if answer.trace is None else answer.trace["first_scores"] for answer in answers]
    tokens = [float(sum(look["vision_tokens"] for look in trace["looks"])) for trace in traces]
    return {
        "per_question": nan_mean([float(len(trace["looks"])) for trace in traces]),
        "vision_tokens": nan_mean(tokens),
        # What stands behind a colon is about one video.
        "stopped": dict(sorted(Counter(trace["stopped"].split(":")[0] for trace in traces).items())),
        "metrics": differences(
            {name: [_number(scores.get(name)) for scores in first] for name in names},
            {name: [_number(answer.scores.get(name)) for answer in answers] for name in names},
        ),
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def metrics_text(
    answers: Iterable[AnswerRecord], draws: int = 1, more: Mapping[str, dict[str, Any]] | None = None
) -> str:
    """Return content of metrics.json: benchmark -> its metrics. Holds no times and no places.

    Args:
        answers: of all benchmarks.
        draws: completions of each sample.
        more: what stands behind the benchmarks, in the form of theirs.
    """
    content = {name: metrics_of(group, draws) for name, group in by_benchmark(answers).items()}
    content.update(more or {})
    return json.dumps(json_value(content), indent=2, ensure_ascii=False) + "\n"


def _samples(answers: Sequence[AnswerRecord]) -> int:
    return len({answer.id for answer in answers})


def _as_json(found: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in found.items()}
