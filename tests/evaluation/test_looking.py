"""Further looks in an evaluation: what they score, what they cost, and how they are kept."""

import json
from dataclasses import replace

import pytest

from vcr1.errors import UserError
from vcr1.evaluation import AnswerRecord, Benchmark, check_plan, metrics_of
from vcr1.evaluation.looking import LookedAnswer, answer_seen, first_looks
from vcr1.inference.clues import CluePlan, Look
from vcr1.readers import Annotations
from vcr1.records import Interval, ParseFailure, Sample
from vcr1.tasks import GroundingTask, QATask, Task
from vcr1.video import FrameBudget

SAMPLE = Sample("s", "a.mp4", "it", Interval(22.0, 24.0), 60.0)


def benchmark(task: Task) -> Benchmark:
    return Benchmark("b", task.name, "val", task, Annotations("here", [SAMPLE]), FrameBudget(max_frames=40))


def written(span: Interval | None, part: Interval) -> str:
    """An answer in the times of the part."""
    return f"<answer>{span.start - part.start} to {span.end - part.start}</answer>" if span else ""


def seen(*spans: Interval | None) -> LookedAnswer:
    """Looks at the whole and at 20 to 30 s, with what they name; None names nothing."""
    parts = [Interval(0.0, 60.0), Interval(20.0, 30.0)]
    looks = tuple(
        Look(part, 8, 4, written(span, part), (span,) if span else ())
        for part, span in zip(parts, spans, strict=True)
    )
    chosen = 1 if spans[1] else 0
    value = spans[chosen] or ParseFailure("no_answer")
    return LookedAnswer(looks[chosen].text, value, looks, "two looks agree")


def test_the_last_look_counts_and_the_first_is_kept() -> None:
    answer = answer_seen(benchmark(GroundingTask()), SAMPLE, seen(Interval(20, 24), Interval(22, 24)))
    assert (answer.scores["mIoU"], answer.value, answer.completion) == (
        1.0,
        [22, 24],
        "<answer>2.0 to 4.0</answer>",
    )
    assert answer.trace is not None
    assert answer.trace["first_scores"]["mIoU"] == 0.5  # 22 to 24 of 20 to 24
    assert (answer.trace["decided"], answer.shown_from) == (1, 20.0)
    assert [look["part"] for look in answer.trace["looks"]] == [[0.0, 60.0], [20.0, 30.0]]
    assert AnswerRecord.from_json(json.loads(answer.line())) == answer


def test_a_look_that_names_nothing_does_not_count() -> None:
    answer = answer_seen(benchmark(GroundingTask()), SAMPLE, seen(Interval(20, 24), None))
    assert (answer.scores["mIoU"], answer.failure) == (0.5, None)
    assert answer.trace is not None
    assert (answer.trace["decided"], answer.shown_from) == (0, 0.0)


def test_the_gain_is_over_all_samples_and_the_cost_over_those_shown() -> None:
    one = answer_seen(benchmark(GroundingTask()), SAMPLE, seen(Interval(20, 24), Interval(22, 24)))
    lost = AnswerRecord("b", "t", 0, "", "", None, None, {"mIoU": 0.0}, "missing_video", None, 0.0)
    looks = metrics_of([one, lost])["looks"]
    assert (looks["per_question"], looks["vision_tokens"]) == (2.0, 8.0)
    assert looks["stopped"] == {"two looks agree": 1}
    gain = looks["metrics"]["mIoU"]
    assert (gain["first"], gain["second"], gain["difference"]) == (0.25, 0.5, 0.25)
    assert (gain["low"], gain["high"]) == (0.0, 0.5)
    assert "looks" not in metrics_of([replace(one, trace=None), lost])
    assert "trace" not in json.loads(lost.line())


def test_paths_do_not_come_into_the_counts() -> None:
    stopped = replace(seen(Interval(20, 24), None), stopped="the part cannot be shown: videos/a.mp4: torn")
    answers = [answer_seen(benchmark(GroundingTask()), SAMPLE, stopped)]
    assert metrics_of(answers)["looks"]["stopped"] == {"the part cannot be shown": 1}


def test_the_first_look_may_cost_its_share() -> None:
    (one,) = first_looks([benchmark(GroundingTask())], CluePlan(rounds=1, first=0.25))
    assert one.budget.max_frames == 10
    assert first_looks([benchmark(GroundingTask())], CluePlan())[0].budget.max_frames == 40


def test_a_benchmark_without_times_is_named() -> None:
    both = [benchmark(GroundingTask()), replace(benchmark(QATask()), name="mvbench")]
    check_plan(both, CluePlan(), 4)
    check_plan(both[:1], CluePlan(rounds=1), 1)
    with pytest.raises(UserError, match=r"^clues=1: the answers of mvbench \(qa\) name no times"):
        check_plan(both, CluePlan(rounds=1), 1)
    with pytest.raises(UserError, match=r"^clues=1 with evaluation\.draws=4"):
        check_plan(both[:1], CluePlan(rounds=1), 4)
