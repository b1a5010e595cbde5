"""What evaluating costs: the demo's 200 held-out questions, in groups and by one ``generate`` per question.

Both read the same videos, make the same inputs, decode greedily with the same weights on one thread, and
judge by the same task. Usage: ``python benchmarks/evaluation.py [--out benchmarks/RESULTS.md]``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText

from measuring import Spread, machine, use_one_thread
from vcr1.errors import UserError
from vcr1.evaluation import Answering, Benchmark, form_groups
from vcr1.evaluation.batches import GroupDataset
from vcr1.policy import Sampling, correct_positions, load_encoder, load_policy
from vcr1.policy.weights.loading import resolve
from vcr1.readers import read_synthetic
from vcr1.tasks import GroundingTask
from vcr1.video import FrameBudget, read_clip
from writing import publish, table

MODEL = "builtin:tiny"
GROUP = 50
SAMPLING = Sampling(max_new_tokens=96, temperature=0.0)
TARGET = 3.0

Texts = dict[str, str]
"""Completion of each sample, by its id."""


def held_out(folder: Path, clips: int = 100) -> Benchmark:
    """The demo's held-out questions about temporal grounding, two for each clip."""
    annotations = read_synthetic(str(folder / "synthetic"), "val", clips, seed=2)
    budget = FrameBudget(min_pixels=784, total_pixels=784)
    return Benchmark("synthetic_grounding", "grounding", "val", GroundingTask(), annotations, budget)


def one_by_one(benchmark: Benchmark) -> Callable[[], Texts]:
    """The plain loop: read, encode, ``generate``, one question after the other."""
    encoder = load_encoder(MODEL)
    model = AutoModelForImageTextToText.from_pretrained(resolve(MODEL), dtype=torch.float32).eval()
    correct_positions(model)  # or transformers would answer from other positions than vcr1
    never = encoder.never_sampled(model.config.get_text_config().vocab_size)

    @torch.no_grad()
    def run() -> Texts:
        texts = {}
        for sample in benchmark.samples:
            clip = read_clip(sample.source, benchmark.budget, encoder.grid)
            inputs = encoder(benchmark.task.prompt(sample), clip)
            ids = model.generate(
                **inputs,
                max_new_tokens=SAMPLING.max_new_tokens,
                do_sample=False,
                suppress_tokens=never,
                eos_token_id=encoder.end_of_turn,
                pad_token_id=encoder.padding,
            )
            texts[sample.id] = encoder.decode(ids[0, inputs["input_ids"].shape[1] :].tolist())
        benchmark.task.judge(list(texts.values()), benchmark.samples).result()
        return texts

    return run


def in_groups(benchmark: Benchmark, size: int = GROUP) -> Callable[[], Texts]:
    """What ``vcr1.evaluate`` computes, in this process alone."""
    policy = load_policy(MODEL)
    answering = Answering(policy, [benchmark], SAMPLING, 1, Path())

    def run() -> Texts:
        dataset = GroupDataset(form_groups([benchmark], size), [benchmark], policy.encoder)
        texts: Texts = {}
        for place in range(len(dataset)):
            _, questions = dataset[place]
            answers = answering.generate(questions)
            own = [answer[0] for answer in answers if answer is not None]
            texts |= {sample.id: text for sample, text in zip(questions.samples, own, strict=True)}
        ordered = {sample.id: texts[sample.id] for sample in benchmark.samples}
        benchmark.task.judge(list(ordered.values()), benchmark.samples).result()
        return ordered

    return run


def measured(run: Callable[[], Texts], times: int) -> tuple[Spread, Spread, Texts]:
    """CPU seconds, wall seconds and the completions of a form."""
    cpu, wall, texts = [], [], {}
    for _ in range(times):
        begin, started = time.process_time(), time.perf_counter()
        texts = run()
        cpu.append(time.process_time() - begin)
        wall.append(time.perf_counter() - started)
    return Spread.of(cpu), Spread.of(wall), texts


def report(clips: int = 100, times: int = 3) -> str:
    """The section's text."""
    use_one_thread()
    with tempfile.TemporaryDirectory() as folder:
        benchmark = held_out(Path(folder), clips)
        plain, plain_wall, expected = measured(one_by_one(benchmark), times)
        grouped, grouped_wall, found = measured(in_groups(benchmark), times)
    same = sum(found[id_] == text for id_, text in expected.items())
    rows = [
        ["one `generate` per question", f"{plain:.1f}", f"{plain_wall:.1f}", "1"],
        [
            f"groups of {GROUP}",
            f"{grouped:.1f}",
            f"{grouped_wall:.1f}",
            f"{plain.median / grouped.median:.1f}",
        ],
    ]
    header = ["form", "CPU s", "wall s", "times as fast (CPU)"]
    return (
        f"{machine('lightning')}\n\nMedian (smallest–largest) of {times} runs over {len(expected)} questions "
        f"about {clips} clips; {same} of {len(expected)} completions are the same. Target: ≥ {TARGET:g}.\n\n"
        f"{table(header, rows)}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="Markdown file whose section is replaced")
    parser.add_argument("--times", type=int, default=3, help="runs of each form")
    given = parser.parse_args()
    try:
        publish("evaluation", report(times=given.times), given.out)
    except UserError as error:
        print(f"evaluation: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
