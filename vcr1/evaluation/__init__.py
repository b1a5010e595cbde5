"""Evaluation that can be trusted: every sample counts, nothing is asked twice, results say how sure they are.

`answers` and `statistics` and `results` are pure; `runner` is the model's part, `looking` its further looks;
`conversations`, `likelihoods` and `forgetting` show what a checkpoint has lost. `vcr1.evaluate`, `vcr1.score`
and `vcr1.compare` are the commands.
"""

from vcr1.evaluation.answers import NOT_GENERATED, AnswerRecord, answer_of
from vcr1.evaluation.batches import Group, Groups, form_groups, pending
from vcr1.evaluation.benchmarks import Benchmark, build_task_for, lost_rows, read_benchmarks
from vcr1.evaluation.conversations import Conversation, read_conversations, score_conversation
from vcr1.evaluation.folders import evaluation_folder
from vcr1.evaluation.forgetting import BASE, FORGETTING, against_base, sections_of, show_against_base
from vcr1.evaluation.journal import add_answers, read_answers, read_parts, start_parts
from vcr1.evaluation.likelihoods import (
    CONVERSATIONS,
    Likelihood,
    conversation_metrics,
    conversation_parts,
    likelihoods_of,
    read_likelihoods,
    write_likelihoods,
)
from vcr1.evaluation.looking import check_plan, first_looks
from vcr1.evaluation.manifest import agree, digest_of, make_manifest, model_digest, write_manifest
from vcr1.evaluation.output import (
    HELD_OUT,
    METRICS,
    SAMPLES,
    in_order,
    number,
    show_metrics,
    write_held_out,
    write_results,
)
from vcr1.evaluation.report import write_evaluation_report
from vcr1.evaluation.results import by_benchmark, columns_of, metrics_of, metrics_text
from vcr1.evaluation.runner import Answering, failures, judge
from vcr1.evaluation.setup import Asked, preflight_evaluation
from vcr1.evaluation.statistics import (
    Difference,
    Estimate,
    best_at_k,
    difference,
    estimates,
    pass_at_k,
)
from vcr1.inference.limits import MISSING_VIDEO, UNREADABLE_VIDEO

__all__ = [
    "BASE",
    "CONVERSATIONS",
    "FORGETTING",
    "HELD_OUT",
    "METRICS",
    "MISSING_VIDEO",
    "NOT_GENERATED",
    "SAMPLES",
    "UNREADABLE_VIDEO",
    "AnswerRecord",
    "Answering",
    "Asked",
    "Benchmark",
    "Conversation",
    "Difference",
    "Estimate",
    "Group",
    "Groups",
    "Likelihood",
    "add_answers",
    "against_base",
    "agree",
    "answer_of",
    "best_at_k",
    "build_task_for",
    "by_benchmark",
    "check_plan",
    "columns_of",
    "conversation_metrics",
    "conversation_parts",
    "difference",
    "digest_of",
    "estimates",
    "evaluation_folder",
    "failures",
    "first_looks",
    "form_groups",
    "in_order",
    "judge",
    "likelihoods_of",
    "lost_rows",
    "make_manifest",
    "metrics_of",
    "metrics_text",
    "model_digest",
    "number",
    "pass_at_k",
    "pending",
    "preflight_evaluation",
    "read_answers",
    "read_benchmarks",
    "read_conversations",
    "read_likelihoods",
    "read_parts",
    "score_conversation",
    "sections_of",
    "show_against_base",
    "show_metrics",
    "start_parts",
    "write_evaluation_report",
    "write_held_out",
    "write_likelihoods",
    "write_manifest",
    "write_results",
]
