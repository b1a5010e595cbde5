"""The grounding task: what it asks, reads, rewards and reports, by hand."""

import pytest

from vcr1.errors import UserError
from vcr1.records import Interval, Judgement, ParseFailure, Sample
from vcr1.scoring.parsing import INTERVAL_FAILURES
from vcr1.tasks import GroundingTask

SAMPLE = Sample("s", "v.mp4", " A person opens the door. ", Interval(4, 10), duration=20.0)


def judge(task: GroundingTask, text: str, sample: Sample) -> Judgement:
    (judgement,) = task.judge([text], [sample]).result()
    return judgement


def judged(task: GroundingTask, answer: str, sample: Sample = SAMPLE) -> Judgement:
    thought = "<think>It opens early.</think>" if task.think else ""
    return judge(task, f"{thought}<answer>{answer}</answer>", sample)


# ------------------------------------------------------------------------------------ prompt and answer


@pytest.mark.parametrize("think", [True, False])
def test_prompt_holds_the_query_and_the_form_of_the_answer(think: bool) -> None:
    prompt = GroundingTask(think=think).prompt(SAMPLE)
    assert '"A person opens the door"?' in prompt.text
    assert "in seconds with one decimal" in prompt.text
    assert "<answer>12.5 to 17.8</answer>" in prompt.text
    assert ("<think> and </think>" in prompt.text) == think
    assert ("think" in prompt.text) == think


def test_a_query_may_hold_braces() -> None:
    sample = Sample("s", "v.mp4", "the {red} sign {0}", Interval(0, 1))
    assert '"the {red} sign {0}"?' in GroundingTask().prompt(sample).text


def test_the_form_that_the_prompt_asks_for_earns_the_format_reward() -> None:
    example = "<answer>12.5 to 17.8</answer>"
    no_think = GroundingTask(think=False)
    assert example in no_think.prompt(SAMPLE).text
    found = judge(no_think, example, Sample("s", "v", "q", Interval(12.5, 17.8)))
    assert found.rewards == {"format": 1.0, "iou": 1.0}


@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize(
    "target", [Interval(4, 10), Interval(0, 0.5), Interval(12.34, 17.76), Interval(99.96, 1234.5)]
)
def test_an_answer_reads_back_as_its_target(think: bool, target: Interval) -> None:
    task = GroundingTask(think=think)
    sample = Sample("s", "v", "the door opens", target)
    text = task.answer(sample)
    value = task.parse(text, sample)
    assert isinstance(value, Interval)
    assert (value.start, value.end) == (
        pytest.approx(target.start, abs=0.0501),
        pytest.approx(target.end, abs=0.0501),
    )
    found = judge(task, text, sample)
    assert found.rewards["format"] == 1.0
    assert found.rewards["iou"] > 0.9


def test_the_thought_is_the_rationale_or_the_query() -> None:
    task = GroundingTask()
    assert task.answer(SAMPLE) == "<think>A person opens the door.</think><answer>4.0 to 10.0</answer>"
    told = Sample("s", "v", "q", Interval(1, 2.5), extra={"rationale": "red"})
    assert task.answer(told) == "<think>red</think><answer>1.0 to 2.5</answer>"
    assert GroundingTask(think=False).answer(told) == "<answer>1.0 to 2.5</answer>"


# ---------------------------------------------------------------------------------------------- judging


def test_rewards_of_a_completion() -> None:
    # 6..10 is shared, 4..12 is the union: IoU 4 / 8.
    found = judged(GroundingTask(), "6.0 to 12.0")
    assert found.sample_id == "s"
    assert found.completion.value == Interval(6, 12)
    assert found.rewards == {"format": 1.0, "iou": 0.5}
    assert list(found.rewards) == list(GroundingTask().reward_names) == ["format", "iou"]
    assert found.total == 1.5
    assert found.metrics == {"iou": 0.5}
    assert found.failure is None


def test_format_depends_on_whether_thought_was_asked_for() -> None:
    bare, thought = "<answer>4 to 10</answer>", "<think>hm</think><answer>4 to 10</answer>"
    think, no_think = GroundingTask(), GroundingTask(think=False)
    assert [judge(task, text, SAMPLE).total for task in (think, no_think) for text in (bare, thought)] == [
        1.0,
        2.0,
        2.0,
        1.0,
    ]


