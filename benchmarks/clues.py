"""mIoU over the number of further looks, at an equal budget of vision tokens, on long synthetic clips.

Clips of 60 to 80 s in which a shape is seen for 3 to 5 s, and 40 frames for all looks together. No
training has seen these clips. Usage: ``python benchmarks/clues.py [--out benchmarks/RESULTS.md]``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vcr1.errors import UserError
from vcr1.evaluation.statistics import difference
from vcr1.inference import Asker, Question
from vcr1.inference.clues import CluePlan
from vcr1.policy import Sampling, load_policy
from vcr1.readers import read_synthetic
from vcr1.records import Interval
from vcr1.scoring.geometry import interval_iou
from vcr1.tasks import GroundingTask
from vcr1.video import FrameBudget
from writing import publish, table

GROUNDING = GroundingTask()
MODEL = "builtin:tiny_long"
FRAMES = 40
FPS = 2.0
"""Of the further looks: the events lie on half seconds."""
SEED = 77
"""Of the clips; the model was trained on the split of another seed, and watched on that of a third."""
TARGET = 0.10


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the curve.

    Attributes:
        first: share of the first look.
        rounds: N, most further looks.
        ious: of each question.
        tokens: mean vision tokens of a question, all looks together.
        looks: mean looks of a question.
    """

    first: float
    rounds: int
    ious: tuple[float, ...]
    tokens: float
    looks: float

    @property
    def miou(self) -> float:
        """Mean IoU."""
        return sum(self.ious) / len(self.ious)


def hard_questions(folder: Path, clips: int) -> list[tuple[Question, Interval]]:
    """Questions about long clips, four for each, and their truths."""
    annotations = read_synthetic(str(folder), "clues", clips, seed=SEED, world="long")
    return [
        (Question(sample.id, sample.source, sample.query, GROUNDING), sample.target)
        for sample in annotations.samples
    ]


def ask_all(asker: Asker, asked: Sequence[tuple[Question, Interval]], first: float, rounds: int) -> Point:
    """The point for at most ``rounds`` further looks, however few frames each has."""
    plan = CluePlan(rounds, first=first, frames=2, fps=FPS)
    answers = [asker.ask_again(question, plan) for question, _ in asked]
    ious = tuple(
        max((interval_iou(span, truth) for span in answer.spans), default=0.0)
        for answer, (_, truth) in zip(answers, asked, strict=True)
    )
    looks = [look for answer in answers for look in answer.looks]
    tokens = sum(look.vision_tokens for look in looks)
    return Point(first, rounds, ious, tokens / len(asked), len(looks) / len(asked))


def build_asker(model: str, frames: int = FRAMES) -> Asker:
    """A model that may see so many frames of a clip, whatever its length."""
    policy = load_policy(model).float().eval().requires_grad_(False)
    budget = FrameBudget(fps=4.0, min_frames=2, max_frames=frames, min_pixels=784, total_pixels=784)
    sampling = Sampling(40, temperature=0.0)
    return Asker(policy, {GROUNDING.name: budget}, sampling)


def report(points: Sequence[Point]) -> str:
    """The curve as a table; the first point is the single look."""
    none, rows = points[0], []
    for point in points:
        share, change = "1", ""
        if point is not none:
            gain = difference(none.ious, point.ious)
            share, change = f"{point.first:g}", f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        rows.append(
            [
                str(point.rounds),
                share,
                f"{point.miou:.3f}",
                change,
                f"{point.tokens:.1f}",
                f"{point.looks:.2f}",
            ]
        )
    return table(
        ["further looks", "share of the first", "mIoU", "gain (95 %)", "vision tokens", "looks"], rows
    )


def main() -> None:
    """Print the curve, and write it into a file where one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--first", type=float, nargs="+", default=[0.5, 0.7])
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        asked = hard_questions(Path(folder), chosen.clips)
        asker = build_asker(chosen.model)
        points = [ask_all(asker, asked, 0.5, 0)]
        for first in chosen.first:
            for rounds in range(1, chosen.rounds + 1):
                points.append(ask_all(asker, asked, first, rounds))
                print(f"share {first:g}, {rounds} further looks: mIoU {points[-1].miou:.3f}", file=sys.stderr)
    text = f"{len(asked)} questions about {chosen.clips} clips, {FRAMES} frames for all looks together.\n\n"
    try:
        publish("clues", text + report(points), chosen.out)
    except UserError as error:
        sys.exit(f"clues: {error}")


if __name__ == "__main__":
    main()
