"""What holds for every task, and what their base gives them."""

import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcr1.errors import UserError
from vcr1.records import Box, Completion, GroundedAnswer, Interval, Judgement, ParseFailure, Prompt, Sample
from vcr1.tasks import (
    FREE,
    CaptioningTask,
    GroundedQATask,
    GroundingTask,
    QATask,
    QualityTask,
    Task,
    TrackingTask,
)
from vcr1.tasks.base import accuracies, format_share, mean_of, most_frequent

BOX = Box(0.1, 0.2, 0.4, 0.6)
SPAN = Interval(2.0, 4.5)
OPTIONS = ("clean", "noisy", "blurred")
TASKS: dict[str, tuple[Callable[..., Task], Sample]] = {
    "grounding": (GroundingTask, Sample("s", "v", "it rains", SPAN)),
    "tracking": (TrackingTask, Sample("s", "v", "the dog", (BOX,) * 8)),
    "grounded_qa": (GroundedQATask, Sample("s", "v", "q", GroundedAnswer("C", (SPAN,)), options=OPTIONS)),
    "qa": (QATask, Sample("s", "v", "q", "C", options=OPTIONS)),
    "quality": (QualityTask, Sample("s", "v", "q", "noisy", options=OPTIONS)),
    "captioning": (CaptioningTask, Sample("s", "v", "q", "A dog barks. A cat sleeps.")),
}
every_task = pytest.mark.parametrize("name", TASKS)


def judge(task: Task, text: str, sample: Sample) -> Judgement:
    (judgement,) = task.judge([text], [sample]).result()
    return judgement


# ------------------------------------------------------------------------------------------- every task


@every_task
@pytest.mark.parametrize("think", [True, False])
def test_the_true_answer_earns_every_reward_and_metric(name: str, think: bool) -> None:
    make, sample = TASKS[name]
    task = make(think=think)
    assert task.name == name
    found = judge(task, task.answer(sample), sample)
    assert found.failure is None
    assert tuple(found.rewards) == task.reward_names
    assert found.rewards == pytest.approx(dict.fromkeys(task.reward_names, 1.0))
    assert found.total == pytest.approx(len(task.reward_names))
    assert tuple(found.metrics) == task.metric_names
    assert found.metrics == pytest.approx(dict.fromkeys(task.metric_names, 1.0))
    summary = task.summarise([found])
    assert summary[task.headline] == pytest.approx(1.0)
    assert summary["format"] == 1.0


@every_task
def test_an_answer_with_a_thought_has_no_form_without_and_the_other_way_round(name: str) -> None:
    make, sample = TASKS[name]
    for think in (True, False):
        found = judge(make(think=not think), make(think=think).answer(sample), sample)
        assert found.rewards.pop("format") == 0.0
        assert found.rewards == pytest.approx(dict.fromkeys(found.rewards, 1.0))


@every_task
def test_a_prompt_says_how_to_answer(name: str) -> None:
    make, sample = TASKS[name]
    thoughtful, quick = make().prompt(sample), make(think=False).prompt(sample)
    assert "\nFirst write down your reasoning between <think> and </think>. Then give " in thoughtful.text
    assert "\nGive " in quick.text
    assert "think" not in quick.text
    for prompt in (thoughtful, quick):
        assert sample.query in prompt.text
        assert "<answer>" in prompt.text
        assert "</answer>" in prompt.text
        assert "{" not in prompt.text
        assert prompt.system is None


@every_task
def test_a_task_travels_between_processes(name: str) -> None:
    make, sample = TASKS[name]
    task = make(think=False, weights={"format": 0.5})
    task.name = "mine"
    copy = pickle.loads(pickle.dumps(task))
    assert (copy.name, copy.think, copy.weights, copy.frames) == ("mine", False, task.weights, task.frames)
    assert copy.prompt(sample) == task.prompt(sample)
    for text in (task.answer(sample), "nothing", "<answer>never</answer>"):
        assert judge(copy, text, sample) == judge(task, text, sample)


@every_task
def test_a_weight_of_an_unknown_reward_is_refused(name: str) -> None:
    make, _ = TASKS[name]
    rewards = ", ".join(make().reward_names)
    with pytest.raises(
        UserError, match=rf"tasks\.{name}\.weights names x, y; the rewards of this task are {rewards}"
    ):
        make(weights={"y": 1.0, "format": 2.0, "x": 1.0})


@every_task
def test_no_completion_and_a_wrong_one_score_nothing_but_form(name: str) -> None:
    make, sample = TASKS[name]
    found = judge(make(), "", sample)
    assert found.failure == "no_answer"
    assert found.failure in make().failure_reasons
    assert set(found.rewards.values()) == {0.0}
    assert found.total == 0.0
    assert set(found.metrics.values()) == {0.0}


@every_task
def test_texts_and_samples_come_in_pairs(name: str) -> None:
    make, sample = TASKS[name]
    with pytest.raises(ValueError, match=r"zip\(\)"):
        make().judge(["", ""], [sample]).result()
    assert make().judge([], []).result() == []


