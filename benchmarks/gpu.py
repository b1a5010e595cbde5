"""GRPO steps of Qwen2.5-VL's shapes on one GPU, with a shared and with a repeated prompt.

Random weights in bf16, the paper's setting (a prompt of 3,734 tokens, 8 completions of 200), all weights
trained and adapters trained. Usage: ``python benchmarks/gpu.py [--out benchmarks/RESULTS.md]``, or with
``--toy`` on any machine, at sizes that only show that it works.
"""

from __future__ import annotations

import argparse
import gc
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from flops import training_flops
from gpu_steps import PHASES, STEPS, TRAINING, Clock, measure
from measuring import Spread, machine
from shapes import PAPER, SHAPES, TOY, Setting, Shape
from vcr1.errors import UserError
from writing import publish, table

PEAKS = {"H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "B200": 2250, "A100": 312, "L40S": 362}
"""Dense bf16 TFLOP/s by what a chip's name contains, from the makers' data sheets; the first that fits."""
RANK = 16
TRAINING_TARGET, STEP_TARGET, UTILISATION_TARGET = 5.0, 4.0, 0.4
"""On an H100-class GPU."""


@dataclass(frozen=True, slots=True)
class Case:
    """One model, trained in one way.

    Attributes:
        shape: the model.
        rank: of its adapters; None where all weights are trained.
        clocks: form -> its steps; none where it does not fit.
    """

    shape: Shape
    rank: int | None
    clocks: dict[str, list[Clock]]

    @property
    def name(self) -> str:
        """What a table calls it."""
        return f"{self.shape.name}, {'all weights' if self.rank is None else f'LoRA of rank {self.rank}'}"

    def seconds(self, form: str, phases: tuple[str, ...] = PHASES) -> Spread:
        """Seconds of some phases of a form that fits."""
        return Spread.of([clock.total(phases) for clock in self.clocks[form]])

    def utilisation(self, form: str, setting: Setting, peak: float | None) -> float | None:
        """Share of the chip's peak in the training part; None where the peak is unknown."""
        if peak is None:
            return None
        needed = training_flops(self.shape, setting, shared=form != "repeated", rank=self.rank)
        return needed / self.seconds(form, TRAINING).median / (peak * 1e12)


def chip_peak(name: str) -> float | None:
    """Dense bf16 TFLOP/s of a chip by its name; None where it is unknown."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def phase_rows(case: Case, setting: Setting, peak: float | None) -> list[list[str]]:
    """A row for each form: seconds by phase and in all, tokens/s, utilisation, memory."""
    rows = []
    for form, clocks in case.clocks.items():
        if not clocks:
            rows.append([case.name, form, *["out of memory"] * (len(PHASES) + 4)])
            continue
        share = case.utilisation(form, setting, peak)
        memory = max(clock.peak for clock in clocks) / 2**30
        sampled, step = setting.group * setting.length, case.seconds(form).median
        rows.append(
            [
                case.name,
                form,
                *(f"{case.seconds(form, (phase,)).median:.3f}" for phase in PHASES),
                f"{case.seconds(form):.3f}",
                f"{sampled / step:.0f}",
                "not known" if share is None else f"{share:.0%}",
                f"{memory:.1f}" if memory else "not measured",
            ]
        )
    return rows


def ratio_row(case: Case, setting: Setting, peak: float | None) -> list[str]:
    """How many times the repeated form takes, and the shared form's utilisation."""
    share = case.utilisation("shared", setting, peak) if case.clocks["shared"] else None
    ratios = ["not known"] * 2
    if all(case.clocks.values()):
        ratios = [
            f"{case.seconds('repeated', phases).median / case.seconds('shared', phases).median:.2f}"
            for phases in (TRAINING, PHASES)
        ]
    return [case.name, *ratios, "not known" if share is None else f"{share:.0%}"]


def report(cases: list[Case], setting: Setting, chip: str, peak: float | None) -> str:
    """The section of the results."""
    prompt = setting.prompt(cases[0].shape.vision)
    steps = max(len(clocks) for case in cases for clocks in case.clocks.values())
    known = "peak not known" if peak is None else f"{peak:.0f} TFLOP/s dense in bf16"
    targets = [
        "target on an H100-class GPU",
        *(f"≥ {target:.0f}" for target in (TRAINING_TARGET, STEP_TARGET)),
        f"≥ {UTILISATION_TARGET:.0%}",
    ]
    costs = ["step (smallest–largest)", "completion tokens/s", "utilisation of training", "peak GiB"]
    return "\n".join(
        [
            f"{chip} ({known}); {machine('peft')}",
            "",
            f"P = {prompt:,} prompt tokens, G = {setting.group} completions of C = {setting.length}; random "
            f"weights in bf16, gradient checkpointing. Wall seconds, median of {steps} steps of each form, "
            "in turns, after one of each that is not counted. Utilisation: operations that the training part "
            "needs, by the formulas of `benchmarks/flops.py`, over its seconds and the peak; what "
            "checkpointing computes again is not counted as needed.",
            "",
            table(
                ["model", "form", *PHASES, *costs],
                [row for case in cases for row in phase_rows(case, setting, peak)],
            ),
            "",
            "Repeated over shared; the training part is vision, reference and policy:",
            "",
            table(
                ["model", "training part", "whole step", "utilisation, shared"],
                [*(ratio_row(case, setting, peak) for case in cases), targets],
            ),
        ]
    )


def run_case(name: str, rank: int | None, setting: Setting, device: torch.device, repeats: int) -> Case:
    """Measure one model; a case whose weights alone do not fit has no clocks."""
    try:
        clocks = measure(SHAPES[name], setting, rank, device, repeats)
    except torch.OutOfMemoryError:
        clocks = {form: [] for form in STEPS}
    gc.collect()  # a model and its modules refer to one another
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Case(SHAPES[name], rank, clocks)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write the section where a file is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="a RESULTS.md, whose section `gpu` is replaced")
    parser.add_argument("--repeats", type=int, default=3, help="steps of each form that count")
    parser.add_argument("--models", nargs="+", choices=["3b", "7b"], default=["3b", "7b"], help="shapes")
    parser.add_argument("--tuning", nargs="+", choices=["full", "lora"], default=["full", "lora"])
    parser.add_argument("--peak", type=float, help="dense bf16 TFLOP/s of a chip of unknown name")
    parser.add_argument("--toy", action="store_true", help="the smallest sizes, on the CPU if need be")
    chosen = parser.parse_args(arguments)
    if not torch.cuda.is_available() and not chosen.toy:
        sys.exit("no GPU that torch can use; --toy shows on the CPU that this works")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak = chosen.peak or chip_peak(chip)
    setting, names = (TOY, ["toy"]) if chosen.toy else (PAPER, chosen.models)
    cases = []
    for name in names:
        for tuning in chosen.tuning:
            rank = None if tuning == "full" else RANK
            cases.append(run_case(name, rank, setting, device, chosen.repeats))
            print(*phase_rows(cases[-1], setting, peak), sep="\n", file=sys.stderr, flush=True)
    try:
        publish("gpu", report(cases, setting, chip, peak), chosen.out)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
