"""The captioning task: what it asks, reads, rewards and reports, by hand; judged by words."""

import math
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from vcr1.errors import UserError
from vcr1.records import EventScores, JudgedCaption, JudgeFailure, Judgement, ParseFailure, Sample
from vcr1.scoring.judges import CaptionPair
from vcr1.scoring.judges.base import Verdict
from vcr1.scoring.parsing import CAPTION_FAILURES
from vcr1.tasks import CaptioningTask

REFERENCE = "A red square appears. A blue circle appears."
SAMPLE = Sample("s", "v.mp4", " What happens? ", REFERENCE)
WORDLESS = Sample("w", "v.mp4", "What happens?", "It is.")  # no event in it: the judge gives no verdict


def judge(caption: str, sample: Sample = SAMPLE, task: CaptioningTask | None = None) -> Judgement:
    (judgement,) = (
        (task or CaptioningTask()).judge([f"<think>hm</think><answer>{caption}</answer>"], [sample]).result()
    )
    return judgement


# ------------------------------------------------------------------------------------ prompt and answer


@pytest.mark.parametrize("think", [True, False])
def test_prompt_holds_the_instruction_and_the_form(think: bool) -> None:
    text = CaptioningTask(think=think).prompt(SAMPLE).text
    assert text.startswith("What happens?\n")
    assert text.endswith("ive the description between <answer> and </answer>.")
    assert ("think" in text) == think


@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("caption", [REFERENCE, "  A dog {0} barks!\nThen\tit (a dog) sleeps; 5 < 7 > 3.  "])
def test_an_answer_reads_back_as_its_target(caption: str, think: bool) -> None:
    task = CaptioningTask(think=think)
    sample = Sample("s", "v", "What happens?", caption)
    text = task.answer(sample)
    assert task.parse(text, sample) == caption.strip()
    (found,) = task.judge([text], [sample]).result()
    assert found.rewards == {"format": 1.0, "event_recall": 1.0}
    assert found.metrics == {"event_recall": 1.0, "event_precision": 1.0, "event_f1": 1.0}


def test_the_thought_is_the_rationale_or_the_query() -> None:
    told = Sample("s", "v", "q", "A dog.", extra={"rationale": "red, blue"})
    assert CaptioningTask().answer(told) == "<think>red, blue</think><answer>A dog.</answer>"
    assert (
        CaptioningTask().answer(Sample("s", "v", "q", "A dog.")) == "<think>q</think><answer>A dog.</answer>"
    )
    assert CaptioningTask(think=False).answer(told) == "<answer>A dog.</answer>"


def test_tags_in_a_reference_do_not_spoil_the_answer_to_learn_from() -> None:
    sample = Sample("s", "v", "q", "A sign says </answer><think> hello.")
    (found,) = CaptioningTask().judge([CaptioningTask().answer(sample)], [sample]).result()
    assert found.rewards["format"] == 1.0
    assert found.completion.value.text.split() == ["A", "sign", "says", "hello."]


# ---------------------------------------------------------------------------------------------- judging


@pytest.mark.parametrize(
    ("caption", "recall", "precision", "f1"),
    [
        ("The red square appears, then the blue circle appears", 1.0, 1.0, 1.0),
        ("A red square appears.", 1 / 2, 1.0, 2 / 3),
        ("A red square appears. A dog barks.", 1 / 2, 1 / 2, 1 / 2),
        # Both events in one sentence: all is told, but the sentence is none of the reference's events.
        ("A red square and a blue circle appears.", 1.0, 0.0, 0.0),
        ("A blue circle appears; a dog barks; a cat sleeps.", 1 / 2, 1 / 3, 2 / 5),
        ("Nothing happens.", 0.0, 0.0, 0.0),
    ],
)
def test_events_by_hand(caption: str, recall: float, precision: float, f1: float) -> None:
    found = judge(caption)
    assert found.completion.value == JudgedCaption(caption, EventScores(recall, precision))
    assert found.rewards == {"format": 1.0, "event_recall": recall}
    assert list(found.rewards) == ["format", "event_recall"]
    assert found.total == 1.0 + recall
    assert found.metrics == pytest.approx(
        {"event_recall": recall, "event_precision": precision, "event_f1": f1}
    )
    assert (found.failure, found.unjudged) == (None, False)


def test_listed_events_count_instead_of_the_captions_sentences() -> None:
    # Three events are listed, one of which is told; of the two sentences told, one is the reference's.
    listed = Sample("s", "v", "q", REFERENCE, extra={"events": ("a red square", "a dog", "a cat")})
    found = judge("A red square appears. A fox.", listed)
    assert found.rewards["event_recall"] == pytest.approx(1 / 3)
    assert found.metrics["event_precision"] == 1 / 2


def test_weights_count_in_the_total_only() -> None:
    found = judge("A red square appears.", task=CaptioningTask(weights={"event_recall": 3.0}))
    assert (found.total, found.rewards) == (2.5, {"format": 1.0, "event_recall": 0.5})
    with pytest.raises(UserError, match=r"tasks\.captioning\.weights names recall; .* format, event_recall"):
        CaptioningTask(weights={"recall": 1.0})


