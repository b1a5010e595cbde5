"""The command line as people write it: questions and paths are texts, whatever Hydra makes of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

TEXTS = ("query", "video", "videos", "checkpoint", "render", "out")
"""Settings whose value is a text as it stands, or a list of quoted ones."""

_TEXT = re.compile(rf"({'|'.join(TEXTS)})=(.*)", re.DOTALL)


def as_text(overrides: Sequence[str]) -> list[str]:
    """Quote texts for Hydra: a comma in a question is no sweep, and a dollar no interpolation.

    ``query=what is this, then?`` becomes ``query='what is this, then?'``. A value that begins with a quote or
    a bracket is Hydra's own, and so is ``null``. ``task=null`` becomes ``task=free``.
    """
    return [_written(override) for override in overrides]


def _written(override: str) -> str:
    if override == "task=null":
        return "task=free"
    match = _TEXT.fullmatch(override)
    if match is None or match[2] == "null" or match[2].startswith(("'", '"', "[")):
        return override
    # Hydra takes a backslash for itself before a quote only, and OmegaConf one before a dollar's brace.
    text = re.sub(r"(\\*)'", r"\1\1\\'", match[2])
    text = re.sub(r"\\+$", lambda end: end[0] * 2, text)
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return f"{match[1]}='{text}'"
