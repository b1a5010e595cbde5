"""Score what others have written: ``python -m vcr1.score task=grounding annotations=F predictions=P.jsonl``.

Needs no model, no GPU and no videos. A prediction is ``{"id": ..., "completion": ...}``, one per line, with
the completion as the model wrote it: it goes through the task's own parser. Writes what `vcr1.evaluate` does.
Exit status: 0 when all is scored, 2 where files or settings cannot be used.
"""

from __future__ import annotations

from vcr1.usage import show_usage

if __name__ == "__main__":  # before anything heavy is loaded
    show_usage("score", __doc__)

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch starts its threads

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from vcr1.config.entry import command_line, exit_on_user_error
from vcr1.config.sources import build_task
from vcr1.errors import UserError
from vcr1.evaluation import (
    AnswerRecord,
    Benchmark,
    failures,
    in_order,
    judge,
    make_manifest,
    read_benchmarks,
    show_metrics,
    write_evaluation_report,
    write_manifest,
    write_results,
)
from vcr1.readers.files import read_lines
from vcr1.records import Batch, LostSample
from vcr1.records.files import write_whole
from vcr1.tasks import Task

log = logging.getLogger(__name__)

MISSING_PREDICTION = "missing_prediction"
_SHOWN = 5


def score(cfg: DictConfig) -> dict[str, Any]:
    """Score predictions and write the results.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: a file that is missing or broken, or a setting that does not fit.
    """
    if not cfg.predictions:
        raise UserError('predictions= is missing: a file with one {"id": ..., "completion": ...} per line')
    texts, repeated = read_predictions(str(cfg.predictions))
    one = read_one(cfg)
    answers, account = score_predictions(one, texts)
    account = {"repeated": repeated} | account
    report_ids(account)
    folder = Path(cfg.run_dir)
    write_manifest(folder, make_manifest([one], predictions=str(cfg.predictions)))
    write_whole(folder / "ids.json", json.dumps(account, indent=2, ensure_ascii=False) + "\n")
    metrics = write_results(folder, answers)
    write_evaluation_report(folder, [one], answers, metrics, examples=3 if cfg.videos else 0)
    show_metrics(metrics)
    log.info("Everything is in %s", folder)
    return metrics


def read_predictions(path: str) -> tuple[dict[str, str], list[str]]:
    """Return completions by id, of those with one id the first; and the ids that stand more than once.

    Raises:
        UserError: a missing or empty file, or a line that is no prediction; names it.
    """
    texts: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
            id_, text = row["id"], row["completion"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f'{path}, line {number}: expected {{"id": ..., "completion": ...}} ({error!r})'
            ) from error
        if isinstance(id_, bool) or not isinstance(id_, str | int) or not isinstance(text, str):
            raise UserError(f"{path}, line {number}: id must be a text or a whole number, completion a text")
        texts.setdefault(str(id_), text)
        counts[str(id_)] += 1
    return texts, [id_ for id_, count in counts.items() if count > 1]


def read_one(cfg: DictConfig) -> Benchmark:
    """Return the annotations that are scored against: a benchmark's, or those of the file that is named.

    Raises:
        UserError: neither or too much is named, or the file cannot be used.
    """
    cfg = cfg.copy()
    if not cfg.get("benchmarks"):
        tasks = [str(name) for name in cfg.get("tasks") or {}]
        if len(tasks) != 1 or not cfg.annotations:
            raise UserError(
                "say what the predictions answer: task=grounding annotations=FILE, or benchmark=charades_sta"
            )
        reader = reader_of(build_task(cfg, tasks[0]), str(cfg.annotations))
        with open_dict(cfg):
            reader |= {"annotations": str(cfg.annotations), "videos": cfg.videos or "."}
            node = {"task": tasks[0], "split": "val", "sources": {tasks[0]: {"val": reader}}}
            cfg.benchmarks = {tasks[0]: node}
    elif cfg.annotations:
        raise UserError("benchmark= brings its own annotations; leave annotations= out, or take task=")
    found = read_benchmarks(cfg, unseen=True)
    if len(found) != 1:
        raise UserError(f"{len(found)} benchmarks: score their predictions one after the other")
    return found[0]


def reader_of(task: Task, annotations: str) -> dict[str, Any]:
    """Return the config of the reader that takes an annotation file of a task.

    Raises:
        UserError: none does.
    """
    ending = Path(annotations).suffix.lower()
    if ending in task.published:
        shown = {} if task.frames is None else {"boxes": task.frames}
        return {"_target_": task.published[ending], **shown}
    if ending == ".jsonl":
        return {"_target_": "vcr1.readers.read_jsonl", "task": f"${{tasks.{task.name}}}"}
    endings = sorted({*task.published, ".jsonl"})
    raise UserError(
        f"annotations={annotations}: of {task.name}, files that end with {' or '.join(endings)} can be read; "
        f"or name a benchmark="
    )


def score_predictions(
    benchmark: Benchmark, texts: Mapping[str, str]
) -> tuple[list[AnswerRecord], dict[str, list[str]]]:
    """Return answers to all samples, and the ids that do not fit.

    Returns:
        One answer for each sample, in order; and the ids that are ``missing``, which score 0, and those that
        are ``unknown``, which are not scored.
    """
    present = [sample for sample in benchmark.samples if sample.id in texts]
    missing = [sample.id for sample in benchmark.samples if sample.id not in texts]
    missing += [lost.sample_id for lost in benchmark.lost if lost.sample_id not in texts]
    asked = {sample.id for sample in benchmark.samples} | {lost.sample_id for lost in benchmark.lost}
    batch = Batch(benchmark.task, present, [], [], [])
    found = judge(benchmark, batch, [[texts[sample.id]] for sample in present], lambda: 0.0)
    categories = {sample.id: benchmark.task.category(sample) for sample in benchmark.samples}
    absent = [LostSample(id_, MISSING_PREDICTION, categories.get(id_)) for id_ in missing]
    others = [lost for lost in benchmark.lost if lost.sample_id in texts]
    found += failures(benchmark, [*absent, *others])
    answers = in_order([benchmark], {answer.key: answer for answer in found})
    return answers, {"missing": missing, "unknown": [id_ for id_ in texts if id_ not in asked]}


def report_ids(account: Mapping[str, Sequence[str]]) -> None:
    """Say which ids do not fit; ids.json has them all."""
    meanings = {
        "repeated": "stand more than once in the predictions: the first counts",
        "missing": "have no prediction: they score 0",
        "unknown": "are in the predictions, but not in the annotations: not scored",
    }
    for name, ids in account.items():
        if ids:
            more = f" and {len(ids) - _SHOWN} more, see ids.json" if len(ids) > _SHOWN else ""
            log.warning("%d ids %s: %s%s", len(ids), meanings[name], ", ".join(ids[:_SHOWN]), more)


def run_job(cfg: DictConfig) -> Any:
    """Score, as a Hydra job."""
    with exit_on_user_error():
        return score(cfg)


main = command_line(run_job, "score")

if __name__ == "__main__":
    main()
