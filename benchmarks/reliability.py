"""How much a run stands: random kills, mutated videos, hostile completions, bad configs.

``python benchmarks/reliability.py kills 52``, and likewise ``videos 1000``, ``completions 1000000``,
``configs 1000``, ``all``. Each writes its row into ``benchmarks/RELIABILITY.md`` and ends with status 1 where
something was found. ``--seed`` draws others.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import random
import string
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from vcr1.checkpoints import newest_checkpoint
from vcr1.checkpoints.files import read_facts
from vcr1.config.building import build
from vcr1.config.choices import conf_dir, expand_choices
from vcr1.config.entry import load_config
from vcr1.config.overrides import check_overrides
from vcr1.config.preflight import preflight
from vcr1.config.schema import check_config, known_keys
from vcr1.config.sources import build_task, read_annotations
from vcr1.config.types import fits
from vcr1.errors import UserError, VideoError
from vcr1.module import PolicyModule
from vcr1.policy import load_policy
from vcr1.video import ClipSpec, DecodeLimits, FrameBudget, GuardedReader, PatchGrid, ShapeEvent, write_clip
from writing import table, write_section

OUT = Path(__file__).with_name("RELIABILITY.md")
HEADER = ("", "tried", "as it should be", "found")
Outcome = tuple[Counter[str], list[str]]
"""What has come of the trials, and what should not have been."""

# ------------------------------------------------------------------------------------------------- kills

WORLD = ("data.clips.train=12", "data.clips.val=6", "data.loader.num_workers=0", "data.loader.batch_size=2")
UPDATES = 10
RUN = (
    "experiment=demo",
    *WORLD,
    "rollout.max_new_tokens=16",
    "trainer.max_epochs=-1",
    f"trainer.max_steps={UPDATES}",
    "trainer.val_check_interval=null",
    "trainer.limit_val_batches=0",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.export=null",
    "callbacks.checkpoint.every=1",
    "logger=csv",
    "report=none",
    "report.before=false",
    "report.wrong_video=false",
    "plan.show=false",
    "ckpt_path=auto",
)
KINDS = {
    "GRPO": ("algorithm=grpo_tiny", "algorithm.num_generations=2", "task=grounding+tracking"),
    "SFT": ("algorithm=sft", "task=grounding"),
    "CISPO, rollouts trained on twice": (
        *("algorithm=cispo", "algorithm.num_generations=2", "algorithm.updates_per_rollout=2"),
        "trainer.accumulate_grad_batches=2",
    ),
    "adapters": ("adapter=lora", "model.lora.rank=4", "algorithm.num_generations=2"),
}


def run_in(folder: str, overrides: list[str]) -> None:
    """One run, in a process that may be killed."""
    from vcr1.train import train

    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    train(load_config(overrides, folder))


def kills(count: int, chance: random.Random, folder: Path) -> Outcome:
    """Kill runs of four kinds at random moments, and go on: they end as one that was never killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vcr1.train"])

    def start(place: Path, overrides: list[str]) -> BaseProcess:
        process = context.Process(target=run_in, args=(str(place), overrides))
        process.start()
        return process

    outcome, found = Counter[str](), list[str]()
    for number, (kind, special) in enumerate(KINDS.items()):
        overrides = [f"data.root={folder / 'data'}", *RUN, *special]
        whole, parts = folder / f"whole-{number}", folder / f"parts-{number}"
        process = start(whole, overrides)
        began = time.monotonic()
        process.join()
        length = time.monotonic() - began
        assert process.exitcode == 0, kind
        share = count // len(KINDS) + (number < count % len(KINDS))
        done: list[Path] = []
        while outcome[kind] < share:
            if _step(parts) >= UPDATES:  # it came to its end before it could be killed again
                done.append(parts.rename(folder / f"done-{number}-{len(done)}"))
            process = start(parts, overrides)
            process.join(chance.uniform(0.2, 1.0) * length)
            process.kill()
            process.join()
            outcome[kind] += process.exitcode != 0
        process = start(parts, overrides)
        process.join()
        for place in (*done, parts):
            if (difference := _difference(whole, place)) is not None:
                found.append(f"{kind}: {difference}")
    return outcome, found


