"""The second look: windows, budgets and stopping rules by hand, with a model that is a function."""

from dataclasses import replace

import pytest
import torch

from vcr1.errors import UserError, VideoError
from vcr1.inference import Answer, Question
from vcr1.inference.clues import CluePlan, Look, deciding, gains_nothing, part_of, search, window
from vcr1.records import Interval, ParseFailure, VideoClip, VideoSource
from vcr1.tasks import GroundingTask
from vcr1.video import FrameBudget

GROUNDING = GroundingTask()

WHOLE = Interval(0.0, 60.0)
BUDGET = FrameBudget(fps=2.0, max_frames=40, min_pixels=784, total_pixels=78400)
PLAN = CluePlan(rounds=2, first=0.5, fps=8.0, margin=0.5, least=4.0, settled=0.9)
QUESTION = Question("q", VideoSource("a.mp4"), "the dog barks", GROUNDING)
CLIP = VideoClip(torch.empty(0), (0,), (0.0,), 60.0, 60)


class Scripted:
    """Answers in a given order, and remembers what it was shown."""

    def __init__(self, *values: Interval | ParseFailure | VideoError) -> None:
        self.values = list(values)
        self.shown: list[tuple[Interval, FrameBudget]] = []

    def __call__(self, part: Interval, budget: FrameBudget) -> Answer:
        value = self.values[len(self.shown)]
        self.shown.append((part, budget))
        if isinstance(value, VideoError):
            raise value
        spans = (value,) if isinstance(value, Interval) else ()
        return Answer(QUESTION, "", value, CLIP, 1, False, (Look(part, 20, 10, "", spans),))


def test_all_looks_share_one_budget() -> None:
    looks = [PLAN.budget(BUDGET, number) for number in range(3)]
    assert [look.max_frames for look in looks] == [20, 10, 10]
    assert [look.total_pixels for look in looks] == [39200, 19600, 19600]
    assert [look.fps for look in looks] == [1.0, 8.0, 8.0]
    assert replace(PLAN, rounds=0).budget(BUDGET, 0) == BUDGET


def test_no_further_look_has_too_few_frames() -> None:
    plan = replace(PLAN, rounds=3, first=0.6, frames=6)  # of 40 frames 16 are left: two looks of 8
    assert plan.affordable(BUDGET) == 2
    assert [plan.budget(BUDGET, number).max_frames for number in range(3)] == [24, 8, 8]
    assert replace(plan, frames=30).affordable(BUDGET) == 1  # one look in any case
    assert replace(plan, frames=2).affordable(BUDGET) == 3
    ask = Scripted(Interval(20, 24), Interval(40, 44), Interval(10, 14))
    answer = search(ask, WHOLE, replace(BUDGET, max_frames=400), replace(plan, frames=60))
    assert [budget.max_frames for _, budget in ask.shown] == [240, 80, 80]
    assert answer.stopped == "a further look would have fewer than clues.frames=60 frames"


def test_a_window_is_the_named_time_with_a_margin() -> None:
    # Half of the 8 s on either side.
    assert window([Interval(20, 28)], WHOLE, 3.0, PLAN) == Interval(16, 32)
    # At least the time between two frames; both spans lie in it.
    assert window([Interval(20, 21), Interval(23, 24)], WHOLE, 3.0, PLAN) == Interval(17, 27)
    # At least 4 s, around the middle.
    assert window([Interval(30, 30)], WHOLE, 0.5, PLAN) == Interval(28, 32)


def test_a_window_stays_within_the_video() -> None:
    assert window([Interval(0, 2)], WHOLE, 1.0, PLAN) == Interval(0, 4)  # from -1 to 3
    assert window([Interval(59, 60)], WHOLE, 2.0, PLAN) == Interval(55, 60)
    assert window([Interval(90, 95)], WHOLE, 2.0, PLAN) == Interval(50, 60)  # 10 s that lay beyond the end
    assert window([Interval(1, 2)], Interval(0, 3), 1.0, PLAN) == Interval(0, 3)


