"""The synthetic world as a data set, for every task.

============  ========  =================================================================================
task          clips     asks
============  ========  =================================================================================
grounding     events    when a shape appears
tracking      motion    where the shape goes
grounded_qa   events    which colour appears first, or last, and when
qa            both      the colour or form of what appears first or last; which way a shape moves
captioning    events    what happens, in order
quality       quality   whether the picture is clean, noisy or blurred
============  ========  =================================================================================

Whatever is asked about clips of events can be asked about those of the world ``long`` too.

Where a model reasons before it answers, a sample's ``rationale`` is what decides the answer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations, concatenate
from vcr1.readers.synthetic_questions import QUESTIONS, AskingStyle
from vcr1.records import GroundedAnswer, Interval, Sample, VideoSource
from vcr1.video import ClipSpec, build_world

HINTED = ("qa", "grounded_qa")
"""The tasks whose questions can say what is right: those that are answered by an option's letter."""
LONG = "long"
"""The world whose clips are asked about as those of events are."""


def read_synthetic(
    folder: str,
    split: str,
    count: int,
    seed: int,
    task: str = "grounding",
    loosen: float = 0.0,
    boxes: int = 8,
    limit: int | None = None,
    world: str | None = None,
    parts: Sequence[float] | None = None,
    draws: int = 1,
    hint: float = 0.0,
) -> Annotations:
    """Questions about clips of coloured shapes; the clips are written on first use.

    Args:
        folder: where the worlds are kept.
        split: name of the split.
        count: number of clips of each kind that the task asks about; each gives one sample or more.
        seed: makes the split what it is.
        task: what is asked, see the module's table.
        loosen: how careless the annotator is; 0 keeps the truth. Grounding: every end of the target moves
            outwards by up to so many seconds, in half seconds. Tracking: so does every edge of the boxes, by
            so much of the frame or not at all, the same edges in all of a clip's boxes. The others know no
            carelessness.
        boxes: how many boxes of tracking are asked.
        limit: take the first so many samples only.
        world: ``long`` asks what is asked about events about the clips of that world; None leaves it to the
            task.
        parts: fewest and most seconds; every question is then asked about a part of its clip, of a random
            length between them, in which the event lies whole. None shows the whole clip.
        draws: parts of which each question is asked.
        hint: share of the questions with options that say what is right before they ask. A tiny model learns
            from these to find the right option's letter, as a language model has learnt from text.

    Raises:
        UserError: an unknown task or world, parts, a ``loosen`` or a ``hint`` that the task cannot do.
    """
    _check(task, loosen, world, parts, draws, hint)
    result, style = Annotations(f"synthetic {split}"), AskingStyle(loosen, boxes)
    for kind in QUESTIONS[task] if world is None else [world]:
        for number, (path, spec) in enumerate(build_world(Path(folder), split, count, seed, kind)):
            prefix = split if kind == "events" else f"{split}-{kind}"
            rng = random.Random(f"{seed}-{number}")
            found = ask_about(spec, task, kind, str(path), f"{prefix}-{number:05d}", rng, style)
            if parts is not None:
                found = [
                    show_part(sample, (parts[0], parts[1]), draw, rng)
                    for sample in found
                    for draw in range(draws)
                ]
            if hint:
                told = random.Random(f"hint-{seed}-{number}")
                found = [tell(sample) if told.random() < hint else sample for sample in found]
            result.samples += found
    result.samples = result.samples[:limit]
    return result.checked()


def read_passes(
    passes: Sequence[Mapping[str, Any]], shuffle_seed: int | None = None, **settings: Any
) -> Annotations:
    """Read several passes over questions of the synthetic world, one after the other.

    Args:
        passes: settings of `read_synthetic` that are a pass's own.
        shuffle_seed: of the order within each pass; None keeps that of the clips.
        settings: those that all passes share.
    """
    return concatenate([read_synthetic(**{**settings, **one}) for one in passes], shuffle_seed)


def _check(
    task: str, loosen: float, world: str | None, parts: Sequence[float] | None, draws: int, hint: float
) -> None:
    """See that a data set can be had; see `read_synthetic`.

    Raises:
        UserError: it cannot.
    """
    if task not in QUESTIONS:
        raise UserError(f"task={task} is none of {', '.join(QUESTIONS)}")
    if loosen and (task not in ("grounding", "tracking") or loosen < 0):
        raise UserError(f"loosen={loosen} cannot be done for {task}")
    if task == "grounding" and loosen * 2 % 1:
        raise UserError(f"loosen={loosen} is no number of half seconds")
    if world is not None and (world != LONG or "events" not in QUESTIONS[task]):
        raise UserError(f"world={world} is no world that {task} asks about; there is {LONG}, for events")
    if parts is not None and (task != "grounding" or len(parts) != 2 or not 0 < parts[0] <= parts[1]):
        raise UserError(f"parts={parts}: the fewest and the most seconds of a part, for task=grounding")
    if draws < 1 or (draws > 1 and parts is None):
        raise UserError(f"draws={draws}: as many parts of each question, so at least 1, and 1 without parts")
    if hint and (task not in HINTED or not 0 < hint <= 1):
        raise UserError(f"hint={hint}: a share between 0 and 1, for {' or '.join(HINTED)}")


def tell(sample: Sample) -> Sample:
    """Return the question with its right option said before it."""
    letter = sample.target.letter if isinstance(sample.target, GroundedAnswer) else sample.target
    right = sample.options[ascii_uppercase.index(str(letter))]
    return replace(sample, query=f"It is {right}. {sample.query}")


def ask_about(
    spec: ClipSpec,
    task: str,
    kind: str,
    video: str,
    prefix: str,
    rng: random.Random,
    style: AskingStyle | None = None,
) -> list[Sample]:
    """Return the samples of a task about one clip.

    Args:
        spec: the clip.
        task: what is asked, see the module's table.
        kind: the world that the clip was drawn from.
        video: path of the clip.
        prefix: of the samples' ids.
        rng: the only source of chance.
        style: how it is asked about.
    """
    samples = []
    ask = QUESTIONS[task]["events" if kind == LONG else kind]
    for position, fields in enumerate(ask(spec, rng, style or AskingStyle())):
        extra = {"spec": spec} | fields.pop("extra")
        id_ = f"{prefix}-{position}"
        samples.append(Sample(id=id_, video=video, duration=spec.duration, extra=extra, **fields))
    return samples


def show_part(sample: Sample, seconds: tuple[float, float], draw: int, rng: random.Random) -> Sample:
    """Return the same question about a part of the clip in which its event lies whole; times are the part's.

    Args:
        sample: of grounding, about a whole clip.
        seconds: fewest and most of the part; as many as the event takes, if these are more. Borders lie on
            half seconds, as all times of the world do.
        draw: number of the part, for the sample's id.
        rng: the only source of chance.
    """
    spec, event = sample.extra["spec"], sample.target
    length = max(rng.randint(math.ceil(2 * seconds[0]), math.floor(2 * seconds[1])) / 2, event.length)
    length = min(length, spec.duration)
    earliest, latest = max(event.end - length, 0.0), min(event.start, spec.duration - length)
    start = rng.randint(round(2 * earliest), round(2 * latest)) / 2
    return replace(
        sample,
        id=f"{sample.id}-part{draw}",
        video=VideoSource(sample.source.path, start, start + length),
        target=Interval(event.start - start, event.end - start),
        duration=length,
        extra={**sample.extra, "spec": spec.part(start, start + length)},
    )
