"""How fast videos are read, and how long a training step waits for them.

A clip of 720p is written, then read and encoded at the paper's frame budget: by one worker, then by the
loader that a run has, whose steps are slept through, as a GPU's steps are to the CPU. Then the demo's own
numbers. Usage: ``python benchmarks/data.py [--out benchmarks/RESULTS.md]``.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from measuring import Spread, machine
from vcr1.data import LoaderSettings, TaskDataModule
from vcr1.errors import UserError
from vcr1.policy import PromptEncoder, load_encoder
from vcr1.readers import Annotations
from vcr1.records import Interval, Sample
from vcr1.tasks import GroundingTask
from vcr1.video import FrameBudget, read_clip, write_mp4
from writing import publish, table

HEIGHT, WIDTH, RATE = 720, 1280, 30
SPEED = 4
"""Pixels that the picture moves in a frame."""
TARGET = 0.03
WORKERS = 4
STEP_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
DECODERS = ("pyav", "decord")


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds that one worker needs for one prompt about the clip.

    Attributes:
        frames: that the model sees.
        size: their height and width in pixels.
        read: to find their times, decode and resize them.
        encode: to make the model's inputs of them.
    """

    frames: int
    size: tuple[int, int]
    read: Spread
    encode: Spread

    @property
    def total(self) -> float:
        """Seconds for one prompt."""
        return self.read.median + self.encode.median


