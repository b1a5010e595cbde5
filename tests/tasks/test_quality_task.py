"""The quality task: what it asks, reads, rewards and reports, by hand."""

import pytest

from vcr1.errors import UserError
from vcr1.records import Judgement, ParseFailure, Sample
from vcr1.scoring.parsing import CLASS_FAILURES
from vcr1.tasks import QualityTask

NAMES = ("low quality", "high quality", "quality {0}")
SAMPLE = Sample("s", "v.mp4", " How good is it? ", "low quality", options=NAMES)


def judge(text: str, sample: Sample = SAMPLE, task: QualityTask | None = None) -> Judgement:
    (judgement,) = (task or QualityTask()).judge([text], [sample]).result()
    return judgement


@pytest.mark.parametrize("think", [True, False])
def test_prompt_names_the_classes_in_the_form(think: bool) -> None:
    text = QualityTask(think=think).prompt(SAMPLE).text
    assert text.startswith("How good is it?\n")
    assert "and </answer>: low quality, high quality, quality {0}." in text
    assert ("think" in text) == think


@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("target", NAMES)
def test_an_answer_reads_back_as_its_target(target: str, think: bool) -> None:
    task = QualityTask(think=think)
    sample = Sample("s", "v", "low quality or high quality?", target, options=NAMES)
    text = task.answer(sample)
    assert task.parse(text, sample) == target
    assert judge(text, sample, task).rewards == {"format": 1.0, "accuracy": 1.0}


def test_rewards_of_a_completion() -> None:
    found = judge("<think>hm</think><answer>It is of Low\nQUALITY.</answer>")
    assert (found.completion.value, found.failure) == ("low quality", None)
    assert (found.rewards, found.total) == ({"format": 1.0, "accuracy": 1.0}, 2.0)
    assert list(found.rewards) == ["format", "accuracy"]
    assert found.metrics == {"accuracy": 1.0}
    wrong = judge("<answer>high quality</answer>", task=QualityTask(think=False, weights={"format": 0.5}))
    assert (wrong.rewards, wrong.total) == ({"format": 1.0, "accuracy": 0.0}, 0.5)
    with pytest.raises(UserError, match=r"tasks\.quality\.weights names formal; .* are format, accuracy"):
        QualityTask(weights={"formal": 1.0})


REASONS = {
    "no_answer": ("<think>low quality", 0.0),
    "no_class": ("<think>hm</think><answer>good</answer>", 1.0),
    "ambiguous": ("<think>hm</think><answer>low quality or high quality</answer>", 1.0),
    "too_long": ("<think>hm</think><answer>low quality</answer>" + " " * 100_000, 0.0),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_parse_failure_scores_nothing_and_says_why(reason: str) -> None:
    text, form = REASONS[reason]
    found = judge(text)
    assert found.completion.value == ParseFailure(reason)
    assert (found.failure, found.category) == (reason, "low quality")
    assert (found.rewards, found.total) == ({"format": form, "accuracy": 0.0}, form)
    assert found.metrics == {"accuracy": 0.0}


def test_every_reason_of_the_parser_is_known_to_the_task() -> None:
    assert QualityTask.failure_reasons == CLASS_FAILURES
    assert set(REASONS) == set(CLASS_FAILURES)


def test_each_true_class_is_counted_by_itself() -> None:
    low, high = SAMPLE, Sample("t", "v", "q", "high quality", options=NAMES)
    says_low, says_high = "<think></think><answer>low quality</answer>", "<answer>high quality</answer>"
    judgements = [judge(says_low, low), judge(says_high, low), judge("?", low), judge(says_high, high)]
    assert QualityTask().summarise(judgements) == pytest.approx(
        {"accuracy": 0.5, "accuracy/high quality": 1.0, "accuracy/low quality": 1 / 3, "format": 0.25}
    )
    assert QualityTask.headline == "accuracy"


def test_the_baseline_is_the_class_that_training_has_most() -> None:
    def samples(*names: str) -> list[Sample]:
        return [Sample("s", "v", "q", name, options=NAMES) for name in names]

    train, test = samples("low quality", *2 * ["high quality"]), samples(*3 * ["low quality"], "high quality")
    assert QualityTask().baselines(train, test) == {"constant": {"accuracy": 0.25}}
