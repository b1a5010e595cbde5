"""What an update costs on one rank and on two, what it sends, and what that means for many GPUs.

Measured: seconds on this machine's cores (gloo), and bytes by phase and collective, counted exactly. On
paper: Qwen2.5-VL-7B on 8, 64 and 512 GPUs; every assumption is an argument. Usage:
``python benchmarks/scaling.py [--out benchmarks/scaling.md]``, with ``--paper`` for the second part alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from measuring import Spread, machine
from scaling_model import Assumptions, Step, phase_flops, step
from scaling_runs import CASES, SETTING, SMALL, Case, Update, run_ranks
from sent import SINGLE, Weights, expected_bytes, weights_of
from shapes import PAPER, SHAPES
from traffic import BROADCAST, GATHER, REDUCE, SCATTER, ring_bytes
from vcr1.errors import UserError
from writing import publish, table

ALONE, TWO = ("fsdp", "fsdp, LoRA"), ("ddp", "fsdp", "fsdp, gather=false", "fsdp, LoRA")
"""Cases whose seconds are measured on one rank, where no strategy is needed, and on two."""
PHASES = ("vision", "rollout", "reference", "policy forward", "backward")
GPUS, LORA_RANK = (8, 64, 512), 16
WAYS = ("fsdp", "hybrid", "ddp")
CHANGES: dict[str, dict[str, Any]] = {
    "as assumed": {},
    "a collective uses 1 network card of a node": {"rails": 1},
    "a decoding step takes 10 ms": {"decode_ms": 10.0},
    "lengths vary by 50 tokens": {"spread": 50.0},
    "4 prompts per GPU": {"prompts": 4},
    "4 prompts per GPU, lengths vary by 50": {"prompts": 4, "spread": 50.0},
}

Runs = dict[tuple[str, int], list[Update]]
"""(case, ranks) -> updates of all ranks and rounds."""


def expected(case: Case, ranks: int = 2) -> dict[str, dict[str, float]]:
    """What the formula says that a case of the small model sends; without the few bytes of metrics."""
    weights = weights_of(SMALL, case.rank)
    if case.strategy == "ddp" or case.replicas == ranks:
        return {"backward": {REDUCE: ring_bytes(REDUCE, SINGLE * weights.trained, ranks)}}
    itemsize = 2 if case.precision == "bf16-mixed" else SINGLE
    return expected_bytes(weights, ranks, itemsize, None if case.gather else SETTING.length)


def measure(rounds: int, updates: int) -> tuple[Runs, dict[str, Update]]:
    """Seconds of the cases, in turns, and the traffic of one update of each.

    Args:
        rounds: of one run per case and number of ranks.
        updates: of a run that count, after one that does not.

    Returns:
        The updates by case and ranks, and a counted update of the first of two ranks by case.
    """
    runs: Runs = {}
    for _ in range(rounds):
        for ranks, names in ((1, ALONE), (2, TWO)):
            found = run_ranks(ranks, [(CASES[name], updates + 1, False) for name in names])
            for name, by_rank in zip(names, found, strict=True):
                runs.setdefault((name, ranks), []).extend(one for rank in by_rank for one in rank[1:])
    return runs, {name: by_rank[0] for name, by_rank in count().items()}


def count() -> dict[str, list[Update]]:
    """Case -> rank -> an update whose traffic was counted; of DDP the second, the first makes its buckets."""
    jobs = [(case, 2 if case.strategy == "ddp" else 1, True) for case in CASES.values()]
    found = run_ranks(2, jobs)
    return {name: [rank[-1] for rank in ranks] for name, ranks in zip(CASES, found, strict=True)}


def seconds_rows(runs: Runs) -> list[list[str]]:
    """A row for each case and number of ranks, on one rank without a strategy."""
    rows = []
    for (name, ranks), updates in runs.items():
        what = name if ranks > 1 else name.replace("fsdp, ", "").replace("fsdp", "all weights")
        cpu, wall = (Spread.of([getattr(one, clock) for one in updates]) for clock in ("cpu", "wall"))
        rows.append([what, f"{ranks}", f"{cpu:.2f}", f"{wall:.2f}"])
    return rows


def traffic_rows(counted: dict[str, Update]) -> list[list[str]]:
    """A row for each case and kind of collective: bytes by phase, in all, by formula, and calls."""
    rows = []
    for name, update in counted.items():
        formula = expected(CASES[name])
        for kind in (GATHER, SCATTER, REDUCE, BROADCAST):
            sent = {phase: kinds.get(kind, 0) for phase, kinds in update.bytes.items()}
            if not any(sent.values()):
                continue
            rest = sum(sent.values()) - sum(sent.get(phase, 0) for phase in PHASES)
            should = sum(kinds.get(kind, 0) for kinds in formula.values())
            calls = sum(kinds.get(kind, 0) for kinds in update.calls.values())
            cells = [*(sent.get(phase, 0) for phase in PHASES), rest, sum(sent.values())]
            rows.append([name, kind, *(f"{cell:,}" for cell in cells), f"{should:,.0f}", f"{calls}"])
    return rows


def measured_report(runs: Runs, counted: dict[str, Update]) -> str:
    """The section of what was measured."""
    weights = weights_of(SMALL, None)
    count = len(runs["fsdp", 1])
    return "\n".join(
        [
            machine("lightning"),
            "",
            f"A random Qwen2.5-VL of {weights.total:,} parameters (root {weights.root:,}, "
            f"{weights.layers} language layers {weights.language:,}, {weights.blocks} vision blocks "
            f"{weights.vision:,}), float32; P = {SETTING.prompt(SMALL.vision)}, G = {SETTING.group}, "
            f"C = {SETTING.length}, one prompt per rank and update. Seconds of an update, of each rank, one "
            f"thread: median (smallest–largest) of {count} updates on one rank and {2 * count} on two, in "
            "turns.",
            "",
            table(["strategy", "ranks", "CPU s", "wall s"], seconds_rows(runs)),
            "",
            "Bytes that each of two ranks sends in one update. *Rest*: clipping, metrics, buffers of DDP. "
            "*Formula*: of `benchmarks/sent.py`, which leaves out the rest and 8 bytes for every question "
            "that ranks ask one another.",
            "",
            table(
                ["strategy", "collective", *PHASES, "rest", "in all", "formula", "calls"],
                traffic_rows(counted),
            ),
        ]
    )


def held(weights: Weights, way: str, ranks: int, node: int) -> float:
    """GB of weights, gradients, optimizer and reference on each GPU, in float32."""
    shards = {"ddp": 1, "hybrid": min(node, ranks), "fsdp": ranks}[way]
    numbers = weights.total + 3 * weights.trained + (0 if weights.adapted else weights.total)
    return SINGLE * numbers / shards / 1e9


def model_rows(rank: int | None, assumed: Assumptions) -> list[list[str]]:
    """A row for each way and number of GPUs."""
    weights, flops = weights_of(SHAPES["7b"], rank), phase_flops(SHAPES["7b"], PAPER, rank)
    rows = []
    for way in WAYS:
        first: Step | None = None
        for ranks in GPUS:
            one = step(weights, flops, PAPER, way, ranks, assumed)
            first = first or one
            parts = (one.compute, one.decode, one.hidden, one.alone, one.uncovered, one.seconds)
            rows.append(
                [
                    f"{'all weights' if rank is None else 'LoRA'}, {way}",
                    f"{ranks}",
                    *(f"{part:.2f}" for part in parts),
                    f"{first.seconds / one.seconds:.1%}",
                    f"{one.sent:.1f}",
                    f"{held(weights, way, ranks, assumed.node):.1f}",
                ]
            )
    return rows


def change_rows(assumed: Assumptions) -> list[list[str]]:
    """A row for each changed assumption: GPU seconds per prompt with all weights, and efficiency."""
    weights, flops = weights_of(SHAPES["7b"], None), phase_flops(SHAPES["7b"], PAPER, None)
    rows = []
    for name, change in CHANGES.items():
        other = replace(assumed, **change)
        cells = []
        for way in ("fsdp", "hybrid"):
            steps = [step(weights, flops, PAPER, way, ranks, other).seconds for ranks in GPUS]
            cells += [f"{one / other.prompts:.2f} ({steps[0] / one:.0%})" for one in steps]
        rows.append([name, *cells[:3], *cells[4:]])
    return rows


def limit(assumed: Assumptions, prompts: int) -> str:
    """The first power of two GPUs at which sharding over all of them outlasts the compute beside it."""
    weights, flops = weights_of(SHAPES["7b"], None), phase_flops(SHAPES["7b"], PAPER, None)
    other = replace(assumed, prompts=prompts)
    for ranks in (2**power for power in range(3, 21)):
        if step(weights, flops, PAPER, "fsdp", ranks, other).uncovered:
            return f"from {ranks:,} GPUs on"
    return "on no number of GPUs"


def model_report(assumed: Assumptions) -> str:
    """The section of what is on paper."""
    values = ", ".join(f"`--{field.name} {getattr(assumed, field.name):g}`" for field in fields(assumed))
    parts = ["compute", "decode", "hidden", "alone", "uncovered", "update"]
    weights = weights_of(SHAPES["7b"], None)
    language, root = (2 * number / 1e9 for number in (weights.language, weights.root))
    return "\n".join(
        [
            f"Qwen2.5-VL-7B, P = {PAPER.prompt(SHAPES['7b'].vision):,}, G = {PAPER.group}, "
            f"C = {PAPER.length}; LoRA of rank {LORA_RANK}. Assumed: {values}. In bf16 the language layers "
            f"are {language:.1f} GB, the root {root:.1f} GB.",
            "",
            "Seconds; *hidden*, *alone* and *uncovered* are of communication; efficiency against 8 GPUs; GB "
            "that a GPU sends, and GB that it holds of weights, gradients, optimizer and reference.",
            "",
            table(
                ["7B", "GPUs", *parts, "efficiency", "GB sent", "GB held"],
                [*model_rows(None, assumed), *model_rows(LORA_RANK, assumed)],
            ),
            "",
            f"Sharded over all ranks, communication outlasts the compute beside it {limit(assumed, 1)}, "
            f"with 4 prompts per GPU {limit(assumed, 4)}.",
            "",
            "All weights, seconds of a GPU per prompt, and efficiency against 8 GPUs:",
            "",
            table(
                ["changed", *(f"fsdp {n}" for n in GPUS), *(f"hybrid {n}" for n in GPUS[1:])],
                change_rows(assumed),
            ),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, compute, print, and write the sections where a file is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="a scaling.md, whose sections are replaced")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case, in turns")
    parser.add_argument("--updates", type=int, default=3, help="of a run that count")
    parser.add_argument("--paper", action="store_true", help="measure nothing")
    for field in fields(Assumptions):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    chosen = parser.parse_args(arguments)
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        assumed = Assumptions(**{field.name: getattr(chosen, field.name) for field in fields(Assumptions)})
        if not chosen.paper:
            publish("measured", measured_report(*measure(chosen.rounds, chosen.updates)), chosen.out)
        publish("model", model_report(assumed), chosen.out)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
