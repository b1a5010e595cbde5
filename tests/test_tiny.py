"""The embedded model: how it is built, what it carries, how it gets its eyes."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vcr1
from vcr1.data import VideoDataset
from vcr1.policy import VideoPolicy, load_policy
from vcr1.records import Batch, Box, Interval, Sample, VideoClip
from vcr1.scoring.parsing import format_boxes
from vcr1.tasks import GroundingTask
from vcr1.tiny import DenseVideoLabels, build_policy
from vcr1.tiny.pretraining import label, token_spans
from vcr1.video import (
    COLORS,
    DEGRADATIONS,
    DIRECTIONS,
    SHAPES,
    ClipSpec,
    FrameBudget,
    ShapeEvent,
    write_clip,
)

torch.set_num_threads(1)

BUDGET = FrameBudget(min_pixels=28 * 28, total_pixels=28 * 28)
ASSET = Path(vcr1.__file__).parent / "assets" / "tiny"


@pytest.fixture(scope="module")
def fresh() -> VideoPolicy:
    return build_policy(seed=0)


@pytest.fixture(scope="module")
def trained() -> VideoPolicy:
    return load_policy("builtin:tiny", dtype="float32")


def event(color: str, start: float, end: float) -> ShapeEvent:
    return ShapeEvent(color, "square", start, end, x=50, y=50, vx=0, vy=0, radius=20)


@pytest.fixture(scope="module")
def batch(fresh: VideoPolicy, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """A clip of 4 s with red from 0 to 1.5 s and blue from 1 to 2 s, and an empty one of 6 s."""
    folder = tmp_path_factory.mktemp("clips")
    samples = []
    for name, duration, events in (
        ("busy", 4.0, (event("red", 0.0, 1.5), event("blue", 1.0, 2.0))),
        ("empty", 6.0, ()),
    ):
        spec = ClipSpec(duration, (30, 30, 30), 0, events)
        write_clip(spec, folder / f"{name}.mp4")
        extra = {"rationale": "red", "spec": spec}
        samples.append(
            Sample(name, str(folder / f"{name}.mp4"), "the red square appears", Interval(0, 1.5), extra=extra)
        )
    dataset = VideoDataset(samples, GroundingTask(), fresh.encoder, BUDGET, fresh.encoder.grid)
    return dataset.collate([dataset[0], dataset[1]])


def only(batch: Batch, place: int) -> Batch:
    return Batch(batch.task, [batch.samples[place]], [batch.clips[place]], [batch.inputs[place]], [])


def hidden(policy: VideoPolicy, batch: Batch) -> Tensor:
    """Last hidden states of the prompts, as supervised fine-tuning hands them on."""
    groups = policy.teacher_groups(batch.inputs, [batch.task.answer(sample) for sample in batch.samples])
    return policy.logprobs(groups, policy.vision(batch.inputs)).prompt_hidden


# ------------------------------------------------------------------------------------------- the model


def test_a_seed_gives_the_same_model(fresh: VideoPolicy) -> None:
    torch.manual_seed(99)
    again, other = build_policy(seed=0), build_policy(seed=1)
    assert again.encoder.tokenizer.get_vocab() == fresh.encoder.tokenizer.get_vocab()
    weights = fresh.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.state_dict().items())
    assert any(not torch.equal(tensor, weights[name]) for name, tensor in other.state_dict().items())


def test_it_is_tiny(fresh: VideoPolicy) -> None:
    parameters = sum(parameter.numel() for parameter in fresh.parameters())
    assert parameters == pytest.approx(1.2e6, rel=0.02)
    assert {parameter.dtype for parameter in fresh.parameters()} == {torch.float32}


def test_digits_and_the_words_of_answers_are_single_tokens(fresh: VideoPolicy) -> None:
    tokenizer = fresh.encoder.tokenizer
    words = (*COLORS, *SHAPES, *DIRECTIONS, *DEGRADATIONS)
    for text in [*"0123456789.", *(f" {word}" for word in words)]:
        assert len(tokenizer(text)["input_ids"]) == 1, text
    assert tokenizer.tokenize("12.5") == ["1", "2", ".", "5"]


def test_boxes_cost_two_tokens_a_number(fresh: VideoPolicy) -> None:
    text = format_boxes((Box(0.1, 0.2, 0.3, 0.4),) * 2, 1)
    expected = "[|[0.|1|, 0.|2|, 0.|3|, 0.|4|], [0.|1|, 0.|2|, 0.|3|, 0.|4|]]"
    tokenizer = fresh.encoder.tokenizer
    assert [tokenizer.decode([id_]) for id_ in tokenizer(text)["input_ids"]] == expected.split("|")


def test_text_survives_the_tokenizer(fresh: VideoPolicy) -> None:
    boxes = f"<answer>{format_boxes((Box(0.1, 0.25, 0.9, 1.0), Box(0, 0, 1, 1)), 2)}</answer>"
    for text in (
        "<think>red</think><answer>12.5 to 17.8</answer>",
        boxes,
        "[[0.1,0.2]], [[ 0.3",
        "Où est le café? 😀\n",
    ):
        ids = fresh.encoder.completion_ids(text)
        assert ids[-1] == fresh.encoder.end_of_turn
        assert fresh.encoder.decode(ids) == text


def test_the_carried_model_is_small_and_of_this_build(trained: VideoPolicy, fresh: VideoPolicy) -> None:
    assert sum(file.stat().st_size for file in ASSET.rglob("*") if file.is_file()) <= 3_000_000
    assert trained.encoder.tokenizer.get_vocab() == fresh.encoder.tokenizer.get_vocab()
    assert trained.encoder.processor.chat_template == fresh.encoder.processor.chat_template
    shapes = {name: tensor.shape for name, tensor in fresh.state_dict().items()}
    assert {name: tensor.shape for name, tensor in trained.state_dict().items()} == shapes


def test_the_carried_model_encodes_as_a_fresh_one(
    trained: VideoPolicy, fresh: VideoPolicy, batch: Batch
) -> None:
    dataset = VideoDataset(batch.samples, batch.task, trained.encoder, BUDGET, trained.encoder.grid)
    for place, inputs in enumerate(batch.inputs):
        carried = dataset[place][2]
        assert carried.keys() == inputs.keys()
        assert all(torch.equal(carried[name], inputs[name]) for name in inputs)


# ------------------------------------------------------------------------------------------ the labels


def test_spans_of_video_tokens() -> None:
    clip = VideoClip(torch.empty(0), tuple(range(8)), tuple(i * 0.75 for i in range(8)), 6.0, 24)
    # 8 frames in pairs are 4 steps of 1.5 s; 8 tokens are 2 per step.
    steps = [(0.0, 1.5), (1.5, 3.0), (3.0, 4.5), (4.5, 6.0)]
    assert token_spans(clip, 2, 8) == [(*steps[i // 2], i % 2, 2) for i in range(8)]
    assert token_spans(clip, 2, 4) == [(*step, 0, 1) for step in steps]
    assert token_spans(clip, 4, 2) == [(0.0, 3.0, 0, 1), (3.0, 6.0, 0, 1)]


def test_a_token_is_asked_for_what_is_visible_and_for_its_second() -> None:
    circle = ShapeEvent("blue", "circle", 1.0, 2.0, x=50, y=50, vx=0, vy=0, radius=20)
    spec = ClipSpec(4.0, (30, 30, 30), 0, (event("red", 0.0, 1.5), circle))
    # Half the words, half the digit. A shape that goes before the span, or comes after it, is not seen.
    assert label(spec, 0.0, 1.0, 0, 1) == {" red": 0.25, " square": 0.25, "0": 0.5}
    both = {" red": 0.125, " square": 0.125, " blue": 0.125, " circle": 0.125}
    assert label(spec, 1.0, 2.0, 0, 1) == both | {"1": 0.5}
    assert label(spec, 2.0, 3.0, 0, 1) == {".": 0.5, "2": 0.5}
    # What no frame shows is not asked for: these are the frames of 0 and 2 s, and the circle is between them.
    assert label(spec, 0.0, 4.0, 0, 1) == {" red": 0.25, " square": 0.25, "0": 0.5}
    # Two digits, and one twice.
    assert label(spec, 12.5, 13.0, 0, 1) == {".": 0.5, "1": 0.25, "2": 0.25}
    assert label(spec, 11.0, 13.0, 0, 1) == {".": 0.5, "1": 0.5}
    # A word for two shapes counts twice.
    squares = ClipSpec(4.0, (30, 30, 30), 0, (event("red", 0.0, 1.0), event("blue", 0.0, 1.0)))
    assert label(squares, 0.5, 1.0, 0, 1) == {" red": 0.125, " blue": 0.125, " square": 0.25, "0": 0.5}


def test_a_token_of_a_motion_is_asked_where_the_shape_is() -> None:
    # In a world of 112 pixels the centre goes from (28, 56) to (84, 56) in 8 s: 0.25 to 0.75, and 0.5.
    shape = ShapeEvent("red", "square", 0.0, 8.0, x=28, y=56, vx=7, vy=0, radius=14)
    spec = ClipSpec(8.0, (30, 30, 30), 0, (shape,))
    # At 4 s the centre is (0.5, 0.5): half the words, half the digits, of which both are 5.
    assert label(spec, 4.0, 5.0, 0, 1) == {" red": 0.25, " square": 0.25, "5": 0.5}
    # At 6 s x = 70 / 112 = 0.625, which rounds to 6; y = 0.5.
    assert label(spec, 6.0, 7.0, 0, 1).keys() == {" red", " square", "6", "5"}
    # Four tokens: left, top, right, bottom at the span's start and middle. At 0 and 1.6 s the centre is at
    # 28 and 39.2, the edges 14 pixels away: left 0.125 and 0.225, right 0.375 and 0.475; top 0.375 and
    # bottom 0.625.
    edges = [label(spec, 0.0, 3.2, place, 4) for place in range(4)]
    assert edges == [{"1": 0.5, "2": 0.5}, {"4": 1.0}, {"4": 0.5, "5": 0.5}, {"6": 1.0}]


@pytest.mark.parametrize("places", [2, 3, 5])
def test_other_numbers_of_tokens_have_no_labels(places: int) -> None:
    spec = ClipSpec(4.0, (30, 30, 30), 0, (event("red", 0.0, 1.5), event("blue", 1.0, 2.0)))
    with pytest.raises(ValueError, match=f"{places} video tokens per step have no labels"):
        label(spec, 0.0, 1.0, 0, places)


@torch.no_grad()
def test_labels_by_hand(trained: VideoPolicy, batch: Batch) -> None:
    # One token per second. Busy: a red square in [0, 1), a red and a blue one in [1, 2), then nothing.
    # Empty: nothing.
    red, both = {" red": 0.25, " square": 0.25}, {" red": 0.125, " blue": 0.125, " square": 0.25}
    words = [red, both, *[{".": 0.5}] * (2 + 6)]
    seconds = [*"0123", *"012345"]

    def id_of(text: str) -> int:
        (id_,) = trained.encoder.tokenizer(text)["input_ids"]
        return id_

    logs = []
    for inputs in batch.inputs:  # one plain forward each: no padding
        is_video = inputs["input_ids"][0] == trained.model.config.video_token_id
        logs += list(trained.model(**inputs, use_cache=False).logits[0, is_video].log_softmax(-1))
    assert len(logs) == 4 + 6
    expected = 0.0
    for log, weighted, second in zip(logs, words, seconds, strict=True):
        asked = weighted | {second: 0.5}
        expected -= sum(weight * log[id_of(word)].item() for word, weight in asked.items()) / 10
    found = DenseVideoLabels()(trained, batch, hidden(trained, batch))
    assert found.item() == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_the_mean_is_over_tokens_not_clips(trained: VideoPolicy, batch: Batch) -> None:
    labels = DenseVideoLabels()
    both = labels(trained, batch, hidden(trained, batch)).item()
    busy, empty = (
        labels(trained, one, hidden(trained, one)).item() for one in (only(batch, 0), only(batch, 1))
    )
    assert both == pytest.approx((4 * busy + 6 * empty) / 10, rel=1e-4)
    assert both != pytest.approx((busy + empty) / 2, rel=1e-2)


def test_labels_teach_the_eyes(batch: Batch) -> None:
    policy = build_policy(seed=0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = DenseVideoLabels()(policy, batch, hidden(policy, batch))
        optimizer.zero_grad()
        loss.backward()
        vision = policy.model.model.visual.patch_embed.proj.weight.grad
        assert vision is not None
        assert vision.abs().max() > 0
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(6.5, abs=1.0)  # about ln 640: it knows nothing yet
    assert all(later < earlier for earlier, later in pairwise(losses))


@torch.no_grad()
def test_the_carried_model_sees(trained: VideoPolicy, batch: Batch) -> None:
    labels, one = DenseVideoLabels(), only(batch, 0)
    assert labels(trained, batch, hidden(trained, batch)).item() < 1.0
    (inputs,) = one.inputs
    black = [inputs | {"pixel_values_videos": torch.zeros_like(inputs["pixel_values_videos"])}]
    blind = Batch(one.task, one.samples, one.clips, black, [])
    sighted = labels(trained, one, hidden(trained, one)).item()
    assert labels(trained, blind, hidden(trained, blind)).item() > sighted + 0.3
