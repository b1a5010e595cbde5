"""A step over a prompt that its group shares, against one over a repeated prompt.

Both forms, prompt by prompt, in turns; every measurement in a fresh process, after a small step that is not
counted. Usage: ``python benchmarks/prefix.py [--out benchmarks/RESULTS.md]``.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from learner import FULL, TOY, WIDE, WORDS, EndlessEncoder, Size, make_model, make_processor, video_prompt
from measuring import Meter, Spread, in_fresh_process, machine
from repeated import repeated_learner, repeated_step
from shared import shared_learner, shared_step
from vcr1.errors import UserError
from writing import publish, table

FORMS = ("repeated", "shared")
GRIDS = [(4, 16, 24), (8, 16, 28), (17, 16, 28), (32, 16, 28)]
"""Patches of the videos: prompts of 534, 1,046, 2,054 and 3,734 tokens."""
TARGETS = {534: "3.3", 1046: "4.5", 2054: "6", 3734: "7"}
POLICY_TARGETS, MEMORY_TARGETS = {3734: "8"}, {3734: "5.5"}
GROUP, LENGTH = 8, 128


@dataclass(frozen=True, slots=True)
class Setting:
    """What all measurements have in common.

    Attributes:
        size: of the model.
        words: of the prompts.
        group: completions of a prompt (G).
        length: tokens of each (C).
    """

    size: Size = FULL
    words: int = WORDS
    group: int = GROUP
    length: int = LENGTH

    def limit(self, prompt: int) -> float:
        """How many times fewer tokens a training forward has once a prompt of P tokens is shared."""
        return (prompt + self.length) / (prompt / self.group + self.length)


def measure(form: str, setting: Setting, grid: tuple[int, int, int]) -> Meter:
    """One step of a form over a prompt with a video of ``grid`` patches."""
    processor = make_processor(setting.size.vocabulary)
    model = make_model(processor, setting.size)
    never = EndlessEncoder(processor).never_sampled(setting.size.vocabulary)
    if form == "shared":
        learner = shared_learner(model, processor, setting.group, setting.length)
    else:
        learner = repeated_learner(model, setting.group, setting.length)
    meter = Meter()
    for size, used in (((1, 4, 4), Meter()), (grid, meter)):  # the first step makes the optimizer's state
        torch.manual_seed(0)
        inputs = video_prompt(model, size, setting.words)
        if form == "shared":
            shared_step(learner, inputs, used)
        else:
            repeated_step(learner, inputs, never, used)
    return meter


def costs(meter: Meter) -> dict[str, float]:
    """CPU seconds by what is compared: whatever a part needs counts in it, so the shared vision pass twice.

    But in the whole step everything counts once.
    """
    vision = meter.cpu.get("vision", 0.0)
    return {
        "rollout": vision + meter.cpu["rollout"],
        "reference": meter.cpu["reference"],
        "policy forward and backward": vision + meter.cpu["policy"],
        "whole step": sum(meter.cpu.values()),
    }


def peaks(meter: Meter) -> dict[str, float]:
    """MiB by what is compared."""
    return {"policy forward and backward": meter.peak["policy"], "whole step": max(meter.peak.values())}


Runs = dict[str, list[Meter]]


def run(setting: Setting, grid: tuple[int, int, int], repeats: int) -> Runs:
    """Measurements of both forms, in turns."""
    runs: Runs = {form: [] for form in FORMS}
    for number in range(repeats):
        for form in FORMS:
            meter = in_fresh_process(measure, form, setting, grid)
            runs[form].append(meter)
            print(f"{grid} {number} {form}: {costs(meter)} {peaks(meter)}", file=sys.stderr, flush=True)
    return runs


def rows(prompt: int, runs: Runs, what: str) -> list[list[str]]:
    """Cells of a prompt: part, repeated, shared, and how many times less; of ``cpu`` or ``peak``."""
    read, spec = (costs, ".2f") if what == "cpu" else (peaks, ".0f")
    found = {form: [read(meter) for meter in meters] for form, meters in runs.items()}
    result = []
    for part in found["shared"][0]:
        before, after = ([one[part] for one in found[form]] for form in FORMS)
        ratio = Spread.of([large / small for large, small in zip(before, after, strict=True)])
        numbers = [format(Spread.of(values), spec) for values in (before, after)]
        result.append([f"{prompt:,}", part, *numbers, format(ratio, ".2f")])
    return result


def report(setting: Setting, runs: dict[int, Runs]) -> str:
    """The section of the results."""
    seconds, memory = [], []
    for prompt, measured in runs.items():
        wanted = {"whole step": TARGETS, "policy forward and backward": POLICY_TARGETS}
        for row in rows(prompt, measured, "cpu"):
            target = wanted.get(row[1], {}).get(prompt, "")
            seconds.append([*row, f"{setting.limit(prompt):.2f}", target and f"≥ {target}"])
        for row in rows(prompt, measured, "peak"):
            policy = row[1].startswith("policy")
            target = MEMORY_TARGETS.get(prompt, "") if policy else ""
            memory.append([*row, f"{setting.limit(prompt):.2f}", target and f"≥ {target}"])
    count = len(next(iter(runs.values()))["shared"])
    head = [
        "prompt tokens",
        "part",
        "repeated",
        "shared",
        "repeated / shared",
        "(P + C) / (P/G + C)",
        "target",
    ]
    return "\n".join(
        [
            f"{machine()}",
            "",
            f"G = {setting.group} completions of C = {setting.length} tokens, float32. Median "
            f"(smallest–largest) of {count} run{'s' * (count > 1)} of each form, in turns, each in a fresh "
            f"process.",
            "",
            "CPU seconds:",
            "",
            table(head, seconds),
            "",
            "Peak resident memory in MiB, above what was resident before the step:",
            "",
            table(head, memory),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write the section where a file is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--out", type=Path, help="a RESULTS.md, whose section `prefix`, or `prefix-wide`, is replaced"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each form and prompt")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--toy", action="store_true", help="the smallest sizes, to see that it works")
    sizes.add_argument("--wide", action="store_true", help="a larger model and the longest prompt only")
    chosen = parser.parse_args(arguments)
    section, setting, grids = "prefix", Setting(), GRIDS
    if chosen.toy:
        setting, grids = Setting(TOY, words=6, group=2, length=3), [(2, 4, 4)]
    elif chosen.wide:
        section, setting, grids = "prefix-wide", Setting(WIDE), GRIDS[-1:]
    runs = {math.prod(grid) // 4 + setting.words + 2: run(setting, grid, chosen.repeats) for grid in grids}
    try:
        publish(section, report(setting, runs), chosen.out)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
