"""What is printed beside an answer."""

from dataclasses import replace

import torch

from vcr1.inference import Answer, Question, remarks
from vcr1.inference.clues import Look
from vcr1.records import GroundedAnswer, Interval, ParseFailure, VideoClip, VideoSource
from vcr1.tasks import GroundingTask

GROUNDING = GroundingTask()

CLIP = VideoClip(torch.empty(0), (0,), (0.0,), 80.0, 320)
QUESTION = Question("q", VideoSource("a.mp4"), "the dog barks", GROUNDING)
SPAN = Interval(35.64285714285714, 39.6)
LOOK = Look(Interval(31.14285714285714, 40.0), 12, 6, "4.5 to 8.5", (SPAN,))
ANSWER = Answer(QUESTION, "4.5 to 8.5", SPAN, CLIP, 9, False, (LOOK,), stopped="clues.rounds=1")


def test_times_are_printed_as_people_read_them() -> None:
    looked = "look 0: 31.1 to 40.0 s, 12 frames, 6 vision tokens: 35.6 to 39.6"
    assert remarks(ANSWER) == [looked, "[35.643, 39.6]"]
    grounded = replace(ANSWER, value=GroundedAnswer("B", (SPAN,)), stopped=None)
    assert remarks(grounded) == ["{'letter': 'B', 'intervals': [[35.643, 39.6]]}"]


def test_what_cannot_be_read_or_was_cut_off_is_said() -> None:
    answer = replace(ANSWER, value=ParseFailure("no_answer"), stopped=None, truncated=True)
    assert remarks(answer) == ["cannot be read: no_answer", "cut off at rollout.max_new_tokens"]
