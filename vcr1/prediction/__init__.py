"""Asking a model about one's own videos: questions in, answers out."""

from vcr1.inference.clues import CluePlan, Look
from vcr1.prediction.answers import Answer, report_of, write_report
from vcr1.prediction.asking import Asker, Limits, Watch, check_length
from vcr1.prediction.drawing import draw_answer, first_frame
from vcr1.prediction.overrides import as_text
from vcr1.prediction.questions import Failure, Manner, Question, read_questions
from vcr1.prediction.rendering import render_answers
from vcr1.prediction.setup import (
    build_asker,
    check_model,
    check_render,
    check_settings,
    is_batch,
    questions_of,
)
from vcr1.prediction.streaming import stream_answer
from vcr1.prediction.terminal import Terminal, remarks

__all__ = [
    "Answer",
    "Asker",
    "CluePlan",
    "Failure",
    "Limits",
    "Look",
    "Manner",
    "Question",
    "Terminal",
    "Watch",
    "as_text",
    "build_asker",
    "check_length",
    "check_model",
    "check_render",
    "check_settings",
    "draw_answer",
    "first_frame",
    "is_batch",
    "questions_of",
    "read_questions",
    "remarks",
    "render_answers",
    "report_of",
    "stream_answer",
    "write_report",
]
