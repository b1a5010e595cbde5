"""Object tracking: where is an object in each of a few frames? The answer is one box per frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Any, ClassVar

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations
from vcr1.readers.jsonl import Content
from vcr1.readers.rows import Footage, Row
from vcr1.readers.tracks import read_boxes
from vcr1.records import Box, Completion, Judgement, ParseFailure, Prompt, Sample, Tracklet
from vcr1.scoring.geometry import bound_box, box_iou, clip_box
from vcr1.scoring.metrics import average_overlap, best_constant_box, mean, recall_at, success_rate
from vcr1.scoring.parsing import BOX_FAILURES, format_boxes, parse_boxes
from vcr1.scoring.rewards import Reward, boxes_format, mean_box_iou
from vcr1.tasks.base import QuestionNeeds, Task, format_share, mean_of

QUESTION = (
    "The video shows {count} frames, evenly spaced in time. In the first frame, {object} is in the box {box}:"
    " left, top, right and bottom edge as fractions of the frame's width and height."
    " Where is it in each of the {count} frames?"
)
FORM = (
    "the {count} boxes in the order of the frames, with {decimals}, between <answer> and </answer>,"
    " for example <answer>{example}</answer>."
)
EXAMPLE = (Box(0.1, 0.2, 0.4, 0.6), Box(0.2, 0.2, 0.5, 0.6))
NUMBERS = {1: "one decimal", 2: "two decimals", 3: "three decimals"}


class TrackingTask(Task):
    """Object tracking with a given first box.

    The frames that the model is shown are the frames whose boxes are asked: ``boxes`` of them, evenly spaced,
    the first and the last frame of the video among them. A sample's ``target`` holds one box for each. Where
    ``extra`` has a ``first_box``, the prompt gives that one instead of the target's first; where it has
    ``visible``, one truth value for each box, frames without the object do not count.

    Args:
        boxes: how many frames are shown and asked.
        decimals: digits after the point in boxes that the prompt and the true answers show.
        think: whether the model is asked to reason before it answers.
        rewards: further reward parts, functions of (completion, sample).
        weights: weights of the rewards ``format`` and ``iou``.

    Raises:
        UserError: fewer than 2 boxes, or more than 3 decimals or none.
    """

    name = "tracking"
    shown: ClassVar[Mapping[str, str]] = {"overlap": "iou"}
    metric_names = ("iou", "overlap", "success@0.5", "success@0.75")
    failure_reasons = BOX_FAILURES
    row_fields = ("query", "boxes", "xywh", "width", "height", "box_times")
    truth_fields = ("boxes", "xywh")
    needs = QuestionNeeds(box=True)
    published: ClassVar[Mapping[str, str]] = {".json": "vcr1.readers.read_tracking_json"}
    headline = "AO"

    def __init__(
        self,
        boxes: int = 8,
        decimals: int = 3,
        think: bool = True,
        rewards: Mapping[str, Reward] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        parts: dict[str, Reward] = {
            "format": partial(boxes_format, think=think),
            "iou": mean_box_iou,
        }
        super().__init__(parts, rewards=rewards, weights=weights, think=think)
        if not isinstance(boxes, int) or boxes < 2:
            raise UserError(f"tasks.{self.name}.boxes={boxes}: tracking asks for at least 2 boxes")
        if decimals not in NUMBERS:
            raise UserError(f"tasks.{self.name}.decimals={decimals}; choose from 1, 2, 3")
        self.frames: int = boxes
        self.decimals = decimals

    def prompt(self, sample: Sample) -> Prompt:
        """Return the object and its first box, then the form of the answer."""
        box = format_boxes((_first_box(sample),), self.decimals)[1:-1]
        question = QUESTION.format(count=self.frames, object=sample.query.strip().rstrip("."), box=box)
        example = format_boxes(EXAMPLE, self.decimals)[:-1] + ", ...]"
        form = FORM.format(count=self.frames, decimals=NUMBERS[self.decimals], example=example)
        return Prompt(f"{question}\n{self.instruct(form)}")

    def parse(self, text: str, sample: Sample) -> Tracklet | ParseFailure:
        """Return the boxes of the answer, as many as were asked for."""
        return parse_boxes(text, self.frames)

    def answer(self, sample: Sample) -> str:
        """Return the true boxes; with ``think``, a sample's ``rationale`` stands before them."""
        return self.reasoned(sample, f"<answer>{format_boxes(sample.target, self.decimals)}</answer>")

    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        """``iou`` is the mean over all boxes, as the reward has it.

        The others leave the given first box out and cut boxes to the frame, as GOT-10k's toolkit compares
        trackers: the mean ``overlap``, and the shares of frames with an overlap over 0.5 and 0.75.
        """
        target: Tracklet = sample.target
        value: Tracklet | ParseFailure = completion.value
        visible = sample.extra.get("visible", (True,) * len(target))
        ious, overlaps = [0.0] * sum(visible), [0.0] * sum(visible[1:])
        if not isinstance(value, ParseFailure) and len(value) == len(target):
            pairs = list(compress(zip(value, target, strict=True), visible))
            ious = [box_iou(*pair) for pair in pairs]
            overlaps = [box_iou(*map(bound_box, pair)) for pair in pairs[int(visible[0]) :]]
        return {
            "iou": mean(ious),
            "overlap": average_overlap([overlaps]),
            "success@0.5": success_rate([overlaps], 0.5),
            "success@0.75": success_rate([overlaps], 0.75),
        }

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Return metrics of GOT-10k and of the paper, and the share of well-formed answers.

        AO, SR@0.5 and SR@0.75 (arXiv 1810.11981) leave the given first box out; mIoU, R@0.5 and R@0.7 are of
        the mean over all boxes (arXiv 2504.06958).
        """
        ious = [judgement.metrics["iou"] for judgement in judgements]
        return {
            "AO": mean_of(judgements, "overlap"),
            "SR@0.5": mean_of(judgements, "success@0.5"),
            "SR@0.75": mean_of(judgements, "success@0.75"),
            "mIoU": mean(ious),
            "R@0.5": recall_at(ious, 0.5),
            "R@0.7": recall_at(ious, 0.7),
        } | format_share(judgements)

    def read_row(self, row: Row, footage: Footage | None, attempt: Annotations) -> Content | None:
        """Read the object and its boxes, as many as the task shows frames."""
        assert self.frames is not None
        query, boxes = row.text("query"), read_boxes(row, footage, self.frames, attempt)
        return None if boxes is None else Content(query, boxes)

    def boxes(self, value: Any) -> tuple[Box, ...]:
        """Return the boxes, one for each shown frame."""
        return () if isinstance(value, ParseFailure) else tuple(value or ())

    def baselines(self, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """Return the given first box everywhere; and the one box that fits the training boxes best."""
        constant = best_constant_box([box for sample in train for box in sample.target])
        answers = {
            "first_box": [
                (sample.extra.get("first_box", sample.target[0]),) * len(sample.target) for sample in test
            ],
            "constant": [(constant,) * len(sample.target) for sample in test],
        }
        return {name: self._scores(tracklets, test) for name, tracklets in answers.items()}

    def _scores(self, tracklets: Sequence[Tracklet], samples: Sequence[Sample]) -> dict[str, float]:
        """Return the metrics of given tracklets; their form is no matter here."""
        pairs = zip(tracklets, samples, strict=True)
        scores = self.summarise([self.score(Completion("", boxes), sample) for boxes, sample in pairs])
        return {name: value for name, value in scores.items() if name != "format"}


def _first_box(sample: Sample) -> Box:
    """Return the box that the prompt gives, within the frame."""
    first: Box = sample.extra.get("first_box", sample.target[0])
    return clip_box(first)