def test_a_look_that_shows_no_more_is_not_taken() -> None:
    closer = PLAN.budget(BUDGET, 1)  # 10 frames
    assert gains_nothing(Interval(0, 30), WHOLE, 20, closer)  # 3 s apart, as before
    assert not gains_nothing(Interval(0, 20), WHOLE, 20, closer)


def test_it_looks_where_the_answer_points() -> None:
    model = Scripted(Interval(20, 24), Interval(21, 23), Interval(21.5, 22.5))
    answer = search(model, WHOLE, BUDGET, PLAN)
    # 60 s / 20 frames = 3 s around the first answer; then 10 s / 20 frames, less than the margin of 1 s.
    assert [part for part, _ in model.shown] == [WHOLE, Interval(17, 27), Interval(20, 24)]
    assert answer.value == Interval(21.5, 22.5)
    assert [look.intervals for look in answer.looks] == [
        (Interval(20, 24),),
        (Interval(21, 23),),
        (Interval(21.5, 22.5),),
    ]
    assert answer.stopped == "clues.rounds=2"


def test_it_stops_when_two_looks_agree() -> None:
    model = Scripted(Interval(20, 30), Interval(20, 29.5))  # IoU 0.95
    answer = search(model, WHOLE, replace(BUDGET, max_frames=80), PLAN)
    assert (answer.value, answer.stopped, len(answer.looks)) == (Interval(20, 29.5), "two looks agree", 2)


def test_without_a_time_there_is_nowhere_to_look() -> None:
    failed = ParseFailure("no_answer")
    first = search(Scripted(failed), WHOLE, BUDGET, PLAN)
    assert (first.value, first.stopped, len(first.looks)) == (failed, "the answer names no time", 1)
    second = search(Scripted(Interval(20, 24), failed), WHOLE, BUDGET, PLAN)
    assert (second.value, second.stopped) == (Interval(20, 24), "the answer names no time")
    assert len(second.looks) == 2  # the trace has the look that failed


def test_an_answer_of_the_whole_video_is_not_looked_at_again() -> None:
    answer = search(Scripted(Interval(0, 60)), WHOLE, BUDGET, PLAN)
    assert answer.stopped == "a closer look would show no more"


def test_a_part_that_cannot_be_shown_leaves_the_answer_as_it_was() -> None:
    answer = search(Scripted(Interval(20, 24), VideoError("a.mp4: one frame")), WHOLE, BUDGET, PLAN)
    assert answer.value == Interval(20, 24)
    assert answer.stopped == "the part cannot be shown: a.mp4: one frame"
    with pytest.raises(VideoError):
        search(Scripted(VideoError("a.mp4: cut short")), WHOLE, BUDGET, PLAN)


def test_without_rounds_there_is_one_look() -> None:
    answer = search(Scripted(Interval(20, 24)), WHOLE, BUDGET, replace(PLAN, rounds=0))
    assert (answer.stopped, len(answer.looks)) == ("clues.rounds=0", 1)


def test_the_answer_is_that_of_the_last_look_that_names_a_time() -> None:
    looks = [Look(WHOLE, 20, 10, "", (Interval(20, 24),) if named else ()) for named in (True, True, False)]
    assert deciding(looks) == 1
    assert deciding(looks[2:]) == 0


def test_a_part_of_a_part_lies_in_the_file() -> None:
    source = VideoSource("a.mp4", 10.0, 70.0)
    assert part_of(source, Interval(5, 20), WHOLE) == VideoSource("a.mp4", 15.0, 30.0)
    assert part_of(source, Interval(50, 60), WHOLE) == VideoSource("a.mp4", 60.0, 70.0)
    open_end = VideoSource("a.mp4")
    assert part_of(open_end, Interval(50, 60), WHOLE) == VideoSource("a.mp4", 50.0, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 1},
        {"rounds": -1},
        {"rounds": 99},
        {"rounds": 1.5},
        {"first": 1.0},
        {"fps": 0},
        {"margin": -1},
        {"least": 0},
    ],
)
def test_a_plan_that_makes_no_sense_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"^clues\.{next(iter(wrong))}="):
        CluePlan(**wrong)  # type: ignore[arg-type]
