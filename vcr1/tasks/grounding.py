"""Temporal grounding: when does an event happen? The answer is one interval in seconds."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from vcr1.errors import UserError, VideoError
from vcr1.metrics import constant_baselines, mean, summarise_iou
from vcr1.parsing import INTERVAL_FAILURES, format_interval, parse_interval
from vcr1.records import Completion, Interval, Judgement, ParseFailure, Prompt, Sample
from vcr1.rewards import answer_format, temporal_iou
from vcr1.tasks.annotations import Annotations, VideoFolder, mend_interval, read_json, read_lines
from vcr1.tasks.base import Task
from vcr1.video import video_duration
from vcr1.video.synthetic import build_world

QUESTION = 'When does this event happen in the video: "{query}"?'
THINK = "First write down your reasoning about what happens when between <think> and </think>. Then give"
NO_THINK = "Give"
FORM = (
    " the start and the end of the event, in seconds with one decimal, between <answer> and </answer>,"
    " for example <answer>12.5 to 17.8</answer>."
)


class GroundingTask(Task):
    """Temporal grounding.

    Args:
        think: whether the model is asked to reason before it answers.
        weights: weights of the rewards ``format`` and ``iou``.
    """

    name = "grounding"
    metric_names = ("iou",)
    failure_reasons = INTERVAL_FAILURES
    headline = "mIoU"

    def __init__(self, think: bool = True, weights: Mapping[str, float] | None = None) -> None:
        super().__init__({"format": partial(answer_format, think=think), "iou": temporal_iou}, weights)
        self.think = think

    def prompt(self, sample: Sample) -> Prompt:
        """Question, then the form of the answer."""
        question = QUESTION.format(query=sample.query.strip().rstrip("."))
        return Prompt(f"{question}\n{THINK if self.think else NO_THINK}{FORM}")

    def parse(self, text: str) -> Interval | ParseFailure:
        """The interval of the last answer block."""
        return parse_interval(text)

    def answer(self, sample: Sample) -> str:
        """The true interval; with ``think``, a sample's ``rationale`` stands before it."""
        answer = f"<answer>{format_interval(sample.target)}</answer>"
        if not self.think:
            return answer
        return f"<think>{sample.extra.get('rationale', sample.query.strip())}</think>{answer}"

    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        """Temporal IoU with the truth."""
        return {"iou": temporal_iou(completion, sample)}

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """mIoU, R@0.3, R@0.5, R@0.7 and the share of well-formed answers, each in 0..1."""
        scores = summarise_iou([judgement.metrics["iou"] for judgement in judgements])
        return scores | {"format": mean([judgement.rewards["format"] for judgement in judgements])}

    def baselines(self, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """The best constant answer, and the best one for each duration, both fitted on ``train``."""

        def pairs(samples: Sequence[Sample]) -> list[tuple[float, Interval]]:
            return [(sample.duration or 0.0, sample.target) for sample in samples]

        ious = constant_baselines(pairs(train), pairs(test))
        return {name: summarise_iou(values) for name, values in ious.items()}


def read_activitynet(annotations: str, videos: str, limit: int | None = None) -> Annotations:
    """Captions JSON of ActivityNet and of VideoChat-R1: ``{video: {duration, timestamps, sentences}}``.

    Args:
        annotations: the JSON file.
        videos: folder of the videos, named as in the file.
        limit: read the first so many rows only.

    Raises:
        UserError: a missing or broken file, a missing folder, no usable row.
    """
    content = read_json(annotations)
    if not isinstance(content, dict):
        form = "{video: {duration, timestamps, sentences}}"
        raise UserError(f"{annotations}: expected {form}, found a {type(content).__name__}")
    folder = VideoFolder(videos)
    result = Annotations(annotations)
    left = math.inf if limit is None else limit
    for video, entry in content.items():
        try:
            duration = float(entry["duration"])
            spans, sentences = list(entry["timestamps"]), list(entry["sentences"])
            rows = [
                (number, *span, text)
                for number, (span, text) in enumerate(zip(spans, sentences, strict=True))
            ]
            if any(len(row) != 4 for row in rows):
                raise ValueError("a timestamp is not a pair")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{annotations}: video {video!r} needs duration, and timestamps [[start, end], ...] "
                f"and sentences of equal number ({type(error).__name__}: {error})"
            ) from error
        path = folder.find(video)
        for number, start, end, sentence in rows:
            left -= 1
            if left < 0:
                return result.checked()
            _add(result, f"{video}-{number}", path, sentence, start, end, duration)
    return result.checked()


