"""The tracking task: what it asks, reads, rewards and reports, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcr1.errors import UserError
from vcr1.records import Box, Completion, Judgement, Sample, Tracklet
from vcr1.scoring.parsing import BOX_FAILURES
from vcr1.tasks import TrackingTask

HALF = Box(0.0, 0.0, 0.5, 0.5)
UPPER = Box(0.0, 0.0, 0.5, 0.25)  # half of HALF: IoU 1/2
WIDE = Box(0.0, 0.0, 0.5, 0.625)  # HALF and a quarter more: IoU 4/5
ELSEWHERE = Box(0.5, 0.5, 1.0, 1.0)  # touches HALF's corner: IoU 0
SAMPLE = Sample("s", "v.mp4", " the dog. ", (HALF, HALF, HALF))


def judge(task: TrackingTask, boxes: str, sample: Sample = SAMPLE) -> Judgement:
    thought = "<think>It runs.</think>" if task.think else ""
    (judgement,) = task.judge([f"{thought}<answer>{boxes}</answer>"], [sample]).result()
    return judgement


def judged(*boxes: Box, sample: Sample = SAMPLE) -> Judgement:
    return TrackingTask(boxes=3).score(Completion("", tuple(boxes)), sample)


# ------------------------------------------------------------------------------------ prompt and answer


@pytest.mark.parametrize("think", [True, False])
def test_prompt_gives_the_first_box_and_the_form(think: bool) -> None:
    task = TrackingTask(boxes=3, think=think)
    text = task.prompt(SAMPLE).text
    assert "shows 3 frames, evenly spaced" in text
    assert "the dog is in the box [0.000, 0.000, 0.500, 0.500]:" in text
    assert "the 3 boxes in the order of the frames, with three decimals" in text
    assert "<answer>[[0.100, 0.200, 0.400, 0.600], [0.200, 0.200, 0.500, 0.600], ...]</answer>" in text
    assert ("think" in text) == think
    assert task.frames == 3


def test_a_given_first_box_stands_before_the_targets_own() -> None:
    told = Sample("s", "v", "the dog", (HALF, HALF, HALF), extra={"first_box": UPPER})
    assert "[0.0, 0.0, 0.5, 0.2]:" in TrackingTask(boxes=3, decimals=1).prompt(told).text
    assert "with one decimal," in TrackingTask(boxes=3, decimals=1).prompt(told).text
    assert "[0.00, 0.00, 0.50, 0.25]:" in TrackingTask(boxes=3, decimals=2).prompt(told).text


def test_an_objects_name_may_hold_braces() -> None:
    sample = Sample("s", "v", "the {box} {0}", (HALF, HALF, HALF))
    assert "the {box} {0} is in the box" in TrackingTask(boxes=3).prompt(sample).text


def test_what_cannot_be_asked_is_refused() -> None:
    for boxes in (1, 0, 2.5):
        with pytest.raises(UserError, match=r"tasks\.tracking\.boxes=.*: tracking asks for at least 2 boxes"):
            TrackingTask(boxes=boxes)  # type: ignore[arg-type]
    for decimals in (0, 4):
        with pytest.raises(UserError, match=r"tasks\.tracking\.decimals=.; choose from 1, 2, 3"):
            TrackingTask(decimals=decimals)
    with pytest.raises(UserError, match=r"tasks\.tracking\.weights names oiu; .* are format, iou"):
        TrackingTask(weights={"oiu": 1.0})


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """A box in the frame, however thin."""
    (x0, x1), (y0, y1) = (sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1)))) for _ in range(2))
    return Box(x0, y0, x1, y1)


@given(st.lists(boxes(), min_size=2, max_size=6), st.sampled_from([1, 2, 3]), st.booleans())
def test_an_answer_reads_back_as_its_target(target: list[Box], decimals: int, think: bool) -> None:
    task = TrackingTask(boxes=len(target), decimals=decimals, think=think)
    sample = Sample("s", "v", "the dog", tuple(target))
    text = task.answer(sample)
    value = task.parse(text, sample)
    assert isinstance(value, tuple)
    for read, true in zip(value, target, strict=True):
        corners = [(read.x0, true.x0), (read.y0, true.y0), (read.x1, true.x1), (read.y1, true.y1)]
        # Half a unit of the last decimal; where a side rounds to nothing, one and a half at most.
        thin = min(true.x1 - true.x0, true.y1 - true.y0) < 1.01 * 10**-decimals
        bound = (1.501 if thin else 0.501) * 10**-decimals
        assert all(abs(ours - theirs) <= bound for ours, theirs in corners)
    assert task.judge([text], [sample]).result()[0].rewards["format"] == 1.0


def test_a_thin_box_is_written_one_unit_wide() -> None:
    target = (Box(0.11, 0.2, 0.14, 0.6), Box(0.98, 1.0, 1.0, 1.0))
    answer = TrackingTask(boxes=2, decimals=1, think=False).answer(Sample("s", "v", "q", target))
    assert answer == "<answer>[[0.1, 0.2, 0.2, 0.6], [0.9, 0.9, 1.0, 1.0]]</answer>"


def test_the_thought_is_the_rationale_or_the_query() -> None:
    target = (HALF, UPPER)
    boxes = "[[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.2]]"
    told = Sample("s", "v", " the dog ", target, extra={"rationale": "left"})
    task = TrackingTask(boxes=2, decimals=1)
    assert task.answer(told) == f"<think>left</think><answer>{boxes}</answer>"
    untold = Sample("s", "v", " the dog ", target)
    assert task.answer(untold) == f"<think>the dog</think><answer>{boxes}</answer>"
    assert TrackingTask(boxes=2, decimals=1, think=False).answer(told) == f"<answer>{boxes}</answer>"


# ---------------------------------------------------------------------------------------------- judging


def test_rewards_of_a_completion() -> None:
    # IoUs 1, 1/2 and 0: half on the mean over all three.
    found = judge(TrackingTask(boxes=3), "[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.25], [0.5, 0.5, 1, 1]]", SAMPLE)
    assert found.completion.value == (HALF, UPPER, ELSEWHERE)
    assert found.rewards == {"format": 1.0, "iou": 0.5}
    assert list(found.rewards) == ["format", "iou"]
    assert (found.total, found.failure, found.category) == (1.5, None, None)
    weighted = TrackingTask(boxes=3, weights={"iou": 4.0, "format": 0.5})
    assert judge(weighted, "[[0,0,.5,.5], [0,0,.5,.25], [.5,.5,1,1]]").total == 0.5 + 4 * 0.5


def test_metrics_leave_the_given_box_out() -> None:
    # All boxes: (1 + 4/5 + 1/2) / 3. Without the first: (4/5 + 1/2) / 2; 4/5 alone is over 0.5 and 0.75.
    found = judged(HALF, WIDE, UPPER)
    assert found.metrics == pytest.approx(
        {"iou": 2.3 / 3, "overlap": 0.65, "success@0.5": 0.5, "success@0.75": 0.5}
    )
    # A wrong first box costs the reward, and none of GOT-10k's metrics.
    found = judged(ELSEWHERE, HALF, HALF)
    assert found.metrics == {"iou": 2 / 3, "overlap": 1.0, "success@0.5": 1.0, "success@0.75": 1.0}


def test_another_number_of_boxes_scores_nothing() -> None:
    longer = Sample("s", "v", "q", (HALF,) * 4)
    found = judged(HALF, HALF, HALF, sample=longer)
    assert found.rewards["iou"] == 0.0
    assert set(found.metrics.values()) == {0.0}


REASONS = {
    "no_answer": "<answer>[0, 0, 1, ",
    "no_boxes": "<answer>it leaves the frame</answer>",
    "malformed": "<answer>[0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]</answer>",
    "wrong_count": "<answer>[0, 0, 1, 1], [0, 0, 1, 1]</answer>",
    "not_normalised": "<answer>[0, 0, 10, 10], [0, 0, 1, 1], [0, 0, 1, 1]</answer>",
    "reversed": "<answer>[0.5, 0, 0.1, 1], [0.5, 0, 0.1, 1], [0, 0, 1, 1]</answer>",
    "too_long": "x" * 100_001,
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_parse_failure_scores_nothing_and_says_why(reason: str) -> None:
    (found,) = TrackingTask(boxes=3).judge([f"<think>hm</think>{REASONS[reason]}"], [SAMPLE]).result()
    assert found.failure == reason
    # The form of a structured answer is not there where the structure is not.
    assert found.rewards == {"format": 0.0, "iou": 0.0}
    assert found.total == 0.0
    assert found.metrics == {"iou": 0.0, "overlap": 0.0, "success@0.5": 0.0, "success@0.75": 0.0}


def test_every_reason_of_the_parser_is_known_to_the_task() -> None:
    assert TrackingTask.failure_reasons == BOX_FAILURES
    assert set(REASONS) == set(BOX_FAILURES)


def test_the_format_depends_on_whether_thought_was_asked_for() -> None:
    answer = "<answer>[[0,0,.5,.5], [0,0,.5,.5], [0,0,.5,.5]]</answer>"
    both = [answer, f"<think>hm</think>{answer}"]
    rewards = [
        [
            found.rewards["format"]
            for found in TrackingTask(boxes=3, think=think).judge(both, [SAMPLE] * 2).result()
        ]
        for think in (False, True)
    ]
    assert rewards == [[1.0, 0.0], [0.0, 1.0]]


# ---------------------------------------------------------------------------------------------- metrics


def test_summary_by_hand() -> None:
    task = TrackingTask(boxes=3)
    judgements = [
        judged(HALF, WIDE, WIDE),  # mean 2.6/3, without the first 0.8
        judged(HALF, UPPER, UPPER),  # mean 2/3, without the first 0.5, which is not over 0.5
        judged(HALF, HALF, ELSEWHERE),  # mean 2/3, without the first 0.5, one frame of two a success
        judge(task, "gone"),  # nothing
    ]
    judgements.append(judge(task, "[[0,0,.5,.5], [0,0,.5,.5], [0,0,.5,.5]]"))  # 1, and well formed
    summary = task.summarise(judgements)
    assert summary == pytest.approx(
        {
            "AO": (0.8 + 0.5 + 0.5 + 0 + 1) / 5,
            "SR@0.5": (1 + 0 + 0.5 + 0 + 1) / 5,
            "SR@0.75": (1 + 0 + 0.5 + 0 + 1) / 5,
            "mIoU": (2.6 / 3 + 2 / 3 + 2 / 3 + 0 + 1) / 5,
            "R@0.5": 4 / 5,
            "R@0.7": 2 / 5,
            "format": 1 / 5,
        }
    )
    assert task.headline in summary


def test_recall_counts_a_mean_at_the_threshold() -> None:
    # IoUs 1, 1/2, 0: the mean is 1/2 and reaches R@0.5, while no box is over 0.5 but the given one.
    summary = TrackingTask(boxes=3).summarise([judged(HALF, UPPER, ELSEWHERE)])
    assert (summary["R@0.5"], summary["R@0.7"], summary["SR@0.5"], summary["AO"]) == (1.0, 0.0, 0.0, 0.25)


def test_baselines_by_hand() -> None:
    def sample(*boxes: Box, first: Box | None = None) -> Sample:
        return Sample("s", "v", "q", tuple(boxes), extra={} if first is None else {"first_box": first})

    task = TrackingTask(boxes=3)
    # Of the training boxes two thirds are HALF: that is the best constant.
    train = [sample(HALF, HALF, ELSEWHERE)]
    test = [sample(HALF, UPPER, HALF), sample(ELSEWHERE, ELSEWHERE, ELSEWHERE)]
    found = task.baselines(train, test)
    # first_box: HALF everywhere, IoUs 1, 1/2, 1 and the second sample exactly.
    # constant: HALF everywhere, the same for the first sample and 0 for the second.
    assert found["first_box"] == pytest.approx(
        {
            "AO": (0.75 + 1) / 2,
            "SR@0.5": (0.5 + 1) / 2,
            "SR@0.75": (0.5 + 1) / 2,
            "mIoU": (2.5 / 3 + 1) / 2,
            "R@0.5": 1.0,
            "R@0.7": 1.0,
        }
    )
    assert found["constant"] == pytest.approx(
        {
            "AO": 0.375,
            "SR@0.5": 0.25,
            "SR@0.75": 0.25,
            "mIoU": 2.5 / 6,
            "R@0.5": 0.5,
            "R@0.7": 0.5,
        }
    )
    # The box that the prompt gives counts, not the target's own first.
    (given_first,) = [task.baselines(train, [sample(HALF, HALF, HALF, first=UPPER)])["first_box"]]
    assert (given_first["AO"], given_first["mIoU"]) == (0.5, 0.5)


def test_the_value_is_a_tracklet_for_each_sample() -> None:
    value: Tracklet | object = TrackingTask(boxes=2).parse(
        "<answer>frame 1: (0, 0, 0.5, 0.5)\nframe 2: (0, 0, 0.5, 0.25)</answer>", SAMPLE
    )
    assert value == (HALF, UPPER)