def moving_picture(frames: int) -> NDArray[np.uint8]:
    """``[T, H, W, 3]`` of a camera that moves over a picture of soft noise; a view, one picture in memory."""
    rng = np.random.default_rng(0)
    wide = WIDTH + SPEED * frames
    coarse = rng.integers(0, 256, (HEIGHT // 8, -(-wide // 8), 3), dtype=np.uint8)
    picture = coarse.repeat(8, 0).repeat(8, 1)[:, :wide] // 8 * 7
    picture += rng.integers(0, 24, picture.shape, dtype=np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(picture, WIDTH, axis=1)[:, ::SPEED]
    return windows.transpose(1, 0, 3, 2)[:frames]


def worker_costs(video: Path, decoder: str, encoder: PromptEncoder, repeats: int) -> Costs:
    """What one worker needs, with the one thread that workers have.

    Of decord without the proof that it finds the right frames of the file, which a process makes once.
    """
    sample, task, budget = question(video), GroundingTask(), FrameBudget()
    read, encode = [], []
    for number in range(repeats + 1):
        begin = time.process_time()
        clip = read_clip(sample.source, budget, encoder.grid, decoder=decoder)
        middle = time.process_time()
        encoder(task.prompt(sample), clip)
        if number:  # the first loads libraries, and tries decord on the file
            read.append(middle - begin)
            encode.append(time.process_time() - middle)
    height, width = clip.frames.shape[-2:]
    return Costs(len(clip.frames), (height, width), Spread.of(read), Spread.of(encode))


def question(video: Path, number: int = 0) -> Sample:
    """A question about the clip."""
    return Sample(f"{number}", str(video), "the camera moves", Interval(1.0, 2.0))


def waiting_share(step: float, seconds: float, workers: int) -> float:
    """Share of the time that a run waits, once its queue has run dry.

    Args:
        step: seconds of a training step without its data.
        seconds: that a worker needs for a step's data.
        workers: that are at it, each on a core of its own.
    """
    return 1 - step / max(step, seconds / workers)


def measured_share(video: Path, encoder: PromptEncoder, step: float, steps: int) -> tuple[float, float]:
    """Share of the time, and seconds a step, that a loop waits on the package's loader with its four workers.

    Args:
        video: what all prompts are about.
        encoder: of the model.
        step: seconds that a step sleeps.
        steps: that count; so many as the workers prepare ahead go before them.
    """
    settings = LoaderSettings(num_workers=WORKERS, prefetch=1)
    ahead = WORKERS * settings.prefetch
    annotations = Annotations("benchmark", samples=[question(video, n) for n in range(steps + 2 * ahead)])
    data = TaskDataModule(
        GroundingTask(), {"train": annotations}, encoder, encoder.grid, FrameBudget(), settings
    )
    batches, waited = iter(data.train_dataloader()), 0.0
    for number in range(steps + ahead):
        begin = time.perf_counter()
        batch = next(batches)
        waited += (time.perf_counter() - begin) if number >= ahead else 0.0
        assert batch.samples, batch.lost
        time.sleep(step)
    return waited / (waited + steps * step), waited / steps


def demo_shares(updates: int) -> tuple[list[float], list[float]]:
    """Seconds waited and seconds in all of each update of a short run of the demo.

    Raises:
        UserError: the run failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        overrides = ["experiment=demo", "logger=csv", "report=none", f"trainer.max_steps={updates}"]
        overrides += [f"data.root={folder}/data", f"hydra.run.dir={run}"]
        command = [sys.executable, "-m", "vcr1.train", *overrides]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise UserError(f"the demo failed; the end of what it said:\n{ended.stderr[-2000:]}")
        return read_shares(run / "metrics.csv")


def read_shares(metrics: Path) -> tuple[list[float], list[float]]:
    """Seconds waited and seconds in all, update by update, of a run's ``metrics.csv``."""
    waited, total = [], []
    with metrics.open() as file:
        for row in csv.DictReader(file):
            seconds = {name: float(value) for name, value in row.items() if "/seconds/" in name and value}
            if seconds:
                waited.append(seconds["train/seconds/data"])
                total.append(sum(seconds.values()))
    return waited, total


def cost_rows(costs: dict[str, Costs], length: int) -> list[list[str]]:
    """A row for each decoder."""
    return [
        [
            decoder,
            f"{cost.frames} of {cost.size[1]}x{cost.size[0]}",
            f"{cost.read:.2f}",
            f"{cost.encode:.2f}",
            f"{cost.frames / cost.total:.1f}",
            f"{length * RATE / cost.read.median:.0f}",
            f"{cost.total / WORKERS * (1 - TARGET):.2f}",
        ]
        for decoder, cost in costs.items()
    ]


def report(length: int, costs: dict[str, Costs], slept: Sequence[tuple[float, float, float]]) -> str:
    """The part about the clip."""
    steps = [f"{step:g} s" for step in STEP_SECONDS]
    shares = [
        [decoder, *(f"{waiting_share(step, cost.total, WORKERS):.1%}" for step in STEP_SECONDS)]
        for decoder, cost in costs.items()
    ]
    reading = ["read, CPU s", "encode, CPU s", "model frames/s", "source frames/s", "steps from, s"]
    return "\n".join(
        [
            machine("decord", "av"),
            "",
            f"One worker, one thread: a clip of {length} s in {WIDTH}x{HEIGHT} at {RATE} frames/s, H.264 of "
            "libx264 `ultrafast`, sampled at the paper's budget (2 frames/s, 3,584 tokens), resized, and put "
            "through the processor. Frames/s that reach the model, and that are decoded on the way; the last "
            f"column is the shortest step that {WORKERS} workers on as many cores keep waiting for under "
            f"{TARGET:.0%} (the target).",
            "",
            table(["decoder", "frames", *reading], cost_rows(costs, length)),
            "",
            f"Share of the time that a run waits with {WORKERS} workers on as many cores, one prompt a step, "
            "by the seconds of the step: `1 - step / max(step, worker's seconds / workers)`.",
            "",
            table(["decoder", *steps], shares),
            "",
            f"Measured with {WORKERS} workers on this machine's cores, decoder `pyav`, steps slept:",
            "",
            table(
                ["step", "waited of the time", "waited a step, s"],
                [[f"{step:g} s", f"{share:.1%}", f"{wait:.3f}"] for step, share, wait in slept],
            ),
        ]
    )


def demo_report(waited: Sequence[float], total: Sequence[float]) -> str:
    """The part about the demo: its first update apart, in which the workers start."""
    rest = sum(waited[1:]) / sum(total[1:])
    single = Spread.of([wait / whole for wait, whole in zip(waited[1:], total[1:], strict=True)])
    return (
        f"The demo, {len(waited)} updates on this machine: **{rest:.1%}** of the time is spent waiting for "
        f"data (an update: {single:.1%}), {sum(waited[1:]) / (len(waited) - 1) * 1000:.0f} ms of "
        f"{sum(total[1:]) / (len(total) - 1):.2f} s; the first update, in which the worker starts, waits "
        f"{waited[0]:.2f} s. Target: under {TARGET:.0%}."
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write the section where a file is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="a RESULTS.md, whose section `data` is replaced")
    parser.add_argument("--seconds", type=int, default=30, help="length of the clip")
    parser.add_argument("--repeats", type=int, default=5, help="readings that count")
    parser.add_argument("--sleep", type=float, nargs="*", default=[2.0, 4.0], help="steps to measure, in s")
    parser.add_argument("--steps", type=int, default=12, help="how many of each")
    parser.add_argument("--updates", type=int, default=40, help="of the demo; 0 leaves it out")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    encoder = load_encoder("builtin:tiny")  # patches as in all of the family; the frames keep their size
    try:
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder) / "720p.mp4"
            write_mp4(video, moving_picture(chosen.seconds * RATE), RATE)
            costs = {name: worker_costs(video, name, encoder, chosen.repeats) for name in DECODERS}
            slept = [(step, *measured_share(video, encoder, step, chosen.steps)) for step in chosen.sleep]
        text = report(chosen.seconds, costs, slept)
        if chosen.updates:
            text = "\n\n".join([text, demo_report(*demo_shares(chosen.updates))])
        publish("data", text, chosen.out)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
