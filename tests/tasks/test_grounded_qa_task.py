"""The grounded question answering task: what it asks, reads, rewards and reports, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcr1.errors import UserError
from vcr1.records import GroundedAnswer, Interval, Judgement, ParseFailure, Sample
from vcr1.scoring.parsing import GLUE_FAILURES, LETTER_FAILURES
from vcr1.tasks import GroundedQATask

OPTIONS = ("a dog", "a cat", "a horse")

SPANS = ("iou", "iop", "union_iou", "union_iop")


def ask(*spans: tuple[float, float], letter: str = "B", category: str | None = None) -> Sample:
    target = GroundedAnswer(letter, tuple(Interval(*span) for span in spans))
    extra = {} if category is None else {"category": category}
    return Sample("s", "v.mp4", " What runs? ", target, duration=20.0, options=OPTIONS, extra=extra)


SAMPLE = ask((4, 10))


def judge(text: str, sample: Sample = SAMPLE, task: GroundedQATask | None = None) -> Judgement:
    (judgement,) = (task or GroundedQATask()).judge([text], [sample]).result()
    return judgement


def answered(letter: str, spans: str, sample: Sample = SAMPLE) -> Judgement:
    return judge(f"<think>hm</think><answer>{letter}</answer><glue>{spans}</glue>", sample)


# ------------------------------------------------------------------------------------ prompt and answer


@pytest.mark.parametrize("think", [True, False])
def test_prompt_lists_the_options_and_the_form(think: bool) -> None:
    text = GroundedQATask(think=think).prompt(SAMPLE).text
    assert text.startswith("What runs?\n(A) a dog\n(B) a cat\n(C) a horse\n")
    assert "for example <answer>B</answer><glue>[(5.2, 10.4), (12.0, 13.5)]</glue>." in text
    assert "in seconds with one decimal" in text
    assert ("think" in text) == think


def test_the_example_of_the_prompt_earns_the_format_reward() -> None:
    example = "<answer>B</answer><glue>[(5.2, 10.4), (12.0, 13.5)]</glue>"
    found = judge(example, ask((5.2, 10.4), (12, 13.5)), GroundedQATask(think=False))
    assert found.rewards == {"format": 1.0, "accuracy": 1.0, "iou": 1.0}


tenths = st.integers(0, 9_000).map(lambda value: value / 10)


@given(
    letter=st.sampled_from("ABC"),
    spans=st.lists(st.tuples(tenths, st.integers(1, 300)), min_size=1, max_size=64),
    think=st.booleans(),
)
def test_an_answer_reads_back_as_its_target(letter: str, spans: list[tuple[float, int]], think: bool) -> None:
    task = GroundedQATask(think=think)
    sample = ask(*((start, round(start + length / 10, 1)) for start, length in spans), letter=letter)
    text = task.answer(sample)
    assert task.parse(text, sample) == sample.target
    rewards = judge(text, sample, task).rewards
    assert rewards == {"format": 1.0, "accuracy": 1.0, "iou": pytest.approx(1.0)}


def test_the_thought_is_the_rationale_or_the_query() -> None:
    sample = ask((1, 2.5), (4, 6))
    told = Sample("s", "v", "q", sample.target, options=OPTIONS, extra={"rationale": "red"})
    answer = "<answer>B</answer><glue>[(1.0, 2.5), (4.0, 6.0)]</glue>"
    assert GroundedQATask().answer(sample) == f"<think>What runs?</think>{answer}"
    assert GroundedQATask().answer(told) == f"<think>red</think>{answer}"
    assert GroundedQATask(think=False).answer(told) == answer


# ---------------------------------------------------------------------------------------------- judging


def test_rewards_of_a_completion() -> None:
    # 6..10 is shared, 4..12 is the union: IoU 4/8; of the 6 answered seconds 4 are true: IoP 2/3.
    found = answered("B", "[(6, 12)]")
    assert found.completion.value == GroundedAnswer("B", (Interval(6, 12),))
    assert found.rewards == {"format": 1.0, "accuracy": 1.0, "iou": 0.5}
    assert list(found.rewards) == ["format", "accuracy", "iou"]
    assert (found.total, found.failure) == (2.5, None)
    shared = pytest.approx(2 / 3)
    assert found.metrics == {
        "accuracy": 1.0,
        "iou": 0.5,
        "iop": shared,
        "union_iou": 0.5,
        "union_iop": shared,
    }
    weights = {"format": 0.5, "accuracy": 2.0, "iou": 4.0}
    text = "<think>hm</think><answer>B</answer><glue>[(6, 12)]</glue>"
    assert judge(text, task=GroundedQATask(weights=weights)).total == 0.5 + 2 + 2
    with pytest.raises(UserError, match=r"tasks\.grounded_qa\.weights names iop; .* accuracy, iou"):
        GroundedQATask(weights={"iop": 1.0})


def test_one_answered_span_is_held_against_the_best_true_one() -> None:
    # Against 0..4: 2 of 0..8, IoU 1/4, and 2 of the answered 6, IoP 1/3. Against 6..10: 2 of 2..10, the
    # same IoU of 1/4. Against 3..5: 2 of 2..8, IoU and IoP 1/3. The best: IoU 1/3, IoP 1/3.
    # Of unions: true is 0..5 and 6..10; shared 2..5 and 6..8, which is 5 of 0..10.
    found = answered("A", "[(2, 8)]", ask((0, 4), (6, 10), (3, 5)))
    expected = {"accuracy": 0.0, "iou": 1 / 3, "iop": 1 / 3, "union_iou": 0.5, "union_iop": 5 / 6}
    assert found.metrics == pytest.approx(expected)
    assert found.rewards["iou"] == 0.5


def test_iou_and_iop_may_be_best_for_different_spans() -> None:
    # Answered 0..10. True 0..4: IoU 0.4, IoP 0.4. True 5..25: shared 5, IoU 5/25 = 0.2, IoP 0.5.
    found = answered("B", "0 to 10", ask((0, 4), (5, 25)))
    assert found.metrics["iou"] == pytest.approx(0.4)
    assert found.metrics["iop"] == pytest.approx(0.5)


def test_several_answered_spans_count_by_their_union() -> None:
    # 4..6 and 8..12 against 4..10: shared 2 + 2, union 8, answered 6.
    found = answered("B", "[(4, 6), (8, 12)]")
    assert found.metrics["iou"] == found.metrics["union_iou"] == 0.5
    assert found.metrics["iop"] == pytest.approx(4 / 6)


def test_all_of_several_true_spans_reach_1_by_their_union_alone() -> None:
    # 2 s + 2 s + 2 s, all answered: held against one true span, a third of the answer is true.
    found = answered("B", "[(0, 2), (4, 6), (8, 10)]", ask((0, 2), (4, 6), (8, 10)))
    assert (found.metrics["iop"], found.metrics["iou"]) == pytest.approx((1 / 3, 1 / 3))
    assert (found.metrics["union_iop"], found.metrics["union_iou"]) == (1.0, 1.0)
    scores = GroundedQATask().summarise([found])
    assert (scores["Acc@GQA"], scores["Acc@GQA(union)"]) == (0.0, 1.0)


def test_an_instant_earns_nothing_but_the_iop_of_nextgqas_own_code() -> None:
    found = answered("B", "[(6, 6)]")
    assert found.rewards == {"format": 1.0, "accuracy": 1.0, "iou": 0.0}
    assert (found.metrics["iop"], found.metrics["iou"], found.failure) == (1.0, 0.0, None)
    assert found.metrics["union_iop"] == 0.0
    assert answered("B", "[(11, 11)]").metrics["iop"] == 0.0  # outside of the truth, 4..10


# ------------------------------------------------------------------------- two parts, each on its own

LETTERS = {
    "no_answer": "",
    "no_letter": "<answer>the fish</answer>",
    "ambiguous": "<answer>A or B</answer>",
    "not_an_option": "<answer>D</answer>",
}
GLUES = {
    "no_glue": "",
    "no_interval": "<glue>soon</glue>",
    "unpaired": "<glue>[(4, 10), (12)]</glue>",
    "too_many": "<glue>" + "(1, 2), " * 65 + "</glue>",
    "not_seconds": "<glue>4 to 10 frames</glue>",
    "out_of_range": "<glue>(4, 99999999)</glue>",
    "reversed": "<glue>(10, 4)</glue>",
}


@pytest.mark.parametrize("reason", GLUES)
def test_a_good_letter_keeps_its_accuracy_beside_broken_spans(reason: str) -> None:
    found = judge(f"<think>hm</think><answer>B</answer>{GLUES[reason]}")
    assert found.completion.value == GroundedAnswer("B", ParseFailure(reason))
    assert found.failure == reason
    assert found.rewards == {"format": 0.0, "accuracy": 1.0, "iou": 0.0}
    assert found.metrics == {"accuracy": 1.0} | dict.fromkeys(SPANS, 0.0)


@pytest.mark.parametrize("reason", LETTERS)
def test_good_spans_keep_their_iou_beside_a_broken_letter(reason: str) -> None:
    found = judge(f"<think>hm</think>{LETTERS[reason]}<glue>[(4, 10)]</glue>")
    assert found.completion.value == GroundedAnswer(ParseFailure(reason), (Interval(4, 10),))
    assert found.failure == reason
    form = 0.0 if reason == "no_answer" else 1.0
    assert found.rewards == {"format": form, "accuracy": 0.0, "iou": 1.0}
    assert found.metrics == {"accuracy": 0.0} | dict.fromkeys(SPANS, 1.0)


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("glue", ["no_glue", "reversed"])
def test_of_two_failures_the_letters_is_named(letter: str, glue: str) -> None:
    found = judge(f"<think>hm</think>{LETTERS[letter]}{GLUES[glue]}")
    assert found.completion.value == ParseFailure(letter)
    assert found.failure == letter
    assert found.total == 0.0
    assert set(found.metrics.values()) == {0.0}


def test_a_text_that_is_too_long_fails_in_both() -> None:
    assert judge("<answer>B</answer><glue>(4, 10)</glue>" + " " * 100_000).failure == "too_long"


def test_every_reason_of_the_parsers_is_known_to_the_task() -> None:
    assert {*LETTERS, "too_long"} == set(LETTER_FAILURES)
    assert {*GLUES, "too_long"} == set(GLUE_FAILURES)
    reasons = GroundedQATask.failure_reasons
    assert set(reasons) == {*LETTER_FAILURES, *GLUE_FAILURES}
    assert len(reasons) == len(set(reasons))


def test_the_format_depends_on_whether_thought_was_asked_for() -> None:
    answer = "<answer>B</answer><glue>[(4, 10)]</glue>"
    texts = [answer, f"<think>hm</think>{answer}", "<glue>[(4, 10)]</glue><answer>B</answer>"]
    for think, expected in ((False, [1.0, 0.0, 0.0]), (True, [0.0, 1.0, 0.0])):
        task = GroundedQATask(think=think)
        assert [found.rewards["format"] for found in task.judge(texts, [SAMPLE] * 3).result()] == expected
        assert [found.rewards["accuracy"] for found in task.judge(texts, [SAMPLE] * 3).result()] == [1.0] * 3


# ---------------------------------------------------------------------------------------------- metrics


def test_summary_by_hand() -> None:
    early, late = ask((4, 10), category="early"), ask((4, 10), category="late")
    judgements = [
        answered("B", "[(4, 10)]", early),  # IoU 1, IoP 1
        answered("B", "[(4, 16)]", early),  # IoU 6/12, IoP 6/12: right and just grounded
        answered("B", "[(0, 20)]", early),  # IoU 6/20, IoP 6/20: right, not grounded
        answered("A", "[(4, 7)]", late),  # IoU 3/6, IoP 1: grounded, not right
        answered("B", "soon", late),  # right; no spans
    ]
    task = GroundedQATask()
    assert task.summarise(judgements) == pytest.approx(
        {
            "Acc": 4 / 5,
            "mIoU": (1 + 0.5 + 0.3 + 0.5 + 0) / 5,
            "IoU@0.3": 4 / 5,
            "IoU@0.5": 3 / 5,
            "mIoP": (1 + 0.5 + 0.3 + 1 + 0) / 5,
            "IoP@0.3": 4 / 5,
            "IoP@0.5": 3 / 5,
            "Acc@GQA": 2 / 5,
            "mIoU(union)": (1 + 0.5 + 0.3 + 0.5 + 0) / 5,
            "Acc@GQA(union)": 2 / 5,
            "format": 4 / 5,
            "accuracy/early": 1.0,
            "accuracy/late": 0.5,
        }
    )
    assert task.headline in task.summarise(judgements)


def test_the_baseline_names_the_whole_video() -> None:
    # Training has B most. Whole videos of 20 s: of 4..10 it is 0.3 (right letter), of 0..15 it is 0.75
    # (wrong letter); the third has no known duration, so the video ends with its last span: 2..8 of 0..8.
    train = [ask((0, 1), letter=letter) for letter in "BAB"]
    unknown = Sample("s", "v", "q", GroundedAnswer("B", (Interval(2, 8),)), options=OPTIONS)
    found = GroundedQATask().baselines(train, [ask((4, 10)), ask((0, 15), letter="C"), unknown])
    assert found == {
        "constant": pytest.approx(
            {
                "Acc": 2 / 3,
                "mIoU": (0.3 + 0.75 + 0.75) / 3,
                "IoU@0.3": 1.0,
                "IoU@0.5": 2 / 3,
                "mIoP": (0.3 + 0.75 + 0.75) / 3,
                "IoP@0.3": 1.0,
                "IoP@0.5": 2 / 3,
                "Acc@GQA": 1 / 3,
                "mIoU(union)": (0.3 + 0.75 + 0.75) / 3,
                "Acc@GQA(union)": 1 / 3,
            }
        )
    }
