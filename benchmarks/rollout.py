"""Tokens per CPU second of decoding: plain steps, compiled steps, transformers' ``generate``.

All forms in one process, in turns, after a first round that is not counted (it compiles); medians.
Usage: ``python benchmarks/rollout.py [--out benchmarks/RESULTS.md]``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch

from learner import FULL, WORDS, EndlessEncoder, make_model, make_processor, video_prompt
from measuring import machine
from repeated import generate, repeat
from vcr1.policy import Sampling, VideoPolicy
from vcr1.records import PromptInputs
from writing import publish, table

GRIDS = {1046: (8, 16, 28), 3734: (32, 16, 28)}
"""Prompt tokens -> patches of the video."""
ROWS = (8, 32, 64)
GROUP, LENGTH = 8, 64
ROUNDS = 3
FORMS = ("plain", "compiled", "generate", "plain, 8 rows at a time")


def rolled(
    policy: VideoPolicy, inputs: list[PromptInputs], features: list[torch.Tensor | None], **how: object
) -> None:
    """Decode G completions of each prompt to the limit."""
    settings = Sampling(LENGTH, **how)  # type: ignore[arg-type]
    groups = policy.rollout(inputs, features, GROUP, settings, list(range(len(inputs))))
    assert int(groups.lengths.min()) == LENGTH


def forms_of(policy: VideoPolicy, prompt: PromptInputs, rows: int) -> dict[str, Callable[[], None]]:
    """Return the forms of decoding so many completions, in groups of G."""
    inputs = [prompt] * (rows // GROUP)
    with torch.no_grad():
        features = policy.vision([prompt]) * len(inputs)
    never = policy.never_sampled

    def generated() -> None:
        for item in inputs:
            generate(policy.model, repeat(item, GROUP), LENGTH, never)

    decode = partial(rolled, policy, inputs, features)
    found: dict[str, Callable[[], None]] = {
        "plain": partial(decode, rows=None, compile=False),
        "compiled": partial(decode, rows=None, compile=True),
    }
    if rows <= 8:
        found["generate"] = generated
    else:
        found["plain, 8 rows at a time"] = partial(decode, rows=8, compile=False)
    return found


def measured(prompt_tokens: int, rows: int) -> dict[str, float]:
    """Return form -> tokens per CPU second."""
    processor = make_processor(FULL.vocabulary)
    policy = VideoPolicy(make_model(processor, FULL), EndlessEncoder(processor)).eval()
    prompt = video_prompt(policy.model, GRIDS[prompt_tokens], WORDS)
    forms = forms_of(policy, prompt, rows)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for count in range(ROUNDS + 1):
        for name, run in forms.items():
            start = time.process_time()
            run()
            if count:
                seconds[name].append(time.process_time() - start)
    return {name: rows * LENGTH / median(times) for name, times in seconds.items()}


def main() -> None:
    """Measure and print; with ``--out``, write the section ``rollout`` of a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--prompts", type=int, nargs="+", default=list(GRIDS))
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for prompt in arguments.prompts:
        for rows in arguments.rows:
            found = measured(prompt, rows)
            shown = [f"{found[form]:,.0f}" if form in found else "" for form in FORMS]
            lines.append([f"{prompt:,}", str(rows), *shown, f"{found['compiled'] / found['plain']:.2f}"])
            print(*lines[-1], sep="  ", flush=True)
    text = table(["prompt", "rows", *FORMS, "compiled / plain"], lines)
    note = f"{LENGTH} tokens a completion, groups of {GROUP}, float32, the prefill included; {machine()}"
    publish("rollout", f"{text}\n\n{note}", arguments.out)


if __name__ == "__main__":
    main()
