"""mIoU over the number of further looks, at an equal budget of vision tokens, on harder synthetic clips.

The shapes are short against the sampling rate: ``python benchmarks/clues.py --seconds 10 --frames 16``.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vcr1.clues import CluePlan, intervals_of
from vcr1.geometry import interval_iou
from vcr1.policy import Sampling, load_policy
from vcr1.prediction import Asker, Question
from vcr1.records import Interval, VideoSource
from vcr1.tasks import GroundingTask
from vcr1.video import FrameBudget, draw_spec, write_clip


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the curve: mean IoU and vision tokens of a question, with N further looks."""

    rounds: int
    miou: float
    tokens: float


def hard_questions(
    folder: Path, count: int, seconds: float, lengths: tuple[float, float] = (0.5, 1.0)
) -> list[tuple[Question, Interval]]:
    """Questions about clips of so many seconds, whose shapes are seen for ``lengths``; and their truths."""
    asked = []
    for number in range(count):
        rng = random.Random(f"hard-{number}")
        spec = draw_spec(rng, (seconds,), min_length=lengths[0], max_length=lengths[1])
        path = folder / f"{number}.mp4"
        write_clip(spec, path)
        event = spec.events[0]
        query = f"the {event.color} {event.shape} appears"
        question = Question(str(number), VideoSource(str(path)), query, "grounding")
        asked.append((question, Interval(event.start, event.end)))
    return asked


def curve(
    model: str, asked: Sequence[tuple[Question, Interval]], seconds: float, frames: int, rounds: int
) -> list[Point]:
    """The points for 0 to ``rounds`` further looks; all looks together show ``frames`` frames at most."""
    policy = load_policy(model).eval().requires_grad_(False)
    budget = FrameBudget(
        fps=frames / seconds, min_frames=2, max_frames=frames, min_pixels=784, total_pixels=784
    )
    asker = Asker(
        policy, {"grounding": GroundingTask()}, {"grounding": budget}, Sampling(40, temperature=0.0)
    )
    points = []
    for number in range(rounds + 1):
        plan = CluePlan(number, fps=4.0, settled=1.0)
        answers = [asker.ask_again(question, plan) for question, _ in asked]
        ious = [
            max((interval_iou(span, truth) for span in intervals_of(answer.value)), default=0.0)
            for answer, (_, truth) in zip(answers, asked, strict=True)
        ]
        tokens = sum(look.vision_tokens for answer in answers for look in answer.looks)
        points.append(Point(number, sum(ious) / len(ious), tokens / len(answers)))
    return points


def main() -> None:
    """Print the curve as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="builtin:tiny")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        asked = hard_questions(Path(folder), chosen.clips, chosen.seconds)
        print("| further looks | mIoU | vision tokens |\n|---|---|---|")
        for point in curve(chosen.model, asked, chosen.seconds, chosen.frames, chosen.rounds):
            print(f"| {point.rounds} | {point.miou:.3f} | {point.tokens:.1f} |", flush=True)


if __name__ == "__main__":
    main()
