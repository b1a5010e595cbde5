"""Evaluation that can be trusted: every sample counts, nothing is asked twice, results say how sure they are.

`answers` and `statistics` and `results` are pure; `runner` is the model's part. `vcr1.evaluate`, `vcr1.score`
and `vcr1.compare` are the commands.
"""

from vcr1.evaluation.answers import MISSING_VIDEO, NOT_GENERATED, UNREADABLE_VIDEO, Answer, answer_of
from vcr1.evaluation.batches import Group, form_groups, pending
from vcr1.evaluation.benchmarks import Benchmark, build_task_for, lost_rows, read_benchmarks
from vcr1.evaluation.folders import evaluation_folder
from vcr1.evaluation.journal import add_answers, read_answers, read_parts, write_whole
from vcr1.evaluation.manifest import agree, make_manifest, model_digest, write_manifest
from vcr1.evaluation.output import (
    HELD_OUT,
    METRICS,
    SAMPLES,
    in_order,
    number,
    show,
    write_held_out,
    write_results,
)
from vcr1.evaluation.report import write_report
from vcr1.evaluation.results import by_benchmark, columns_of, metrics_of, metrics_text
from vcr1.evaluation.runner import Answering, Groups, failures, judge
from vcr1.evaluation.statistics import (
    Difference,
    Estimate,
    best_at_k,
    difference,
    estimates,
    pass_at_k,
)

__all__ = [
    "HELD_OUT",
    "METRICS",
    "MISSING_VIDEO",
    "NOT_GENERATED",
    "SAMPLES",
    "UNREADABLE_VIDEO",
    "Answer",
    "Answering",
    "Benchmark",
    "Difference",
    "Estimate",
    "Group",
    "Groups",
    "add_answers",
    "agree",
    "answer_of",
    "best_at_k",
    "build_task_for",
    "by_benchmark",
    "columns_of",
    "difference",
    "estimates",
    "evaluation_folder",
    "failures",
    "form_groups",
    "in_order",
    "judge",
    "lost_rows",
    "make_manifest",
    "metrics_of",
    "metrics_text",
    "model_digest",
    "number",
    "pass_at_k",
    "pending",
    "read_answers",
    "read_benchmarks",
    "read_parts",
    "show",
    "write_held_out",
    "write_manifest",
    "write_report",
    "write_results",
    "write_whole",
]
