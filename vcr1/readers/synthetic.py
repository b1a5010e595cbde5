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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations
from vcr1.records import Box, GroundedAnswer, Interval, Sample, Tracklet, VideoSource
from vcr1.scoring.geometry import clip_box
from vcr1.video import (
    COLORS,
    DEGRADATIONS,
    DIRECTIONS,
    SHAPES,
    ClipSpec,
    ShapeEvent,
    build_world,
    direction_of,
    evenly_spaced,
)
from vcr1.video.synthetic import SOURCE_FPS

NUM_OPTIONS = 4
HINTED = ("qa", "grounded_qa")
"""The tasks whose questions can say what is right: those that are answered by an option's letter."""
LONG = "long"
"""The world whose clips are asked about as those of events are."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a clip is asked about.

    Attributes:
        loosen: how careless the annotator is; see `read_synthetic`.
        boxes: how many boxes of tracking are asked.
    """

    loosen: float = 0.0
    boxes: int = 8


Ask = Callable[[ClipSpec, random.Random, Manner], list[dict[str, Any]]]
"""The questions about a clip, as fields of samples."""


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
    result, manner = Annotations(f"synthetic {split}"), Manner(loosen, boxes)
    for kind in _QUESTIONS[task] if world is None else [world]:
        for number, (path, spec) in enumerate(build_world(Path(folder), split, count, seed, kind)):
            prefix = split if kind == "events" else f"{split}-{kind}"
            rng = random.Random(f"{seed}-{number}")
            found = ask_about(spec, task, kind, str(path), f"{prefix}-{number:05d}", rng, manner)
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


def _check(
    task: str, loosen: float, world: str | None, parts: Sequence[float] | None, draws: int, hint: float
) -> None:
    """See that a data set can be had; see `read_synthetic`.

    Raises:
        UserError: it cannot.
    """
    if task not in _QUESTIONS:
        raise UserError(f"task={task} is none of {', '.join(_QUESTIONS)}")
    if loosen and (task not in ("grounding", "tracking") or loosen < 0):
        raise UserError(f"loosen={loosen} cannot be done for {task}")
    if task == "grounding" and loosen * 2 % 1:
        raise UserError(f"loosen={loosen} is no number of half seconds")
    if world is not None and (world != LONG or "events" not in _QUESTIONS[task]):
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
    manner: Manner | None = None,
) -> list[Sample]:
    """The samples of a task about one clip.

    Args:
        spec: the clip.
        task: what is asked, see the module's table.
        kind: the world that the clip was drawn from.
        video: path of the clip.
        prefix: of the samples' ids.
        rng: the only source of chance.
        manner: how it is asked about.
    """
    samples = []
    ask = _QUESTIONS[task]["events" if kind == LONG else kind]
    for position, fields in enumerate(ask(spec, rng, manner or Manner())):
        extra = {"spec": spec} | fields.pop("extra")
        id_ = f"{prefix}-{position}"
        samples.append(Sample(id=id_, video=video, duration=spec.duration, extra=extra, **fields))
    return samples


def show_part(sample: Sample, seconds: tuple[float, float], draw: int, rng: random.Random) -> Sample:
    """The same question about a part of the clip in which its event lies whole; times are the part's.

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


def kinds_of(task: str) -> list[str]:
    """The worlds that a task asks about."""
    return list(_QUESTIONS[task])


def _name(event: ShapeEvent) -> str:
    return f"{event.color} {event.shape}"


def _ask_when(spec: ClipSpec, rng: random.Random, manner: Manner) -> list[dict[str, Any]]:
    fields = []
    for event in spec.events:
        start = max(0.0, event.start - rng.randint(0, int(2 * manner.loosen)) / 2)
        end = min(spec.duration, event.end + rng.randint(0, int(2 * manner.loosen)) / 2)
        query, extra = f"the {_name(event)} appears", {"rationale": event.color}
        fields.append({"query": query, "target": Interval(start, end), "extra": extra})
    return fields


def _ask_where(spec: ClipSpec, rng: random.Random, manner: Manner) -> list[dict[str, Any]]:
    (event,) = spec.events
    frames = evenly_spaced(round(spec.duration * SOURCE_FPS), manner.boxes)
    boxes = tuple(clip_box(Box(*event.box(frame / SOURCE_FPS))) for frame in frames)
    extra = {"rationale": direction_of(event), "first_box": boxes[0]}
    return [{"query": f"the {_name(event)}", "target": _widen(boxes, rng, manner.loosen), "extra": extra}]


def _widen(boxes: Tracklet, rng: random.Random, loosen: float) -> Tracklet:
    """The boxes with some of their edges moved outwards, the same ones in all boxes."""
    left, top, right, bottom = (rng.choice((0.0, loosen)) for _ in range(4))
    return tuple(clip_box(Box(box.x0 - left, box.y0 - top, box.x1 + right, box.y1 + bottom)) for box in boxes)


def _ordered(spec: ClipSpec) -> list[ShapeEvent]:
    return sorted(spec.events, key=lambda event: (event.start, event.end))


def _first_or_last(spec: ClipSpec, rng: random.Random) -> tuple[str, ShapeEvent] | None:
    """Which of a clip's events is asked about; None where they begin together."""
    events = _ordered(spec)
    if events[0].start == events[-1].start:
        return None
    return rng.choice((("first", events[0]), ("last", events[-1])))