_CHARADES_ROW = re.compile(r"(\S{1,200})\s+(\S{1,40})\s+(\S{1,40})\s*##(.*)", re.DOTALL)


def read_charades_sta(
    annotations: str, videos: str, limit: int | None = None, threads: int = 8
) -> Annotations:
    """Charades-STA's own text format, ``VIDEO start end##sentence``; durations come from the videos.

    Args:
        annotations: the text file.
        videos: folder of the videos, ``VIDEO.mp4``.
        limit: read the first so many rows only.
        threads: videos whose duration is read at the same time.

    Raises:
        UserError: a missing or broken file (names the line), a missing folder, no usable row.
    """
    folder = VideoFolder(videos)
    rows: list[tuple[str, float, float, str]] = []
    for line_number, line in read_lines(annotations)[:limit]:
        match = _CHARADES_ROW.fullmatch(line.strip())
        try:
            if match is None:
                raise ValueError("no '##'")
            rows.append((match[1], float(match[2]), float(match[3]), match[4]))
        except ValueError as error:
            raise UserError(
                f"{annotations}, line {line_number}: expected 'VIDEO start end##sentence', not {line[:80]!r}"
            ) from error
    paths = {video: folder.find(video) for video in dict.fromkeys(row[0] for row in rows)}
    with ThreadPoolExecutor(threads) as pool:
        durations = dict(zip(paths, pool.map(_duration, paths.values()), strict=True))
    result = Annotations(annotations)
    counts: dict[str, int] = {}
    for video, start, end, sentence in rows:
        number = counts[video] = counts.get(video, -1) + 1
        if paths[video] is not None and durations[video] is None:
            result.dropped["unreadable_video"] += 1
            continue
        _add(result, f"{video}-{number}", paths[video], sentence, start, end, durations[video])
    return result.checked()


def read_synthetic(
    folder: str,
    split: str,
    count: int,
    seed: int,
    loosen: float = 0.0,
    limit: int | None = None,
) -> Annotations:
    """The synthetic world: clips of coloured shapes that appear and disappear, written on first use.

    Args:
        folder: where the worlds are kept.
        split: name of the split.
        count: number of clips; each shows two events and gives two samples.
        seed: makes the split what it is.
        loosen: moves every end of the target outwards by up to so many seconds, in half seconds, as a
            careless annotator would; 0 keeps the truth.
        limit: take the first so many samples only.

    Raises:
        UserError: ``loosen`` is negative or no number of half seconds.
    """
    if loosen < 0 or loosen * 2 % 1:
        raise UserError(f"loosen={loosen} is no number of half seconds")
    result = Annotations(f"synthetic {split}")
    for number, (path, spec) in enumerate(build_world(Path(folder), split, count, seed)):
        rng = random.Random(f"{seed}-{number}")
        for position, event in enumerate(spec.events):
            start = max(0.0, event.start - rng.randint(0, int(2 * loosen)) / 2)
            end = min(spec.duration, event.end + rng.randint(0, int(2 * loosen)) / 2)
            result.samples.append(
                Sample(
                    id=f"{split}-{number:05d}-{position}",
                    video=str(path),
                    query=f"the {event.color} {event.shape} appears",
                    target=Interval(start, end),
                    duration=spec.duration,
                    extra={"rationale": event.color, "spec": spec},
                )
            )
    result.samples = result.samples[:limit]
    return result.checked()


def _add(
    result: Annotations,
    id_: str,
    path: str | None,
    sentence: str,
    start: float,
    end: float,
    duration: float | None,
) -> None:
    """Add one row, or count why it is left out."""
    query = sentence.strip() if isinstance(sentence, str) else ""
    if path is None:
        result.dropped["missing_video"] += 1
    elif not query:
        result.dropped["empty_query"] += 1
    elif (interval := mend_interval(start, end, duration, result)) is not None:
        result.samples.append(Sample(id_, path, query, interval, duration))


def _duration(path: str | None) -> float | None:
    """Seconds of a video; None where it is missing or unreadable."""
    if path is None:
        return None
    try:
        return video_duration(path)
    except VideoError:
        return None
