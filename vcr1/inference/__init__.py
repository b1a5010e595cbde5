"""Asking a model about one's own videos: questions in, answers out."""

from vcr1.inference.answers import Answer, report_of, write_answers
from vcr1.inference.asking import Asker, Watch
from vcr1.inference.clues import CluePlan, Look
from vcr1.inference.drawing import draw_answer, first_frame
from vcr1.inference.limits import Limits, check_length
from vcr1.inference.overrides import as_text
from vcr1.inference.questions import Failure, Question, QuestionDefaults, read_questions
from vcr1.inference.rendering import render_answers
from vcr1.inference.setup import (
    build_asker,
    check_model,
    check_prediction,
    check_render,
    is_batch,
    questions_of,
)
from vcr1.inference.streaming import stream_answer
from vcr1.inference.terminal import Terminal, remarks

__all__ = [
    "Answer",
    "Asker",
    "CluePlan",
    "Failure",
    "Limits",
    "Look",
    "Question",
    "QuestionDefaults",
    "Terminal",
    "Watch",
    "as_text",
    "build_asker",
    "check_length",
    "check_model",
    "check_prediction",
    "check_render",
    "draw_answer",
    "first_frame",
    "is_batch",
    "questions_of",
    "read_questions",
    "remarks",
    "render_answers",
    "report_of",
    "stream_answer",
    "write_answers",
]
