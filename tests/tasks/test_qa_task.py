"""The question answering task: what it asks, reads, rewards and reports, by hand."""

from string import ascii_uppercase

import pytest

from vcr1.errors import UserError
from vcr1.records import Judgement, ParseFailure, Sample
from vcr1.scoring.parsing import LETTER_FAILURES
from vcr1.tasks import QATask

OPTIONS = ("a dog", "a cat", "a horse")
SAMPLE = Sample("s", "v.mp4", " What runs? ", "B", options=OPTIONS)


def judge(text: str, sample: Sample = SAMPLE, task: QATask | None = None) -> Judgement:
    (judgement,) = (task or QATask()).judge([text], [sample]).result()
    return judgement


# ------------------------------------------------------------------------------------ prompt and answer


@pytest.mark.parametrize("think", [True, False])
def test_prompt_lists_the_options_and_the_form(think: bool) -> None:
    text = QATask(think=think).prompt(SAMPLE).text
    assert text.startswith("What runs?\n(A) a dog\n(B) a cat\n(C) a horse\n")
    assert "for example <answer>B</answer>." in text
    assert ("think" in text) == think


@pytest.mark.parametrize("think", [True, False])
def test_every_letter_reads_back_as_its_target(think: bool) -> None:
    task = QATask(think=think)
    for letter in ascii_uppercase:
        sample = Sample("s", "v", "What is it? A or B?", letter, options=tuple(ascii_uppercase))
        text = task.answer(sample)
        assert task.parse(text, sample) == letter
        assert judge(text, sample, task).rewards == {"format": 1.0, "accuracy": 1.0}


def test_the_thought_is_the_rationale_or_the_query() -> None:
    assert QATask().answer(SAMPLE) == "<think>What runs?</think><answer>B</answer>"
    told = Sample("s", "v", "q", "A", options=OPTIONS, extra={"rationale": "it barks"})
    assert QATask().answer(told) == "<think>it barks</think><answer>A</answer>"
    assert QATask(think=False).answer(told) == "<answer>A</answer>"


# ---------------------------------------------------------------------------------------------- judging


def test_rewards_of_a_completion() -> None:
    found = judge("<think>hm</think><answer>(B) a cat</answer>")
    assert (found.sample_id, found.completion.value, found.failure) == ("s", "B", None)
    assert found.rewards == {"format": 1.0, "accuracy": 1.0}
    assert list(found.rewards) == ["format", "accuracy"]
    assert (found.total, found.metrics) == (2.0, {"accuracy": 1.0})
    wrong = judge("<think>hm</think><answer>C</answer>")
    assert (wrong.rewards, wrong.total) == ({"format": 1.0, "accuracy": 0.0}, 1.0)
    bare = judge("<answer>B</answer>")
    assert (bare.rewards, bare.metrics) == ({"format": 0.0, "accuracy": 1.0}, {"accuracy": 1.0})


def test_weights_count_in_the_total_only() -> None:
    found = judge("<answer>B</answer>", task=QATask(think=False, weights={"accuracy": 2.5, "format": 0.5}))
    assert (found.total, found.rewards) == (3.0, {"format": 1.0, "accuracy": 1.0})
    with pytest.raises(UserError, match=r"tasks\.qa\.weights names iou; .* are format, accuracy"):
        QATask(weights={"iou": 1.0})


REASONS = {
    "no_answer": ("<think>B", 0.0),
    "no_letter": ("<think>hm</think><answer>a fish runs</answer>", 1.0),
    "ambiguous": ("<think>hm</think><answer>A or B</answer>", 1.0),
    "not_an_option": ("<think>hm</think><answer>D</answer>", 1.0),
    "too_long": ("<think>hm</think><answer>B</answer>" + " " * 100_000, 0.0),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_parse_failure_scores_nothing_and_says_why(reason: str) -> None:
    text, form = REASONS[reason]
    found = judge(text)
    assert found.completion.value == ParseFailure(reason)
    assert found.failure == reason
    assert (found.rewards, found.total) == ({"format": form, "accuracy": 0.0}, form)
    assert found.metrics == {"accuracy": 0.0}


def test_every_reason_of_the_parser_is_known_to_the_task() -> None:
    assert QATask.failure_reasons == LETTER_FAILURES
    assert set(REASONS) == set(LETTER_FAILURES)


def test_the_options_of_the_sample_decide_what_is_one() -> None:
    two = Sample("s", "v", "q", "A", options=OPTIONS[:2])
    assert judge("<answer>C</answer>", two).failure == "not_an_option"
    assert judge("<answer>C</answer>").failure is None


# ---------------------------------------------------------------------------------------------- metrics


def test_summary_by_hand() -> None:
    def ask(category: str | None) -> Sample:
        extra = {} if category is None else {"category": category}
        return Sample("s", "v", "q", "B", options=OPTIONS, extra=extra)

    good, bad = "<think>hm</think><answer>B</answer>", "<think>hm</think><answer>A</answer>"
    asked = [(good, "what"), (bad, "what"), ("B", "what"), (good, "how"), ("<answer>B</answer>", None)]
    judgements = [judge(text, ask(category)) for text, category in asked]
    assert [found.category for found in judgements] == ["what", "what", "what", "how", None]
    task = QATask()
    assert task.summarise(judgements) == pytest.approx(
        {"accuracy": 4 / 5, "accuracy/how": 1.0, "accuracy/what": 2 / 3, "format": 3 / 5}
    )
    assert task.headline == "accuracy"
    assert set(task.summarise(judgements[4:])) == {"accuracy", "format"}


def test_the_baseline_is_the_letter_that_training_has_most() -> None:
    def sample(letter: str) -> Sample:
        return Sample("s", "v", "q", letter, options=OPTIONS)

    train, test = [*map(sample, "CBBA")], [*map(sample, "BACB")]
    assert QATask().baselines(train, test) == {"constant": {"accuracy": 0.5}}
    # Of equals the first: C.
    assert QATask().baselines([*map(sample, "CBBC")], test) == {"constant": {"accuracy": 0.25}}