def _choose(right: str, others: list[str], rng: random.Random) -> tuple[dict[str, Any], str]:
    """Options in a random order with the letter of the right one; and how one comes to it.

    What is seen is said first, then the options are gone through up to the one that says the same: so a tiny
    model can find the letter by copying.
    """
    options = [right, *rng.sample(others, min(NUM_OPTIONS - 1, len(others)))]
    rng.shuffle(options)
    place = options.index(right)
    lines = [f"({letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    fields = {"options": tuple(options), "target": ascii_uppercase[place]}
    return fields, "\n".join([right, *lines[: place + 1]])


def _ask_which_and_when(spec: ClipSpec, rng: random.Random, manner: Manner) -> list[dict[str, Any]]:
    if (asked := _first_or_last(spec, rng)) is None:
        return []
    place, event = asked
    # Options of one word: a tiny model does not learn to tell names of two words apart.
    fields, rationale = _choose(event.color, [color for color in COLORS if color != event.color], rng)
    fields["target"] = GroundedAnswer(fields["target"], (Interval(event.start, event.end),))
    extra = {"rationale": rationale, "category": place}
    return [fields | {"query": f"What color appears {place}, and when?", "extra": extra}]


def _ask_what(spec: ClipSpec, rng: random.Random, manner: Manner) -> list[dict[str, Any]]:
    fields = []
    for category, values in (("color", list(COLORS)), ("shape", list(SHAPES))):
        if (asked := _first_or_last(spec, rng)) is not None:
            place, event = asked
            right = getattr(event, category)
            choice, rationale = _choose(right, [value for value in values if value != right], rng)
            extra = {"rationale": rationale, "category": category}
            fields.append(choice | {"query": f"What {category} appears {place}?", "extra": extra})
    return fields


def _ask_which_way(spec: ClipSpec, rng: random.Random, manner: Manner) -> list[dict[str, Any]]:
    right = direction_of(spec.events[0])
    fields, rationale = _choose(right, [way for way in DIRECTIONS if way != right], rng)
    extra = {"rationale": rationale, "category": "direction"}
    return [fields | {"query": "Which way does the shape move?", "extra": extra}]


def _ask_what_happens(spec: ClipSpec, rng: random.Random, manner: Manner) -> list[dict[str, Any]]:
    events = tuple(f"a {_name(event)} appears" for event in _ordered(spec))
    caption = ". ".join(events) + "."
    extra = {"rationale": ", ".join(event.color for event in _ordered(spec)), "events": events}
    return [{"query": "What happens in the video, in order?", "target": caption, "extra": extra}]


def _ask_how_good(spec: ClipSpec, rng: random.Random, manner: Manner) -> list[dict[str, Any]]:
    fields = {"query": "How good is the picture of this video?", "options": DEGRADATIONS}
    return [fields | {"target": spec.degradation, "extra": {"rationale": spec.degradation}}]


_QUESTIONS: dict[str, dict[str, Ask]] = {
    "grounding": {"events": _ask_when},
    "tracking": {"motion": _ask_where},
    "grounded_qa": {"events": _ask_which_and_when},
    "qa": {"events": _ask_what, "motion": _ask_which_way},
    "captioning": {"events": _ask_what_happens},
    "quality": {"quality": _ask_how_good},
}
