"""Questions about the clips of the synthetic world, one function for each kind of question."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from vcr1.records import Box, GroundedAnswer, Interval, Tracklet
from vcr1.scoring.geometry import clip_box
from vcr1.video import (
    COLORS,
    DEGRADATIONS,
    DIRECTIONS,
    SHAPES,
    ClipSpec,
    ShapeEvent,
    direction_of,
    evenly_spaced,
)
from vcr1.video.synthetic import SOURCE_FPS

NUM_OPTIONS = 4


@dataclass(frozen=True, slots=True)
class AskingStyle:
    """Style in which a clip is asked about.

    Attributes:
        loosen: how careless the annotator is; see `read_synthetic`.
        boxes: how many boxes of tracking are asked.
    """

    loosen: float = 0.0
    boxes: int = 8


Ask = Callable[[ClipSpec, random.Random, AskingStyle], list[dict[str, Any]]]
"""The questions about a clip, as fields of samples."""


def _name(event: ShapeEvent) -> str:
    return f"{event.color} {event.shape}"


def _ask_when(spec: ClipSpec, rng: random.Random, style: AskingStyle) -> list[dict[str, Any]]:
    fields = []
    for event in spec.events:
        start = max(0.0, event.start - rng.randint(0, int(2 * style.loosen)) / 2)
        end = min(spec.duration, event.end + rng.randint(0, int(2 * style.loosen)) / 2)
        query, extra = f"the {_name(event)} appears", {"rationale": event.color}
        fields.append({"query": query, "target": Interval(start, end), "extra": extra})
    return fields


def _ask_where(spec: ClipSpec, rng: random.Random, style: AskingStyle) -> list[dict[str, Any]]:
    (event,) = spec.events
    frames = evenly_spaced(round(spec.duration * SOURCE_FPS), style.boxes)
    boxes = tuple(clip_box(Box(*event.box(frame / SOURCE_FPS))) for frame in frames)
    extra = {"rationale": direction_of(event), "first_box": boxes[0]}
    return [{"query": f"the {_name(event)}", "target": _widen(boxes, rng, style.loosen), "extra": extra}]


def _widen(boxes: Tracklet, rng: random.Random, loosen: float) -> Tracklet:
    """Return the boxes with some of their edges moved outwards, the same ones in all boxes."""
    left, top, right, bottom = (rng.choice((0.0, loosen)) for _ in range(4))
    return tuple(clip_box(Box(box.x0 - left, box.y0 - top, box.x1 + right, box.y1 + bottom)) for box in boxes)


def _ordered(spec: ClipSpec) -> list[ShapeEvent]:
    return sorted(spec.events, key=lambda event: (event.start, event.end))


def _first_or_last(spec: ClipSpec, rng: random.Random) -> tuple[str, ShapeEvent] | None:
    """Return which of a clip's events is asked about; None where they begin together."""
    events = _ordered(spec)
    if events[0].start == events[-1].start:
        return None
    return rng.choice((("first", events[0]), ("last", events[-1])))


def _choose(right: str, others: list[str], rng: random.Random) -> tuple[dict[str, Any], str]:
    """Return options in a random order with the letter of the right one; and how one comes to it.

    What is seen is said first, then the options are gone through up to the one that says the same: so a tiny
    model can find the letter by copying.
    """
    options = [right, *rng.sample(others, min(NUM_OPTIONS - 1, len(others)))]
    rng.shuffle(options)
    place = options.index(right)
    lines = [f"({letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    fields = {"options": tuple(options), "target": ascii_uppercase[place]}
    return fields, "\n".join([right, *lines[: place + 1]])


def _ask_which_and_when(spec: ClipSpec, rng: random.Random, style: AskingStyle) -> list[dict[str, Any]]:
    if (asked := _first_or_last(spec, rng)) is None:
        return []
    place, event = asked
    # Options of one word: a tiny model does not learn to tell names of two words apart.
    fields, rationale = _choose(event.color, [color for color in COLORS if color != event.color], rng)
    fields["target"] = GroundedAnswer(fields["target"], (Interval(event.start, event.end),))
    extra = {"rationale": rationale, "category": place}
    return [fields | {"query": f"What color appears {place}, and when?", "extra": extra}]


def _ask_what(spec: ClipSpec, rng: random.Random, style: AskingStyle) -> list[dict[str, Any]]:
    fields = []
    for category, values in (("color", list(COLORS)), ("shape", list(SHAPES))):
        if (asked := _first_or_last(spec, rng)) is not None:
            place, event = asked
            right = getattr(event, category)
            choice, rationale = _choose(right, [value for value in values if value != right], rng)
            extra = {"rationale": rationale, "category": category}
            fields.append(choice | {"query": f"What {category} appears {place}?", "extra": extra})
    return fields


def _ask_which_way(spec: ClipSpec, rng: random.Random, style: AskingStyle) -> list[dict[str, Any]]:
    right = direction_of(spec.events[0])
    fields, rationale = _choose(right, [way for way in DIRECTIONS if way != right], rng)
    extra = {"rationale": rationale, "category": "direction"}
    return [fields | {"query": "Which way does the shape move?", "extra": extra}]


def _ask_what_happens(spec: ClipSpec, rng: random.Random, style: AskingStyle) -> list[dict[str, Any]]:
    events = tuple(f"a {_name(event)} appears" for event in _ordered(spec))
    caption = ". ".join(events) + "."
    extra = {"rationale": ", ".join(event.color for event in _ordered(spec)), "events": events}
    return [{"query": "What happens in the video, in order?", "target": caption, "extra": extra}]


def _ask_how_good(spec: ClipSpec, rng: random.Random, style: AskingStyle) -> list[dict[str, Any]]:
    fields = {"query": "How good is the picture of this video?", "options": DEGRADATIONS}
    return [fields | {"target": spec.degradation, "extra": {"rationale": spec.degradation}}]


QUESTIONS: dict[str, dict[str, Ask]] = {
    "grounding": {"events": _ask_when},
    "tracking": {"motion": _ask_where},
    "grounded_qa": {"events": _ask_which_and_when},
    "qa": {"events": _ask_what, "motion": _ask_which_way},
    "captioning": {"events": _ask_what_happens},
    "quality": {"quality": _ask_how_good},
}
"""Task -> world that it asks about -> its questions."""