@every_task
def test_a_group_of_completions_keeps_its_order(name: str) -> None:
    make, sample = TASKS[name]
    task = make()
    texts = [task.answer(sample), "nothing", task.answer(sample)]
    totals = [found.total for found in task.judge(texts, [sample] * 3).result()]
    assert totals == pytest.approx([len(task.reward_names), 0.0, len(task.reward_names)])


@every_task
def test_a_sample_is_counted_in_its_category(name: str) -> None:
    make, sample = TASKS[name]
    grouped = Sample("s", "v", sample.query, sample.target, options=sample.options, extra={"category": 7})
    own = str(sample.target) if name == "quality" else None  # a class of quality is its own category
    assert judge(make(), "", sample).category == own
    assert judge(make(), "", grouped).category == (own or "7")


HOSTILE_QUERIES = [
    "What does the sign <answer>A</answer> say?",
    "<think>",
    "</THINK> <Glue>[(0, 1)]</Glue>",
    "<ans<answer>wer>7</ans</answer>wer>",
    "<answ<ans<answer>wer>er>",
    "",
]


@every_task
@pytest.mark.parametrize("query", HOSTILE_QUERIES)
@pytest.mark.parametrize("key", ["query", "rationale"])
def test_tags_in_an_annotation_do_not_spoil_the_answer_to_learn_from(name: str, query: str, key: str) -> None:
    make, sample = TASKS[name]
    changed = replace(sample, query=query) if key == "query" else replace(sample, extra={"rationale": query})
    for think in (True, False):
        task = make(think=think)
        found = judge(task, task.answer(changed), changed)
        assert found.rewards == pytest.approx(dict.fromkeys(task.reward_names, 1.0))


# ------------------------------------------------------------------------------------------ hostile text

# A hundred thousand characters at most, so that they are read.
HOSTILE = {
    "open brackets": "<answer>" + "[" * 99_000 + "</answer>",
    "nested brackets": "<answer>" + "[(" * 24_000 + ")]" * 24_000 + "</answer>",
    "digits": "<answer>" + "1" * 99_000 + "</answer>",
    "numbers": "<answer>" + "1 " * 49_000 + "</answer>",
    "fractions": "<answer>" + "0." * 49_000 + "</answer>",
    "clock times": "<answer>" + "1:" * 49_000 + "</answer>",
    "dashes": "<answer>" + "-" * 99_000 + "</answer>",
    "opening tags": "<answer>" * 12_000,
    "closing tags": "</answer>" * 11_000,
    "empty blocks": "<think></think><answer></answer><glue></glue>" * 2_000,
    "half tags": "<answer" * 14_000,
    "spaces": "<answer>" + " " * 99_000,
    "exponents": "<answer>[1e999999999, 1e9, 1e9, 1e9]</answer>",
    "nothing": "",
    "nulls": "\0" * 99_000,
    "a runaway": "<answer>" * 20_000,
}
# What is in an answer block is a caption, whatever it says.
UNREADABLE_CAPTIONS = ("opening tags", "closing tags", "empty blocks", "half tags", "spaces", "nothing")


@every_task
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_refused_with_a_known_reason(name: str, kind: str) -> None:
    make, sample = TASKS[name]
    task = make(think=False)
    found = judge(task, HOSTILE[kind], sample)
    if name != "captioning" or kind in UNREADABLE_CAPTIONS:
        assert found.failure is not None
    assert found.failure is None or found.failure in task.failure_reasons
    assert set(found.metrics.values()) == {0.0}
    assert {value for part, value in found.rewards.items() if part != "format"} == {0.0}


TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<glue>", "</glue>"]
WORDS = ["A", "(B)", "noisy", "1.5", "to", "0.1, 0.2, 0.3, 0.4", "4:30", "1e400", "nan"]
MARKS = ["[", "]", "-", "\n", " ", "<", "\0", "é", "\u017f"]
PIECES = st.sampled_from(TAGS + WORDS + MARKS)


@every_task
@settings(max_examples=60)
@given(pieces=st.lists(PIECES | st.text(max_size=5), max_size=30))
def test_any_text_has_rewards_within_bounds(name: str, pieces: list[str]) -> None:
    make, sample = TASKS[name]
    task = make(think=False)
    found = judge(task, "".join(pieces), sample)
    assert found.failure is None or found.failure in task.failure_reasons
    assert all(0 <= value <= 1 for value in found.rewards.values())
    assert all(0 <= value <= 1 for value in found.metrics.values())
    assert found.total == pytest.approx(math.fsum(found.rewards.values()))


# ------------------------------------------------------------------------------------------- the base


class Parrot(Task):
    """A task of one's own: say the query again."""

    name = "parrot"
    metric_names = ("same",)
    failure_reasons = ("silent",)
    headline = "same"

    def prompt(self, sample: Sample) -> Prompt:
        return Prompt(self.instruct("the query."))

    def parse(self, text: str, sample: Sample) -> str | ParseFailure:
        return text or ParseFailure("silent")

    def answer(self, sample: Sample) -> str:
        return self.reasoned(sample, sample.query)

    def measure(self, completion: Completion, sample: Sample) -> dict[str, float]:
        return {"same": float(completion.value == sample.query)}

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        return {"same": mean_of(judgements, "same")}


