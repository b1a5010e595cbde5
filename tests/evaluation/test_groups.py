"""Which questions are answered together, and which of them still wait."""

from dataclasses import replace

from vcr1.evaluation import AnswerRecord, Benchmark, form_groups, pending
from vcr1.readers import Annotations
from vcr1.records import Interval, Sample
from vcr1.tasks import GroundingTask
from vcr1.video import FrameBudget


def benchmark(*rows: tuple[str, str, float]) -> Benchmark:
    """Samples by id, video and seconds."""
    samples = [Sample(id_, video, "it", Interval(0.0, 1.0), seconds) for id_, video, seconds in rows]
    annotations = Annotations("here", samples)
    return Benchmark("b", "grounding", "val", GroundingTask(), annotations, FrameBudget())


ROWS = (("a", "short.mp4", 4.0), ("b", "long.mp4", 60.0), ("c", "short.mp4", 4.0), ("d", "middle.mp4", 20.0))


def answer(id_: str, draw: int = 0, failure: str | None = None) -> AnswerRecord:
    return AnswerRecord("b", id_, draw, "", "", None, None, {}, failure, None, 0.0)


def test_questions_of_one_video_stay_together_and_the_longest_come_first() -> None:
    one = benchmark(*ROWS)
    ids = [[one.samples[place].id for place in group.places] for group in form_groups([one], 2)]
    assert ids == [["b", "d"], ["a", "c"]]
    assert [group.benchmark for group in form_groups([one, one], 4)] == [0, 1]  # one benchmark to a group


def test_a_group_waits_until_all_of_it_is_answered() -> None:
    one = benchmark(*ROWS)
    groups = form_groups([one], 2)
    done = {found.key: found for found in (answer("b"), answer("a"), answer("c"))}
    assert pending(groups, [one], 1, done) == groups[:1]
    lost = replace(answer("d"), failure="unreadable_video")
    assert pending(groups, [one], 1, done | {lost.key: lost}) == []
    again = replace(answer("d"), failure="not_generated")
    assert pending(groups, [one], 1, done | {again.key: again}) == groups[:1]


def test_all_draws_must_be_there_but_for_lost_videos() -> None:
    one = benchmark(("a", "x.mp4", 4.0), ("b", "y.mp4", 4.0))
    groups = form_groups([one], 2)
    lost = answer("b", failure="missing_video")
    first = {found.key: found for found in (answer("a"), lost)}
    assert pending(groups, [one], 2, first) == groups
    assert pending(groups, [one], 2, first | {("b", "a", 1): answer("a", draw=1)}) == []
