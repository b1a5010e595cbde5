"""Which annotations do not fit their video, with the tolerance worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcr1.data import TOLERANCE, misfit, oddities
from vcr1.records import GroundedAnswer, Interval, Sample
from vcr1.tasks import GroundedQATask, QATask

TASK = GroundedQATask()


def sample(*spans: tuple[float, float], duration: float | None = None) -> Sample:
    intervals = tuple(Interval(*span) for span in spans)
    return Sample("id", "folder/clip.mp4", "when?", GroundedAnswer("A", intervals), duration)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (sample((1.0, 2.0)), None),
        (sample((1.0, 8.0)), None),  # just within the tolerance of 2 s
        (
            sample((1.0, 8.01)),
            "from 1 to 8.01 s ends more than 2 s behind the end of the video, which lasts 6.00 s",
        ),
        (
            sample((45.0, 120.0)),
            "from 45 to 120 s lies behind the end of the video, which lasts 6.00 s; are these fr",
        ),
        (sample((6.0, 7.0)), "from 6 to 7 s lies behind the end"),
        (sample((1.0, 2.0), (5.0, 9.0)), "from 5 to 9 s ends more than 2 s behind"),
        (sample((1.0, 2.0), duration=6.5), None),
        (sample((1.0, 2.0), duration=8.0), None),
        (sample((1.0, 2.0), duration=8.5), "lasts 6.00 s, but 8.50 s in the annotation"),
        (sample((1.0, 2.0), duration=3.0), None),  # longer than stated: what is asked is there
    ],
)
def test_what_does_not_fit_a_video_of_six_seconds(given: Sample, words: str | None) -> None:
    found = misfit(TASK, given, 6.0)
    assert (found is None) == (words is None)
    if words is not None and found is not None:
        assert found.startswith("folder/clip.mp4: ")
        assert words in found


def test_a_long_video_may_miss_a_tenth_of_what_is_stated() -> None:
    assert misfit(TASK, sample((1.0, 2.0), duration=100.0), 90.5) is None
    assert misfit(TASK, sample((1.0, 2.0), duration=100.0), 89.5) is not None


def test_other_targets_have_no_times() -> None:
    assert misfit(QATask(), Sample("id", "clip.mp4", "what?", "A"), 1.0) is None
    assert misfit(QATask(), Sample("id", "clip.mp4", "what?", "a caption", 9.0), 1.0) is not None


def test_what_is_odd_is_counted() -> None:
    assert oddities(TASK, sample((1.0, 2.0), duration=6.0), 6.0) == []
    (late,) = oddities(TASK, sample((1.0, 7.5)), 6.0)
    assert late.startswith("targets that end up to 2 s behind the video")
    (other,) = oddities(TASK, sample((1.0, 2.0), duration=3.0), 6.0)
    assert other.startswith("durations in the annotation that differ by more than 2 s")


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0.01, 1e4))
def test_a_span_is_refused_where_and_only_where_it_leaves_the_video(
    start: float, length: float, duration: float
) -> None:
    end = start + length
    assert (misfit(TASK, sample((start, end)), duration) is None) == (
        start < duration and end <= duration + TOLERANCE
    )