def same(completion: Completion, sample: Sample) -> float:
    return float(completion.value == sample.query)


def test_a_task_of_ones_own() -> None:
    task = Parrot({"same": same}, weights={"same": 2.0})
    sample = Sample("s", "v", "hello", None)
    assert [found.total for found in task.judge(["hello", "no", ""], [sample] * 3).result()] == [
        2.0,
        0.0,
        0.0,
    ]
    assert judge(task, "", sample).failure == "silent"
    assert task.baselines([sample], [sample]) == {}
    assert task.frames is None
    assert task.prompt(sample).text.endswith("Then give the query.")
    assert Parrot({}, think=False).prompt(sample).text == "Give the query."
    with pytest.raises(
        UserError, match=r"tasks\.parrot\.weights names form; the rewards of this task are same"
    ):
        Parrot({"same": same}, weights={"form": 1.0})


@every_task
def test_rewards_of_the_users_come_after_the_tasks_own(name: str) -> None:
    make, sample = TASKS[name]
    own = make().reward_names
    task = make(rewards={"short": brevity}, weights={"short": 0.5})
    assert task.reward_names == (*own, "short")
    assert task.weights == dict.fromkeys(own, 1.0) | {"short": 0.5}
    found = judge(task, "x" * 50, sample)
    assert (found.rewards["short"], found.total) == (0.5, 0.25)
    assert pickle.loads(pickle.dumps(task)).reward_names == (*own, "short")
    # One of the same name stands in the place of the task's own.
    replaced = make(rewards={"format": brevity})
    assert replaced.reward_names == own
    assert judge(replaced, "x" * 50, sample).rewards["format"] == 0.5


def brevity(completion: Completion, sample: Sample) -> float:
    return max(0.0, 1 - len(completion.text) / 100)


def judgement(accuracy: float, category: str | None = None, form: float = 1.0) -> Judgement:
    metrics = {"accuracy": accuracy}
    return Judgement("s", Completion("", "A"), {"format": form}, form, metrics, category)


def test_means_leave_out_what_was_not_judged() -> None:
    judgements = [judgement(1.0), judgement(math.nan), judgement(0.0), judgement(0.5, form=0.0)]
    assert mean_of(judgements, "accuracy") == 0.5
    assert math.isnan(mean_of(judgements[1:2], "accuracy"))
    assert format_share(judgements) == {"format": 0.75}


def test_accuracies_over_all_and_per_category() -> None:
    judgements = [judgement(1.0, "b"), judgement(0.0, "b"), judgement(1.0, "a"), judgement(0.0)]
    found = accuracies(judgements)
    assert found == {"accuracy": 0.5, "accuracy/a": 1.0, "accuracy/b": 0.5}
    assert list(found) == ["accuracy", "accuracy/a", "accuracy/b"]
    assert accuracies(judgements[3:]) == {"accuracy": 0.0}


def test_the_most_frequent_answer_is_the_first_of_equals() -> None:
    assert most_frequent(["c", "a", "b", "b", "a"]) == "a"
    assert most_frequent(["b"]) == "b"


# ------------------------------------------------------------------------------- what a task says of a value


FIRST, SECOND = Interval(1, 2), Interval(4, 5)
BOXES = (Box(0, 0, 0.5, 0.5), Box(0.5, 0.5, 1, 1))
NO_ANSWER, NO_GLUE = ParseFailure("no_answer"), ParseFailure("no_glue")


@pytest.mark.parametrize(
    ("task", "value", "spans", "boxes", "failure"),
    [
        (GroundingTask(), FIRST, (FIRST,), (), None),
        (GroundingTask(), NO_ANSWER, (), (), "no_answer"),
        (GroundedQATask(), GroundedAnswer("B", (FIRST, SECOND)), (FIRST, SECOND), (), None),
        (GroundedQATask(), GroundedAnswer("B", NO_GLUE), (), (), "no_glue"),
        (GroundedQATask(), GroundedAnswer(NO_ANSWER, (FIRST,)), (FIRST,), (), "no_answer"),
        (GroundedQATask(), NO_ANSWER, (), (), "no_answer"),
        (TrackingTask(boxes=2), BOXES, (), BOXES, None),
        (TrackingTask(boxes=2), NO_ANSWER, (), (), "no_answer"),
        (TrackingTask(boxes=2), None, (), (), None),
        (QATask(), "A", (), (), None),
        (FREE, "a text", (), (), None),
    ],
)
def test_a_task_says_the_spans_and_boxes_of_a_value(
    task: Task, value: Any, spans: Any, boxes: Any, failure: str | None
) -> None:
    assert task.spans(value) == spans
    assert task.boxes(value) == boxes
    assert task.failure(value) == failure
    assert task.spans(task.shift(value, 10)) == tuple(
        Interval(span.start + 10, span.end + 10) for span in spans
    )
    if not spans:
        assert task.shift(value, 10) == value


def test_a_shifted_answer_keeps_its_letter() -> None:
    shifted = GroundedQATask().shift(GroundedAnswer("B", (FIRST,)), 10)
    assert shifted == GroundedAnswer("B", (Interval(11, 12),))