def test_weights_count_in_the_total_only() -> None:
    found = judged(GroundingTask(weights={"iou": 3.0, "format": 0.25}), "6.0 to 12.0")
    assert found.total == 0.25 * 1.0 + 3.0 * 0.5
    assert found.rewards == {"format": 1.0, "iou": 0.5}
    assert judged(GroundingTask(weights={"iou": 2}), "6.0 to 12.0").total == 1.0 + 2 * 0.5
    assert judged(GroundingTask(weights={"format": 0.0}), "6.0 to 12.0").total == 0.5


def test_a_weight_of_an_unknown_reward_is_refused() -> None:
    with pytest.raises(UserError, match=r"tasks\.grounding\.weights names fromat; .* are format, iou"):
        GroundingTask(weights={"fromat": 1.0, "iou": 1.0})


@pytest.mark.parametrize(
    ("text", "format_reward", "reason"),
    [
        ("<think>hm</think>", 0.0, "no_answer"),
        ("", 0.0, "no_answer"),
        ("<think>hm</think><answer>soon</answer>", 1.0, "no_interval"),
        ("<think>hm</think><answer>1 to 2 to 3</answer>", 1.0, "ambiguous"),
        ("<think>hm</think><answer>1 to 2 frames</answer>", 1.0, "not_seconds"),
        ("<think>hm</think><answer>-3 to 5</answer>", 1.0, "out_of_range"),
        ("<think>hm</think><answer>10.0 to 4.0</answer>", 1.0, "reversed"),
        ("4 to 10 " * 20_000, 0.0, "too_long"),
    ],
)
def test_a_parse_failure_scores_nothing_and_says_why(text: str, format_reward: float, reason: str) -> None:
    found = judge(GroundingTask(), text, SAMPLE)
    assert found.failure == reason
    assert found.completion.value == ParseFailure(reason)
    assert found.rewards == {"format": format_reward, "iou": 0.0}
    assert found.total == format_reward
    assert found.metrics == {"iou": 0.0}
    assert reason in GroundingTask.failure_reasons


def test_every_reason_of_the_parser_is_known_to_the_task() -> None:
    assert GroundingTask.failure_reasons == INTERVAL_FAILURES


# ---------------------------------------------------------------------------------------------- metrics


def test_summary_by_hand() -> None:
    # Target 4..10. IoUs: 1; 4/8 = 0.5; 3/6 = 0.5 (4..7); 0 (10..12); 0 (unreadable); 2.4/6 = 0.4 (4..6.4).
    task = GroundingTask(think=False)
    texts = ["4 to 10", "6 to 12", "4 to 7", "10 to 12", "never", "4 to 6.4"]
    judgements = [judged(task, text) for text in texts]
    judgements.append(judge(task, "It is <answer>4 to 10</answer>", SAMPLE))  # IoU 1, bad format
    summary = task.summarise(judgements)
    assert summary["mIoU"] == pytest.approx((1 + 0.5 + 0.5 + 0 + 0 + 0.4 + 1) / 7)
    assert summary["R@0.3"] == pytest.approx(5 / 7)
    assert summary["R@0.5"] == pytest.approx(4 / 7)
    assert summary["R@0.7"] == pytest.approx(2 / 7)
    assert summary["format"] == pytest.approx(6 / 7)
    assert set(summary) == {"mIoU", "R@0.3", "R@0.5", "R@0.7", "format"}


def test_baselines_are_fitted_on_train_and_scored_on_test() -> None:
    def sample(start: float, end: float, duration: float | None) -> Sample:
        return Sample(f"{start}-{end}-{duration}", "v", "q", Interval(start, end), duration)

    # Three targets of 2..4 outvote one of 6..10: the constant answer is 2..4. For 10 s it is 6..10.
    train = [sample(2, 4, 8.0), sample(2, 4, 8.0), sample(2, 4, 8.0), sample(6, 10, 10.0)]
    # 8 s: 2..4 against 2..4 is 1. 10 s: 2..4 against 6..8 is 0, 6..10 is 2/4. Unknown: the constant, 1/2.
    test = [sample(2, 4, 8.0), sample(6, 8, 10.0), sample(2, 6, None)]
    found = GroundingTask().baselines(train, test)
    assert found["constant"]["mIoU"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["constant_per_duration"]["mIoU"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert found["constant_per_duration"]["R@0.7"] == pytest.approx(1 / 3)
    assert set(found) == {"constant", "constant_per_duration"}


def test_the_headline_is_one_of_the_metrics() -> None:
    task = GroundingTask()
    sample = Sample("s", "v", "q", Interval(1, 3))
    judgement = judge(task, "<think></think><answer>1.0 to 3.0</answer>", sample)
    assert task.summarise([judgement])[task.headline] == 1.0
