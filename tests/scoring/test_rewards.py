"""Rewards, against numbers worked out by hand."""

import math
from functools import partial

import pytest

from vcr1.records import (
    Box,
    Completion,
    EventScores,
    GroundedAnswer,
    Interval,
    JudgedCaption,
    JudgeFailure,
    ParseFailure,
    Sample,
)
from vcr1.scoring.rewards import (
    Reward,
    accuracy,
    answer_format,
    boxes_format,
    event_recall,
    glue_format,
    glue_iou,
    letter_accuracy,
    mean_box_iou,
    temporal_iou,
    weighted_total,
)

SAMPLE = Sample(id="s", video="v.mp4", query="a person sits down", target=Interval(4, 10))


def test_temporal_iou_with_the_target():
    # 6..10 is shared, 4..12 is the union.
    assert temporal_iou(Completion("", Interval(6, 12)), SAMPLE) == pytest.approx(4 / 8)
    assert temporal_iou(Completion("", Interval(4, 10)), SAMPLE) == 1
    assert temporal_iou(Completion("", Interval(0, 4)), SAMPLE) == 0


def test_unread_answer_earns_nothing():
    assert temporal_iou(Completion("who knows", ParseFailure("no_answer")), SAMPLE) == 0


def test_format_reads_the_text_alone():
    thought = Completion("<think>hm</think><answer>nonsense</answer>", ParseFailure("no_interval"))
    plain = Completion("<answer>4 to 10</answer>", Interval(4, 10))
    no_think: Reward = partial(answer_format, think=False)
    assert (answer_format(thought, SAMPLE), no_think(thought, SAMPLE)) == (1.0, 0.0)
    assert (answer_format(plain, SAMPLE), no_think(plain, SAMPLE)) == (0.0, 1.0)


def test_total_is_the_weighted_sum():
    assert weighted_total({"iou": 0.5, "format": 1.0}, {"format": 1.0, "iou": 1.0}) == 1.5
    assert weighted_total({"iou": 0.5, "format": 1.0}, {"format": 0.25, "iou": 2.0}) == 1.25
    assert weighted_total({}, {}) == 0


@pytest.mark.parametrize("weights", [{"iou": 1.0}, {"iou": 1.0, "format": 1.0, "fromat": 1.0}])
def test_every_part_has_its_weight(weights):
    with pytest.raises(ValueError, match="format"):
        weighted_total({"iou": 0.5, "format": 1.0}, weights)


def asked(target):
    return Sample(id="s", video="v.mp4", query="?", target=target)


def test_mean_box_iou_with_the_target():
    half, whole = Box(0, 0, 0.5, 1), Box(0, 0, 1, 1)
    sample = asked((half, whole, half, whole))
    assert mean_box_iou(Completion("", sample.target), sample) == 1
    # 1, 1/2, 0 and 1.
    answer = (half, half, Box(0.5, 0, 1, 1), whole)
    assert mean_box_iou(Completion("", answer), sample) == pytest.approx(2.5 / 4)
    assert mean_box_iou(Completion("", answer[:3]), sample) == 0
    assert mean_box_iou(Completion("", ()), asked(())) == 0


def test_accuracy_is_equality_with_the_target():
    assert accuracy(Completion("", "C"), asked("C")) == 1
    assert accuracy(Completion("", "A"), asked("C")) == 0


@pytest.mark.parametrize("reward", [accuracy, mean_box_iou])
def test_no_reward_for_what_could_not_be_read(reward):
    failure = ParseFailure("no_answer")
    assert reward(Completion("who knows", failure), asked(())) == 0
    assert accuracy(Completion("who knows", failure), asked(failure)) == 0


def test_the_format_of_an_answer_that_must_be_read():
    thought = "<think>it moves</think><answer>[[0, 0, 1, 1]]</answer>"
    read, unread = (Box(0, 0, 1, 1),), ParseFailure("wrong_count")
    assert boxes_format(Completion(thought, read), SAMPLE) == 1
    assert boxes_format(Completion(thought, unread), SAMPLE) == 0  # the form alone earns nothing
    assert answer_format(Completion(thought, unread), SAMPLE) == 1
    assert boxes_format(Completion(f"so: {thought}", read), SAMPLE) == 0
    no_think: Reward = partial(boxes_format, think=False)
    assert no_think(Completion(thought, read), SAMPLE) == 0
    assert no_think(Completion("<answer>[[0, 0, 1, 1]]</answer>", read), SAMPLE) == 1


# ------------------------------------------------------------------------------------- grounded answers

