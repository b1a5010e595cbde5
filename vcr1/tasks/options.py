"""Options to choose from, as prompts list them and targets name them."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from vcr1.records import GroundedAnswer, Sample


def list_options(options: Sequence[str]) -> str:
    """One line per option, ``(A) …``; at most 26.

    Raises:
        ValueError: more options than letters.
    """
    if len(options) > len(ascii_uppercase):
        raise ValueError(f"{len(options)} options, but there are {len(ascii_uppercase)} letters")
    pairs = zip(ascii_uppercase, options, strict=False)
    return "\n".join(f"({letter}) {' '.join(option.split())}" for letter, option in pairs)


def letters_of(samples: Sequence[Sample]) -> list[str]:
    """The right letters."""
    targets = [sample.target for sample in samples]
    return [str(target.letter if isinstance(target, GroundedAnswer) else target) for target in targets]
