"""The synthetic world as a data set: what each task is asked about a clip, against the clip itself."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcr1.errors import UserError
from vcr1.readers import read_synthetic
from vcr1.readers.synthetic import ask_about, show_part
from vcr1.readers.synthetic_questions import QUESTIONS, AskingStyle
from vcr1.records import Box, GroundedAnswer, Interval, Sample
from vcr1.tasks import CaptioningTask, GroundedQATask, GroundingTask, QATask, QualityTask, Task, TrackingTask
from vcr1.video import COLORS, DIRECTIONS, SHAPES, WORLDS, ClipSpec, ShapeEvent

RED = ShapeEvent("red", "square", start=1.0, end=2.5, x=40, y=60, vx=0, vy=0, radius=20)
BLUE = ShapeEvent("blue", "circle", start=0.5, end=3.0, x=60, y=60, vx=0, vy=0, radius=20)
CLIP = ClipSpec(duration=4.0, background=(30, 30, 30), noise_seed=0, events=(RED, BLUE))
MOTION = ClipSpec(
    duration=8.0,
    background=(30, 30, 30),
    noise_seed=0,
    events=(ShapeEvent("green", "triangle", 0.0, 8.0, x=28, y=56, vx=7, vy=0, radius=14),),
)
TASKS: dict[str, Task] = {
    "grounding": GroundingTask(),
    "tracking": TrackingTask(),
    "grounded_qa": GroundedQATask(),
    "qa": QATask(),
    "captioning": CaptioningTask(),
    "quality": QualityTask(),
}
seeds = st.integers(0, 2**32)


def ask(spec: ClipSpec, task: str, kind: str = "events", seed: int = 0, loosen: float = 0.0) -> list[Sample]:
    return ask_about(spec, task, kind, "v.mp4", "c", random.Random(seed), AskingStyle(loosen))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("worlds"))


# ----------------------------------------------------------------------------------------- a data set


@pytest.mark.parametrize("task", TASKS)
def test_samples_have_stable_ids_of_their_own(folder: str, task: str) -> None:
    first, again = (read_synthetic(folder, "train", 3, 1, task) for _ in range(2))
    assert first.samples == again.samples
    ids = [sample.id for sample in first.samples]
    assert len(set(ids)) == len(ids) >= 2
    assert first.source == "synthetic train"
    assert all(Path(str(sample.video)).is_file() for sample in first.samples)
    assert all(sample.duration == sample.extra["spec"].duration for sample in first.samples)
    assert read_synthetic(folder, "train", 3, 1, task, limit=2).samples == first.samples[:2]


def test_a_larger_data_set_begins_with_the_smaller_one(folder: str) -> None:
    for task in TASKS:
        smaller = read_synthetic(folder, "train", 2, 1, task).samples
        larger = {sample.id: sample for sample in read_synthetic(folder, "train", 3, 1, task).samples}
        for sample in smaller:
            same = larger[sample.id]
            assert (sample.query, sample.target, sample.options) == (same.query, same.target, same.options)


def test_ids_tell_split_and_kind(folder: str) -> None:
    def ids(task: str) -> list[str]:
        return [sample.id for sample in read_synthetic(folder, "val", 1, 1, task).samples]

    assert ids("grounding") == ["val-00000-0", "val-00000-1"]
    assert ids("tracking") == ["val-motion-00000-0"]
    assert ids("quality") == ["val-quality-00000-0"]
    assert ids("qa") == ["val-00000-0", "val-00000-1", "val-motion-00000-0"]


def test_other_seeds_ask_about_other_clips(folder: str) -> None:
    specs = [[s.extra["spec"] for s in read_synthetic(folder, "val", 1, seed).samples] for seed in (1, 2)]
    assert specs[0] != specs[1]


def test_what_cannot_be_read_is_refused(folder: str) -> None:
    with pytest.raises(UserError, match="task=counting is none of grounding, tracking, grounded_qa, qa, "):
        read_synthetic(folder, "val", 1, 1, "counting")
    for task in ("grounded_qa", "qa", "captioning", "quality"):
        with pytest.raises(UserError, match=rf"loosen=0\.5 cannot be done for {task}"):
            read_synthetic(folder, "val", 1, 1, task, loosen=0.5)
    for task in ("grounding", "tracking"):
        with pytest.raises(UserError, match=rf"loosen=-0\.5 cannot be done for {task}"):
            read_synthetic(folder, "val", 1, 1, task, loosen=-0.5)
    with pytest.raises(UserError, match=r"loosen=0\.3 is no number of half seconds"):
        read_synthetic(folder, "val", 1, 1, loosen=0.3)

    with pytest.raises(UserError, match=r"world=motion is no world that grounding asks about; there is long"):
        read_synthetic(folder, "val", 1, 1, world="motion")
    with pytest.raises(UserError, match=r"world=long is no world that tracking asks about"):
        read_synthetic(folder, "val", 1, 1, "tracking", world="long")
    for parts in ([4], [6, 4], [0, 4]):
        with pytest.raises(UserError, match=r"parts=\[.*\]: the fewest and the most seconds of a part"):
            read_synthetic(folder, "val", 1, 1, parts=parts)
    for more in ({"draws": 0, "parts": [4, 8]}, {"draws": 2}):
        with pytest.raises(UserError, match=r"draws=\d: as many parts of each question"):
            read_synthetic(folder, "val", 1, 1, **more)
    with pytest.raises(UserError, match="for task=grounding"):
        read_synthetic(folder, "val", 1, 1, "captioning", parts=[4, 8])


def test_long_clips_are_asked_about_as_others_are(folder: str) -> None:
    whole = read_synthetic(folder, "val", 1, 1, world="long").samples
    assert [sample.id for sample in whole] == [f"val-long-00000-{number}" for number in range(4)]
    assert {sample.duration for sample in whole} <= {60.0, 70.0, 80.0}
    assert all(3 <= sample.target.length <= 5 for sample in whole)
    (question,) = read_synthetic(folder, "val", 1, 1, "grounded_qa", world="long").samples
    assert len(question.options) == 4


@given(seed=seeds, seconds=st.sampled_from([(0.5, 2.0), (2.0, 2.0), (1.5, 4.0), (9.0, 12.0)]))
def test_a_part_holds_its_event_and_counts_from_its_own_start(
    seed: int, seconds: tuple[float, float]
) -> None:
    (sample, _) = ask_about(CLIP, "grounding", "events", "a.mp4", "x", random.Random(0))
    part = show_part(sample, seconds, 3, random.Random(seed))
    source = part.source
    assert part.id == "x-0-part3"
    assert source.end is not None
    assert 0 <= source.start < source.end <= CLIP.duration
    # The event takes 1.5 s, the clip 4.
    assert (
        min(max(seconds[0], 1.5), 4.0) <= part.duration == source.end - source.start <= max(seconds[1], 1.5)
    )
    assert (source.start + part.target.start, source.start + part.target.end) == (1.0, 2.5)
    assert 0 <= part.target.start < part.target.end <= part.duration
    event = part.extra["spec"].events[0]
    assert (event.start, event.end) == (part.target.start, part.target.end)


def test_parts_are_drawn_anew_for_each_draw(folder: str) -> None:
    found = read_synthetic(folder, "val", 2, 1, world="long", parts=[4, 12], draws=3).samples
    assert len({sample.id for sample in found}) == 2 * 4 * 3
    assert len({sample.source for sample in found}) > 2 * 4
    assert found == read_synthetic(folder, "val", 2, 1, world="long", parts=[4, 12], draws=3).samples


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=30)
@given(seed=seeds)
def test_every_true_answer_earns_all_rewards(task: str, seed: int) -> None:
    judge = TASKS[task]
    for kind in QUESTIONS[task]:
        spec = WORLDS[kind](random.Random(seed))
        for sample in ask(spec, task, kind, seed):
            (found,) = judge.judge([judge.answer(sample)], [sample]).result()
            assert found.rewards == pytest.approx(dict.fromkeys(judge.reward_names, 1.0), abs=0.02)
            assert found.rewards["format"] == 1.0


# ------------------------------------------------------------------------------------------ grounding


def test_grounding_asks_when_each_shape_appears() -> None:
    first, second = ask(CLIP, "grounding")
    assert (first.id, first.query, first.target) == ("c-0", "the red square appears", Interval(1.0, 2.5))
    assert (second.id, second.query, second.target) == ("c-1", "the blue circle appears", Interval(0.5, 3.0))
    assert (first.extra["rationale"], first.duration, first.video) == ("red", 4.0, "v.mp4")


def test_a_careless_annotator_of_times_only_adds() -> None:
    starts, ends = set(), set()
    for seed in range(100):
        target = ask(CLIP, "grounding", seed=seed, loosen=1.5)[0].target
        starts.add(target.start)
        ends.add(target.end)
    # By half seconds, up to 1.5 s, and not out of the video: 1.0 can lose one second only.
    assert starts == {0.0, 0.5, 1.0}
    assert ends == {2.5, 3.0, 3.5, 4.0}


# ------------------------------------------------------------------------------------------- tracking


def test_tracking_asks_where_the_shape_is_in_eight_frames() -> None:
    (sample,) = ask(MOTION, "tracking", "motion")
    assert (sample.id, sample.query) == ("c-0", "the green triangle")
    assert sample.extra["rationale"] == "right"
    # 32 frames at 4 a second; of them the i-th of eight is 31 * i / 7, rounded: the shape has moved
    # 7 / 4 pixels a frame from 28, and fills 14 to each side.
    frames = [0, 4, 9, 13, 18, 22, 27, 31]
    for box, frame in zip(sample.target, frames, strict=True):
        center = 28 + frame * 7 / 4
        expected = [(center - 14) / 112, 42 / 112, (center + 14) / 112, 70 / 112]
        assert [box.x0, box.y0, box.x1, box.y1] == pytest.approx(expected)
    assert sample.extra["first_box"] == sample.target[0]


@given(seed=seeds)
def test_a_careless_annotator_of_boxes_moves_the_same_edges_outwards(seed: int) -> None:
    spec = WORLDS["motion"](random.Random(seed))
    (exact,), (loose,) = (ask(spec, "tracking", "motion", seed, loosen) for loosen in (0.0, 0.1))
    assert loose.extra["first_box"] == exact.extra["first_box"] == exact.target[0]
    assert len(loose.target) == len(exact.target) == 8
    for edge, by in (("x0", -0.1), ("y0", -0.1), ("x1", 0.1), ("y1", 0.1)):
        ours = [getattr(box, edge) for box in exact.target]
        theirs = [getattr(box, edge) for box in loose.target]
        moved = [min(max(value + by, 0.0), 1.0) for value in ours]
        assert theirs == pytest.approx(ours) or theirs == pytest.approx(moved)


def test_every_edge_is_moved_about_half_of_the_times() -> None:
    (exact,) = ask(MOTION, "tracking", "motion")
    moved = [0, 0, 0, 0]
    for seed in range(200):
        (loose,) = ask(MOTION, "tracking", "motion", seed, loosen=0.05)
        a, b = exact.target[0], loose.target[0]
        edges = ((a.x0, b.x0), (a.y0, b.y0), (a.x1, b.x1), (a.y1, b.y1))
        moved = [count + (ours != theirs) for count, (ours, theirs) in zip(moved, edges, strict=True)]
    assert all(60 < count < 140 for count in moved)  # five standard deviations around 100 and more


def test_loosened_boxes_stay_in_the_frame() -> None:
    for seed in range(20):
        (sample,) = ask(MOTION, "tracking", "motion", seed, loosen=0.9)
        for box in sample.target:
            assert 0 <= box.x0 < box.x1 <= 1
            assert 0 <= box.y0 < box.y1 <= 1
            assert isinstance(box, Box)


# ------------------------------------------------------------------------------------------ questions


def right_option(sample: Sample) -> str:
    letter = sample.target.letter if isinstance(sample.target, GroundedAnswer) else sample.target
    return sample.options["ABCD".index(letter)]


def tells(sample: Sample) -> str:
    """What the rationale says first; where it goes through the options, it ends with the right one."""
    lines = str(sample.extra["rationale"]).splitlines()
    assert lines[-1].endswith(lines[0])
    return lines[0]


def test_grounded_qa_asks_which_colour_and_when() -> None:
    seen = set()
    for seed in range(40):
        (sample,) = ask(CLIP, "grounded_qa", seed=seed)
        # Blue comes at 0.5 s, red at 1 s.
        place = sample.extra["category"]
        event = {"first": BLUE, "last": RED}[place]
        assert sample.query == f"What color appears {place}, and when?"
        assert right_option(sample) == tells(sample) == event.color
        assert sample.target.intervals == (Interval(event.start, event.end),)
        assert len(set(sample.options)) == len(sample.options) == 4
        assert set(sample.options) == set(COLORS)
        seen.add((place, sample.target.letter))
    assert {letter for _, letter in seen} == set("ABCD")
    assert {place for place, _ in seen} == {"first", "last"}


def test_qa_asks_for_colour_and_form() -> None:
    for seed in range(20):
        color, shape = ask(CLIP, "qa", seed=seed)
        for sample, category, values in ((color, "color", set(COLORS)), (shape, "shape", set(SHAPES))):
            place = sample.query.removeprefix(f"What {category} appears ").removesuffix("?")
            event = {"first": BLUE, "last": RED}[place]
            assert right_option(sample) == getattr(event, category) == tells(sample)
            assert sample.extra["category"] == category
            assert set(sample.options) == values
            assert len(sample.options) == len(values)  # four colours, three shapes
        assert (color.id, shape.id) == ("c-0", "c-1")


def test_a_hint_says_what_is_right_in_its_share_of_the_questions(folder: str) -> None:
    for task in ("qa", "grounded_qa"):
        plain = read_synthetic(folder, "val", 20, 1, task).samples
        told = read_synthetic(folder, "val", 20, 1, task, hint=0.5).samples
        hinted = 0
        for sample, other in zip(plain, told, strict=True):
            if other.query != sample.query:
                assert other.query == f"It is {right_option(sample)}. {sample.query}"
                hinted += 1
            assert replace(other, query=sample.query) == sample
        assert 0.3 < hinted / len(told) < 0.7
        everything = read_synthetic(folder, "val", 20, 1, task, hint=1.0).samples
        assert all(sample.query.startswith("It is ") for sample in everything)
    for task, share in (("grounding", 0.5), ("qa", 1.5), ("qa", -0.1)):
        with pytest.raises(UserError, match=rf"hint={share}: a share between 0 and 1, for qa or grounded_qa"):
            read_synthetic(folder, "val", 1, 1, task, hint=share)


def test_qa_asks_which_way_a_shape_moves() -> None:
    (sample,) = ask(MOTION, "qa", "motion")
    assert sample.query == "Which way does the shape move?"
    assert right_option(sample) == tells(sample) == "right"
    assert set(sample.options) == set(DIRECTIONS)
    assert sample.extra["category"] == "direction"


def test_what_begins_together_has_no_first_and_last() -> None:
    together = ClipSpec(4.0, (30, 30, 30), 0, (RED, ShapeEvent("blue", "circle", 1.0, 3.0, 60, 60, 0, 0, 20)))
    assert ask(together, "grounded_qa") == []
    assert ask(together, "qa") == []
    assert len(ask(together, "grounding")) == 2
    # A caption tells the one that ends earlier first.
    (caption,) = ask(together, "captioning")
    assert caption.target == "a red square appears. a blue circle appears."


def test_captioning_tells_all_in_order() -> None:
    (sample,) = ask(CLIP, "captioning")
    assert sample.query == "What happens in the video, in order?"
    assert sample.target == "a blue circle appears. a red square appears."
    assert sample.extra["events"] == ("a blue circle appears", "a red square appears")
    assert sample.extra["rationale"] == "blue, red"


@pytest.mark.parametrize("degradation", ["clean", "noisy", "blurred"])
def test_quality_asks_for_the_camera(degradation: str) -> None:
    spec = ClipSpec(4.0, (30, 30, 30), 0, (RED, BLUE), degradation)
    (sample,) = ask(spec, "quality", "quality")
    assert sample.options == ("clean", "noisy", "blurred")
    assert sample.target == sample.extra["rationale"] == degradation
    assert sample.query == "How good is the picture of this video?"


def test_the_table_of_tasks_and_clips() -> None:
    assert {task: list(QUESTIONS[task]) for task in TASKS} == {
        "grounding": ["events"],
        "tracking": ["motion"],
        "grounded_qa": ["events"],
        "qa": ["events", "motion"],
        "captioning": ["events"],
        "quality": ["quality"],
    }