GLUED = "<think>first red</think><answer>B</answer><glue>[(0, 2), (4, 6)]</glue>"
SPANS = (Interval(0, 2), Interval(4, 6))
GROUNDED = asked(GroundedAnswer("B", SPANS))


def answered(letter="B", intervals=SPANS, text=GLUED):
    return Completion(text, GroundedAnswer(letter, intervals))


def test_glue_iou_is_that_of_the_unions():
    # 1..2 and 4..5 are shared, 0..6 is the union.
    assert glue_iou(answered(intervals=(Interval(1, 5),)), GROUNDED) == pytest.approx(2 / 6)
    # Spans that overlap count once: 0..2 and 4..6 again.
    assert glue_iou(answered(intervals=(Interval(4, 6), Interval(0, 2), Interval(0, 1))), GROUNDED) == 1
    assert glue_iou(answered(intervals=()), GROUNDED) == 0
    assert glue_iou(answered(intervals=(Interval(2, 4),)), GROUNDED) == 0


def test_letter_and_spans_earn_on_their_own():
    no_letter, no_spans = ParseFailure("no_letter"), ParseFailure("no_glue")
    assert (letter_accuracy(answered("A"), GROUNDED), glue_iou(answered("A"), GROUNDED)) == (0, 1)
    only_spans, only_letter = answered(no_letter), answered("B", no_spans)
    assert (letter_accuracy(only_spans, GROUNDED), glue_iou(only_spans, GROUNDED)) == (0, 1)
    assert (letter_accuracy(only_letter, GROUNDED), glue_iou(only_letter, GROUNDED)) == (1, 0)


def test_the_form_of_a_grounded_answer_needs_its_spans():
    assert glue_format(answered(), GROUNDED) == 1
    assert (
        glue_format(answered(ParseFailure("no_letter")), GROUNDED) == 1
    )  # another reward sees to the letter
    assert glue_format(answered(intervals=ParseFailure("reversed")), GROUNDED) == 0
    assert glue_format(answered(text="<answer>B</answer><glue>[(0, 2)]</glue>"), GROUNDED) == 0
    plain: Reward = partial(glue_format, think=False)
    assert plain(answered(text="<answer>B</answer><glue>[(0, 2)]</glue>"), GROUNDED) == 1
    assert plain(answered(), GROUNDED) == 0
    assert glue_format(answered(text="<think>hm</think><answer>B</answer>"), GROUNDED) == 0


@pytest.mark.parametrize("reward", [glue_iou, letter_accuracy, glue_format])
def test_a_grounded_answer_that_could_not_be_read_earns_nothing(reward):
    assert reward(Completion(GLUED, ParseFailure("too_long")), GROUNDED) == 0


# --------------------------------------------------------------------------------------------- captions


def test_event_recall_is_the_judge_s():
    caption = asked("A red square appears.")
    judged = JudgedCaption("a square", EventScores(recall=0.75, precision=0.5))
    assert event_recall(Completion("", judged), caption) == 0.75
    unasked = JudgedCaption("a square", EventScores(recall=0.25, precision=math.nan))
    assert event_recall(Completion("", unasked), caption) == 0.25


def test_a_caption_whose_judge_failed_is_not_scored_and_no_caption_scores_nothing():
    caption = asked("A red square appears.")
    unjudged = JudgedCaption("a square", JudgeFailure("timeout"))
    assert math.isnan(event_recall(Completion("", unjudged), caption))
    assert event_recall(Completion("", ParseFailure("empty")), caption) == 0


def test_a_part_that_is_not_judged_makes_the_total_so():
    weights = {"format": 1.0, "event_recall": 1.0}
    assert math.isnan(weighted_total({"format": 1.0, "event_recall": math.nan}, weights))
    assert math.isnan(
        weighted_total({"format": 1.0, "event_recall": math.nan}, weights | {"event_recall": 0.0})
    )


def test_boxes_without_area_have_no_form():
    text = "<think>hm</think><answer>[[0.1, 0.1, 0.4, 0.4], [0.2, 0.2, 0.2, 0.5]]</answer>"
    whole, flat = Box(0.1, 0.1, 0.4, 0.4), Box(0.2, 0.2, 0.2, 0.5)
    sample = Sample("s", "v", "q", (whole, whole))
    assert boxes_format(Completion(text, (whole, flat)), sample) == 0.0
    assert boxes_format(Completion(text, (whole, whole)), sample) == 1.0


@pytest.mark.parametrize("count", [1, 3])
def test_boxes_for_other_frames_than_the_targets_earn_nothing(count):
    box = Box(0.1, 0.1, 0.4, 0.4)
    assert mean_box_iou(Completion("", (box,) * count), Sample("s", "v", "q", (box, box))) == 0.0