def _step(place: Path) -> int:
    path = newest_checkpoint(place / "checkpoints")
    return 0 if path is None else int(read_facts(path)["global_step"])


def _difference(whole: Path, parts: Path) -> str | None:
    """What differs between the ends of two runs: weights, optimizer, counters, the log."""
    contents = []
    for place in (whole, parts):
        content = torch.load(place / "checkpoints" / "last.ckpt", weights_only=True)
        content["vcr1"]["config"].pop("run_dir")
        contents.append(content)
    differs = _first_difference(*contents)
    if differs is not None:
        return f"checkpoint: {differs}"
    logs = [_log(place) for place in (whole, parts)]
    return None if logs[0] == logs[1] else "metrics.csv"


def _first_difference(one: Any, other: Any, place: str = "") -> str | None:
    if isinstance(one, torch.Tensor):
        return None if isinstance(other, torch.Tensor) and one.equal(other) else place
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        pairs = [(one[key], other[key], f"{place}.{key}") for key in one]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = [(a, b, f"{place}.{n}") for n, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        return None if one == other else place
    return next((found for pair in pairs if (found := _first_difference(*pair)) is not None), None)


def _log(place: Path) -> list[dict[str, str]]:
    with (place / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


# ------------------------------------------------------------------------------------------------ videos


def videos(count: int, chance: random.Random, folder: Path) -> Outcome:
    """Read mutated files: a clip whose times make sense, or one sentence; nothing else, and no end."""
    event = ShapeEvent("red", "square", 1.0, 2.5, x=40, y=60, vx=9, vy=3, radius=20)
    originals = []
    for number, seconds in enumerate((2.0, 4.0, 6.0)):
        path = folder / f"{number}.mp4"
        write_clip(ClipSpec(seconds, (30, 40, 50), number, (event,)), path)
        originals.append(path.read_bytes())
    budget, grid = FrameBudget(min_pixels=784, total_pixels=784 * 8), PatchGrid()
    reader = GuardedReader("pyav", DecodeLimits(10.0, 1.0))
    outcome, found = Counter[str](), list[str]()
    for number in range(count):
        content, how = mutated(chance.choice(originals), chance)
        path = folder / f"mutated-{number}.mp4"
        path.write_bytes(content)
        try:
            clip = reader.clip(path, budget, grid)
            times = list(clip.timestamps)
            sensible = times == sorted(times) and len(clip.frames) > 0 and times[0] >= 0 and clip.duration > 0
            outcome["a clip" if sensible else "a clip of impossible times"] += 1
            if not sensible:
                found.append(f"{number} ({how}): times {times[:4]}, duration {clip.duration}")
        except VideoError as error:
            outcome["a sentence"] += 1
            if "\n" in str(error) or str(path) not in str(error):
                found.append(f"{number} ({how}): {error}")
        except BaseException as error:
            found.append(f"{number} ({how}): {type(error).__name__}: {error}")
        path.unlink()
    reader.close()
    return outcome, found


def mutated(content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """A file with something wrong in it, and what that is."""
    data, size = bytearray(content), len(content)
    how = chance.choice(("cut", "flipped", "zeroed", "swapped", "large number", "inserted", "header"))
    place = chance.randrange(size)
    if how == "cut":
        del data[place:]
    elif how == "flipped":
        for _ in range(chance.choice((1, 4, 64))):
            data[chance.randrange(size)] ^= 1 << chance.randrange(8)
    elif how == "zeroed":
        data[place : place + 256] = bytes(len(data[place : place + 256]))
    elif how == "swapped":
        other = chance.randrange(size)
        data[place : place + 64], data[other : other + 64] = (
            data[other : other + 64],
            data[place : place + 64],
        )
    elif how == "inserted":
        data[place:place] = chance.randbytes(chance.randrange(1, 512))
    else:  # where the boxes are that say how many frames there are, and where
        start = content.find(b"moov") if how == "large number" else 0
        place = chance.randrange(max(start, 0), size - 8) if how == "large number" else chance.randrange(64)
        data[place : place + 4] = chance.choice(
            (b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x00" * 4, b"\x00\xff\xff\xff")
        )
    return bytes(data), how


# ------------------------------------------------------------------------------------------- completions

PIECES = (
    *(
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<glue>",
        "</glue>",
        "```json",
        "```",
        "[",
        "]",
        "{",
        "}",
    ),
    *(
        "(",
        ")",
        ",",
        ":",
        ";",
        "-",
        "–",
        "to",
        "and",
        "from",
        "seconds",
        "s",
        "min",
        "\n",
        "\t",
        " ",
        '"',
        "'",
    ),
    *("A", "B.", "(C)", "option D", "none", "good", "bad", "a dog", "the red square", "bbox_2d", "time"),
    *(
        "0",
        "1.5",
        "12:34",
        "1:02:03",
        "-3",
        "1e9",
        "1e-400",
        "NaN",
        "inf",
        "٣",
        "½",
        "0x1F",
        "1,5",
        "999" * 20,
    ),
    *(
        "\u202e",
        "\x00",
        "\ud7ff",
        "\U0001f600",
        "é",
        "中文",
        "\u200b",
        "%s",
        "{{7*7}}",
        "<script>",
        "../" * 3,
    ),
)


def completions(count: int, chance: random.Random, folder: Path) -> Outcome:
    """Judge made-up answers of every task: each is read or refused, scores lie in 0..1, nothing raises."""
    names = ("grounding", "tracking", "grounded_qa", "qa", "captioning", "quality")
    cfg = load_config(["experiment=demo", f"task={'+'.join(names)}", *WORLD, f"data.root={folder}"], folder)
    annotations = read_annotations(cfg)
    tasks = {name: (build_task(cfg, name), annotations[name]["train"].samples[:8]) for name in names}
    outcome, found = Counter[str](), list[str]()
    block = 1000
    for start in range(0, count, block):
        name = names[start // block % len(names)]
        task, samples = tasks[name]
        texts = [_text(task, samples, chance) for _ in range(min(block, count - start))]
        asked = [chance.choice(samples) for _ in texts]
        try:
            judged = task.judge(texts, asked).result()
        except Exception:
            found.append(f"{name}: {traceback.format_exc().splitlines()[-1]}")
            continue
        for text, one in zip(texts, judged, strict=True):
            values = [*one.rewards.values(), *one.metrics.values()]
            good = all(0 <= value <= 1 for value in one.rewards.values()) and all(v == v for v in values)
            outcome["read" if one.failure is None else "refused with a reason"] += good
            if not good:
                found.append(f"{name}: {text[:80]!r}: {one.rewards} {one.metrics}")
    return outcome, found


def _text(task: Any, samples: Any, chance: random.Random) -> str:
    """Pieces in a row, often in the form that the task asks for, or a right answer with a fault."""
    body = "".join(chance.choice(PIECES) for _ in range(chance.randrange(0, 24)))
    form = chance.randrange(4)
    if form == 0:
        return f"<think>{body[:20]}</think><answer>{body}</answer>"
    if form == 1:
        right = task.answer(chance.choice(samples))
        place = chance.randrange(len(right) + 1)
        return right[:place] + chance.choice(PIECES) + right[place + chance.randrange(3) :]
    return body if form == 2 else f"<answer>{body}</answer>" * chance.choice((1, 1, 2, 30))


# ----------------------------------------------------------------------------------------------- configs


def configs(count: int, chance: random.Random, folder: Path) -> Outcome:
    """Draw bad settings from the schema: each is refused in sentences before a run, none by a stack."""
    experiments = (
        ("experiment=demo",),
        ("experiment=demo", "adapter=lora"),
        ("experiment=demo", "algorithm=sft"),
    )
    policy = load_policy("builtin:tiny")
    outcome, found = Counter[str](), list[str]()
    base = [f"data.root={folder}", *WORLD]
    composed = {chosen: _plain(_compose([*chosen, *base], folder)) for chosen in experiments}
    for _ in range(count):
        chosen = chance.choice(experiments)
        override, how = _bad(composed[chosen], chance)
        try:
            line = check_overrides("train", expand_choices([*chosen, *base, override]))
            cfg = _compose(line, folder)
            check_config(cfg)
            preflight(cfg)
            module: PolicyModule = build(cfg.algorithm)(policy=policy)
            build(cfg.trainer)(callbacks=[], logger=[])
            del module
            found.append(f"{how}: {override} is taken")
        except UserError as error:
            outcome[how] += 1
            if "Traceback" in str(error) or not str(error).strip():
                found.append(f"{how}: {override}: {error}")
        except BaseException as error:
            line_ = str(error).splitlines()[0] if str(error) else ""
            found.append(f"{how}: {override}: {type(error).__name__}: {line_}")
    return outcome, found


def _compose(overrides: list[str], folder: Path) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=[f"run_dir={folder / 'run'}", *expand_choices(overrides)])


def _plain(cfg: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    return dict(plain)


def _bad(config: dict[str, Any], chance: random.Random) -> tuple[str, str]:
    """An override that cannot be right, and why."""
    while True:
        place, key, hint = chance.choice(list(_settings(config, "")))
        name = f"{place}.{key}" if place else key
        how = chance.choice(("a typo in a key", "a value of another type", "no number", "an unknown target"))
        if how == "a typo in a key":
            at = chance.randrange(len(key))
            wrong = key[:at] + chance.choice(string.ascii_lowercase) + key[at + chance.randrange(2) :]
            if wrong != key and not _known(config, place, wrong):
                return f"{chance.choice(('', '+'))}{place}.{wrong}=1".replace("+.", "+").lstrip("."), how
        elif how == "an unknown target":
            target = chance.choice(("nowhere.X", "vcr1.module.Nothing", "os.nothing"))
            return f"+callbacks.mine={{_target_: {target}}}", how
        else:
            value = (
                "nan"
                if how == "no number"
                else chance.choice(("banana", "[1,2]", "{a: 1}", "-7", "1.5", "true"))
            )
            plain: Any = OmegaConf.create(f"x: {'.nan' if value == 'nan' else value}").x
            plain = OmegaConf.to_container(plain) if OmegaConf.is_config(plain) else plain
            if hint is not Any and not fits(plain, hint):
                return f"{name}={value}", how


def _settings(node: dict[str, Any], place: str) -> Iterator[tuple[str, str, Any]]:
    """Every setting with its place and its annotation."""
    known = known_keys(node, place)
    for key, value in node.items():
        if not str(key).startswith("_") and isinstance(known, dict) and key in known:
            yield place, str(key), known[key] if not isinstance(value, dict) else Any
        if isinstance(value, dict) and not str(key).startswith("_"):
            yield from _settings(value, f"{place}.{key}" if place else str(key))


def _known(config: dict[str, Any], place: str, key: str) -> bool:
    node: Any = config
    for part in filter(None, place.split(".")):
        node = node[part]
    known = known_keys(node, place)
    return known is None or isinstance(known, str) or key in known or key in node


# ------------------------------------------------------------------------------------------------- table

PARTS: dict[str, tuple[Callable[[int, random.Random, Path], Outcome], int]] = {
    "kills": (kills, 52),
    "videos": (videos, 1000),
    "completions": (completions, 1_000_000),
    "configs": (configs, 1000),
}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=(*PARTS, "all"))
    parser.add_argument("count", nargs="?", type=int, help="how many; the number of the table by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    bad = False
    for name in PARTS if given.part == "all" else (given.part,):
        work, usual = PARTS[name]
        with tempfile.TemporaryDirectory(prefix=f"vcr1-{name}-") as folder:
            outcome, found = work(given.count or usual, random.Random(given.seed), Path(folder))
        good = ", ".join(f"{count:,} {kind}" for kind, count in sorted(outcome.items()))
        row = [name, f"{given.count or usual:,}", good, str(len(found))]
        write_section(given.out, name, table(HEADER, [row]) + "".join(f"\n- {one}" for one in found[:20]))
        print(table(HEADER, [row]), *found[:40], sep="\n")
        bad |= bool(found)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
