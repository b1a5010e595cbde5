"""A benchmark: one task, one split of one data set, and the frames that a model may see of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vcr1.config.building import build
from vcr1.config.preflight import check_frames
from vcr1.config.sources import video_reader
from vcr1.errors import UserError
from vcr1.inference.limits import MISSING_VIDEO
from vcr1.readers import NO_QUESTIONS, VIDEO_REASONS, Annotations, Purpose, reading_for
from vcr1.records import LostSample, Sample
from vcr1.tasks import Task
from vcr1.video import FrameBudget, reading_with

log = logging.getLogger(__name__)

FILES = ("annotations", "videos")
"""Settings of a benchmark that stand for those of its source, where they are given."""
FIELDS = ("task", "split", "sources", *FILES, "video", "options", "loader", "clips", "box_decimals")
"""What a benchmark's config may hold; the last three come along with data sets and are not read."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark: its task, its samples and its frame budget.

    Attributes:
        name: of the benchmark, in results.
        kind: of the task in the config, e.g. ``qa``.
        split: of the data set.
        task: prompts, parses and scores; the same object as in training.
        annotations: the samples, and the account of the rows that are none.
        budget: frames and pixels that a clip may cost.
        lost: rows of the split that are questions but no samples, as they have no usable video or truth.
    """

    name: str
    kind: str
    split: str
    task: Task
    annotations: Annotations
    budget: FrameBudget
    lost: tuple[LostSample, ...] = ()

    @property
    def samples(self) -> list[Sample]:
        """Return what is asked, in the order of the annotations."""
        return self.annotations.samples


def read_benchmarks(cfg: DictConfig, limit: int | None = None, unseen: bool = False) -> list[Benchmark]:
    """Return the benchmarks that ``benchmark=`` selected.

    Args:
        cfg: the evaluation's config.
        limit: take the first so many samples of each.
        unseen: the videos are not needed.

    Raises:
        UserError: none is selected; or files, tasks or settings cannot be used: names all of them.
    """
    selected = cfg.get("benchmarks") or {}
    if not selected:
        raise UserError("no benchmark is selected: choose some, such as benchmark=charades_sta+mvbench")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise UserError(f"evaluation.limit={limit} is no whole number of at least 1")
    benchmarks, problems = [], []
    for name in map(str, selected):
        try:
            benchmarks.append(_read(cfg, name, limit, unseen))
        except UserError as error:
            problems.append(f"benchmark {name}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    return benchmarks


def _read(cfg: DictConfig, name: str, limit: int | None, unseen: bool) -> Benchmark:
    node = cfg.benchmarks[name]
    unknown = [str(key) for key in node if key not in FIELDS]
    if unknown:
        raise UserError(f"benchmarks.{name} has {', '.join(unknown)}; it knows {', '.join(FIELDS[:-3])}")
    kind, split = _kind(cfg, name), str(node.split)
    source = OmegaConf.select(node, f"sources.{kind}.{split}")
    if source is None:
        raise UserError(f"benchmarks.{name}.sources.{kind}.{split} is not configured")
    given = {field: node[field] for field in FILES if node.get(field) is not None}
    source = OmegaConf.merge(source, given)
    task = build_task_for(cfg, kind, node.get("options"))
    purpose = Purpose.SCORING if unseen else Purpose.EVALUATION
    with reading_for(purpose), reading_with(video_reader(cfg)):
        annotations: Annotations = build(source)
    if len({sample.id for sample in annotations.samples}) < len(annotations.samples):
        (id_, count), *_ = Counter(sample.id for sample in annotations.samples).most_common(1)
        raise UserError(f"{annotations.source}: {count} samples have the id {id_!r}; ids must differ")
    lost = lost_rows(annotations)
    annotations.samples = annotations.samples[:limit]
    check_frames(task, annotations.samples, f"benchmarks.{name}")
    log.info("%s - %s", name, annotations)
    own = node.sources[kind].get("video") or node.get("video") or cfg.data.video
    return Benchmark(name, kind, split, task, annotations, build(own), lost if limit is None else ())


def _kind(cfg: DictConfig, name: str) -> str:
    """Return the task of a benchmark: its own, or where it names none, the one that the command chooses.

    Raises:
        UserError: it names none, and the command chooses several.
    """
    if (kind := cfg.benchmarks[name].get("task")) is not None:
        return str(kind)
    chosen = [str(one) for one in cfg.get("tasks") or {}]
    if len(chosen) != 1:
        raise UserError(
            f"say which task it is of, such as task=grounding or benchmarks.{name}.task=grounding"
        )
    return chosen[0]


def build_task_for(cfg: DictConfig, kind: str, options: Any = None) -> Task:
    """Return a task as training has it.

    Args:
        cfg: the evaluation's config.
        kind: its place in ``tasks``.
        options: of this benchmark alone, e.g. ``decimals`` of tracking.

    Raises:
        UserError: there is no such task, or an option that it does not know.
    """
    if kind not in (cfg.get("tasks") or {}):
        known = ", ".join(map(str, cfg.get("tasks") or {}))
        raise UserError(f"its task {kind} is none of the chosen ones ({known}); add it to task=")
    task: Task = build(OmegaConf.merge(cfg.tasks[kind], options or {}))
    task.name = kind
    return task


def lost_rows(annotations: Annotations) -> tuple[LostSample, ...]:
    """Return the rows that a reader has left out although they are questions; each counts as a failure.

    Official scorers count every question, so a row counts whatever it was left out for, but for the reasons
    in `NO_QUESTIONS`. A reader that counts rows without a video but does not name them, as one outside of
    this package may, gets numbers for them.
    """
    rows = [one for one in annotations.left_out if one.reason not in NO_QUESTIONS]
    taken = Counter(sample.id for sample in annotations.samples)
    lost = [
        LostSample(
            _unused(one.row, taken),
            MISSING_VIDEO if one.reason in VIDEO_REASONS else one.reason,
            one.category,
        )
        for one in rows
    ]
    counted = sum(annotations.dropped[reason] for reason in VIDEO_REASONS)
    unnamed = range(1, counted - len(annotations.without_video) + 1)
    names = [_unused(f"without-video-{number}", taken) for number in unnamed]
    return (*lost, *(LostSample(name, MISSING_VIDEO) for name in names))


def _unused(name: str, taken: Counter[str]) -> str:
    """Return the name, numbered where it is taken; it is taken from then on."""
    taken[name] += 1
    return name if taken[name] == 1 else _unused(f"{name}#{taken[name]}", taken)


def sizes(benchmarks: Sequence[Benchmark]) -> dict[str, int]:
    """Return benchmark -> samples that count."""
    return {one.name: len(one.samples) + len(one.lost) for one in benchmarks}
