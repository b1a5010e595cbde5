"""One pass over held-out samples, and how it is kept in a run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vcr1.data import TaskDataModule
from vcr1.records import Completion, Judgement

Scores = dict[str, float]


@dataclass(slots=True)
class Evaluation:
    """One pass over held-out samples: each task's metrics, and each sample's judgement by its id."""

    scores: dict[str, Scores]
    judgements: dict[str, dict[str, Judgement]]

    def __str__(self) -> str:
        def listing(name: str) -> str:
            scores = ", ".join(f"{metric} {value:.3f}" for metric, value in self.scores[name].items())
            return f"{name}: {scores} over {len(self.judgements[name])} held-out samples"

        return "; ".join(map(listing, self.scores))

    def as_text(self) -> str:
        """Return it as JSON: texts and numbers, without the values that were read in the texts."""
        judgements = {
            name: [asdict(one) | {"completion": one.completion.text} for one in found.values()]
            for name, found in self.judgements.items()
        }
        return json.dumps({"scores": self.scores, "judgements": judgements})


def read_evaluation(text: str, parts: Mapping[str, TaskDataModule]) -> Evaluation:
    """Return an evaluation that was kept as JSON; its answers are read again.

    Args:
        text: from :meth:`Evaluation.as_text`.
        parts: task's name -> its data; what is not among them is left out.

    Raises:
        ValueError, KeyError, TypeError: something else, or of another form.
    """
    content: dict[str, Any] = json.loads(text)
    found: dict[str, dict[str, Judgement]] = {}
    for name, rows in content["judgements"].items():
        if name not in parts:
            continue
        samples = {sample.id: sample for sample in parts[name].samples("val")}
        for row in rows:
            if (sample := samples.get(row["sample_id"])) is not None:
                said = Completion(row["completion"], parts[name].task.parse(row["completion"], sample))
                found.setdefault(name, {})[sample.id] = Judgement(**row | {"completion": said})
    return Evaluation({name: content["scores"][name] for name in found}, found)