REASONS = {
    "no_answer": (f"<think>{REFERENCE}", 0.0),
    "empty": ("<think>hm</think><answer> \n </answer>", 1.0),
    "too_long": (f"<think>hm</think><answer>{REFERENCE}</answer>" + " " * 100_000, 0.0),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_parse_failure_scores_nothing_and_says_why(reason: str) -> None:
    text, form = REASONS[reason]
    (found,) = CaptioningTask().judge([text], [SAMPLE]).result()
    assert found.completion.value == ParseFailure(reason)
    assert (found.failure, found.unjudged) == (reason, False)
    assert (found.rewards, found.total) == ({"format": form, "event_recall": 0.0}, form)
    assert found.metrics == {"event_recall": 0.0, "event_precision": 0.0, "event_f1": 0.0}


def test_every_reason_of_the_parser_is_known_to_the_task() -> None:
    assert CaptioningTask.failure_reasons == CAPTION_FAILURES
    assert set(REASONS) == set(CAPTION_FAILURES)


def test_a_judge_that_fails_leaves_the_completion_out() -> None:
    found = judge("A dog.", WORDLESS)
    assert found.completion.value == JudgedCaption("A dog.", JudgeFailure("no_events"))
    assert found.rewards["format"] == 1.0
    assert math.isnan(found.rewards["event_recall"])
    assert math.isnan(found.total)
    assert all(math.isnan(value) for value in found.metrics.values())
    assert (found.failure, found.unjudged) == (None, True)


class Clerk:
    """A judge that keeps what it was asked, and gives no verdict before it is told to."""

    def __init__(self) -> None:
        self.pairs: list[CaptionPair] = []
        self.verdicts: Future[list[Verdict]] = Future()

    def begin(self, pairs: Sequence[CaptionPair]) -> Future[list[Verdict]]:
        self.pairs += pairs
        return self.verdicts

    def finish(self) -> None:
        self.verdicts.set_result([EventScores(len(pair.prediction) / 8, math.nan) for pair in self.pairs])

    def probe(self) -> None:
        pass


def test_a_probe_reaches_the_judge() -> None:
    class Dead(Clerk):
        def probe(self) -> None:
            raise UserError("judge=endpoint: nobody answers")

    with pytest.raises(UserError, match="nobody answers"):
        CaptioningTask(Dead()).probe()
    CaptioningTask().probe()


def test_listed_events_may_come_as_a_list() -> None:
    clerk = Clerk()
    sample = Sample("s", "v", "q", REFERENCE, extra={"events": ["a dog", 7]})
    CaptioningTask(clerk).judge(["<answer>ab</answer>"], [sample])
    assert clerk.pairs == [CaptionPair(REFERENCE, "ab", ("a dog", "7"))]


def test_only_captions_are_judged_and_each_gets_its_own_verdict() -> None:
    clerk = Clerk()
    other = Sample("t", "v", "q", "A cat.", extra={"events": ("a cat",)})
    texts = ["<answer>ab</answer>", "<think>nothing", "<answer>abcd</answer>", "<answer></answer>"]
    pending = CaptioningTask(clerk, think=False).judge(texts, [SAMPLE, SAMPLE, other, other])
    assert clerk.pairs == [CaptionPair(REFERENCE, "ab"), CaptionPair("A cat.", "abcd", ("a cat",))]
    assert not pending.done()
    clerk.finish()
    judgements = pending.result()
    assert [found.sample_id for found in judgements] == ["s", "s", "t", "t"]
    assert [found.rewards["event_recall"] for found in judgements] == [0.25, 0.0, 0.5, 0.0]
    assert [found.failure for found in judgements] == [None, "no_answer", None, "empty"]
    # No precision was asked for: it is unknown, the reward is not.
    assert math.isnan(judgements[0].metrics["event_precision"])
    assert not judgements[0].unjudged


# ---------------------------------------------------------------------------------------------- metrics


def test_summary_by_hand() -> None:
    task = CaptioningTask()
    judgements = [
        judge(REFERENCE),  # 1, 1, 1
        judge("A red square appears."),  # 1/2, 1, 2/3
        judge(""),  # unreadable: 0
        judge("A dog.", WORDLESS),  # not judged: in none of the means
    ]
    judgements += task.judge(
        ["<think>A dog."], [WORDLESS]
    ).result()  # unreadable, so that there is nothing to judge
    summary = task.summarise(judgements)
    assert summary == pytest.approx(
        {
            "event recall": 1.5 / 4,
            "event precision": 2 / 4,
            "event f1": (1 + 2 / 3) / 4,
            "format": 4 / 5,
            "unjudged": 1 / 5,
        }
    )
    assert task.headline in summary


def test_without_any_verdict_there_is_no_mean() -> None:
    summary = CaptioningTask().summarise([judge("A dog.", WORDLESS)])
    assert math.isnan(summary["event recall"])
    assert (summary["unjudged"], summary["format"]) == (1.0, 1.0)


def test_the_baseline_is_the_caption_that_training_has_most() -> None:
    def samples(*captions: str) -> list[Sample]:
        return [Sample("s", "v", "q", caption) for caption in captions]

    train = samples("A dog barks.", "A red square appears.", "A red square appears.")
    # Half of the reference's events and all of its own are told; of the second sample none are.
    found = CaptioningTask().baselines(train, samples(REFERENCE, "A cat sleeps."))
    assert found == {
        "constant": pytest.approx({"event recall": 0.25, "event precision": 0.5, "event f1": 1 / 3})
    }
