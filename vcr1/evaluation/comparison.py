"""Two evaluations of the same samples side by side: differences, how sure they are, and what flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from vcr1.errors import UserError
from vcr1.evaluation.answers import AnswerRecord
from vcr1.evaluation.output import number
from vcr1.evaluation.results import by_benchmark, columns_of
from vcr1.evaluation.statistics import differences

FLIPPING = ("accuracy", "Acc", "R@0.5")
"""Metrics of 0 and 1 that say whether a sample is solved, the first that a benchmark has."""


def compare(first: Sequence[AnswerRecord], second: Sequence[AnswerRecord]) -> dict[str, Any]:
    """Return what has changed from one evaluation to another.

    Args:
        first: its answers.
        second: answers of the other; only samples of both are compared.

    Returns:
        Benchmark -> ``samples`` (common ones), ``only_first``, ``only_second``, ``metrics``, ``categories``
        and ``flips``; benchmarks of one of them alone are left out.

    Raises:
        UserError: a sample was asked something else in the other evaluation, or has another truth there.
    """
    ours, theirs = by_benchmark(first), by_benchmark(second)
    for name in ours.keys() & theirs.keys():
        _check_same_questions(name, ours[name], theirs[name])
    return {name: _compare(ours[name], theirs[name]) for name in ours if name in theirs}


def _check_same_questions(
    benchmark: str, first: Sequence[AnswerRecord], second: Sequence[AnswerRecord]
) -> None:
    """See that equal ids stand for equal questions.

    Prompts may be worded in another way, as with and without reasoning: what all prompts of a run have in
    common, at their beginning and at their end, is not compared.

    Raises:
        UserError: they do not.
    """
    common = {answer.id for answer in first if answer.prompt} & {one.id for one in second if one.prompt}
    mine, theirs = _questions(first, common), _questions(second, common)
    for id_ in sorted(common):
        (question, truth), (other, other_truth) = mine[id_], theirs[id_]
        if truth != other_truth and None not in (truth, other_truth):
            what = f"has the truth {truth} in one run and {other_truth} in the other"
        elif question != other:
            what = f"is {question!r} in one run and {other!r} in the other"
        else:
            continue
        raise UserError(
            f"{benchmark}: the question {id_} {what}: the runs are of different data and cannot be paired"
        )


def _questions(answers: Sequence[AnswerRecord], common: Set[str]) -> dict[str, tuple[str, Any]]:
    """Return id -> question and truth; a question is the prompt without what all prompts have in common."""
    asked = {answer.id: answer for answer in answers if answer.id in common}
    prompts = [answer.prompt for answer in asked.values()]
    head = _shared(prompts)
    tail = _shared([prompt[head:][::-1] for prompt in prompts])
    return {id_: (one.prompt[head : len(one.prompt) - tail], one.target) for id_, one in asked.items()}


def _shared(texts: Sequence[str]) -> int:
    """Return how many characters all texts begin with."""
    first, last = min(texts, default=""), max(texts, default="")  # in their order, all others lie between
    pairs = zip(first, last, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), len(first))


def _compare(first: Sequence[AnswerRecord], second: Sequence[AnswerRecord]) -> dict[str, Any]:
    ids = [dict.fromkeys(answer.id for answer in answers) for answers in (first, second)]
    common = [id_ for id_ in ids[0] if id_ in ids[1]]
    places = {id_: place for place, id_ in enumerate(common)}
    chosen = [
        sorted((a for a in answers if a.id in places), key=lambda a: (places[a.id], a.draw))
        for answers in (first, second)
    ]
    columns = [_means(answers) for answers in chosen]
    groups: dict[str, list[int]] = {}
    for answer in chosen[0]:
        if answer.category is not None and answer.draw == 0:
            groups.setdefault(answer.category, []).append(places[answer.id])
    return {
        "samples": len(common),
        "only_first": len(ids[0]) - len(common),
        "only_second": len(ids[1]) - len(common),
        "metrics": differences(columns[0], columns[1]),
        "categories": {
            name: {"samples": len(rows)}
            | {"metrics": differences(_rows(columns[0], rows), _rows(columns[1], rows))}
            for name, rows in sorted(groups.items())
        },
        "flips": flips(common, *columns),
    }


def _means(answers: Sequence[AnswerRecord]) -> dict[str, list[float]]:
    """Return metric -> mean over the draws of each sample."""
    draws = max((answer.draw for answer in answers), default=0) + 1
    suffix = f" avg@{draws}"
    columns = columns_of(answers, draws)
    return {
        name.removesuffix(suffix): values
        for name, values in columns.items()
        if draws == 1 or name.endswith(suffix)
    }


def _rows(columns: Mapping[str, Sequence[float]], rows: Sequence[int]) -> dict[str, list[float]]:
    return {name: [values[row] for row in rows] for name, values in columns.items()}


def flips(
    ids: Sequence[str], first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Return which samples the second run has solved and the first has not, and the other way round.

    Solved is a sample with more than half of its draws at 1 in the metric of `FLIPPING`; of a benchmark that
    has none, nothing flips.

    Returns:
        ``metric``, ``gained`` and ``lost`` (ids).
    """
    metric = next((name for name in FLIPPING if name in first and name in second), None)
    if metric is None:
        return {"metric": None, "gained": [], "lost": []}
    rows = list(zip(ids, first[metric], second[metric], strict=True))
    return {
        "metric": metric,
        "gained": [id_ for id_, a, b in rows if a <= 0.5 < b],
        "lost": [id_ for id_, a, b in rows if b <= 0.5 < a],
    }


def difference_table(metrics: Mapping[str, Mapping[str, float]], first: str, second: str) -> list[list[str]]:
    """Return both means, their difference with its interval, and its p-value."""
    rows = [
        [
            name,
            number(one["first"]),
            number(one["second"]),
            f"{one['difference']:+.3f}",
            f"{one['low']:+.3f} to {one['high']:+.3f}",
            f"{one['p']:.3f}",
        ]
        for name, one in metrics.items()
    ]
    return [["metric", first, second, "difference", "95 %", "p"], *rows]
