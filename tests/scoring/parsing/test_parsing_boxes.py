"""Boxes in answer blocks, well meant and hostile."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcr1.records import Box, ParseFailure
from vcr1.scoring.parsing import BOX_FAILURES, MAX_TEXT, format_boxes, parse_boxes

TWO = (Box(0.1, 0.2, 0.3, 0.4), Box(0, 0, 1, 0.5))


@pytest.mark.parametrize(
    "answer",
    [
        "[[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 0.5]]",
        "[[.1,.2,.3,.4],[0,0,1,.5]]",
        "[(0.1, 0.2, 0.3, 0.4), (0, 0, 1., 0.50)]",
        "((0.1, 0.2, 0.3, 0.4), (0, 0, 1, 0.5))",
        "[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 0.5]",  # no outer brackets
        "[[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 0.5]",  # half of them
        "[0.1, 0.2, 0.3, 0.4]\n[0, 0, 1, 0.5]",
        "```json\n[\n  [\n    0.1,\n    0.2,\n    0.3,\n    0.4\n  ],\n  [0, 0, 1, 0.5]\n]\n```",
        "[0.1 0.2 0.3 0.4] [0; 0; 1; 0.5]",
        '[["0.1", "0.2", "0.3", "0.4"], [0, 0, 1, 0.5,]]',
        "[[1e-1, 2E-1, +0.3, 0.4], [-0.0, 0, 1.0, 5e-1]]",
        '[{"bbox_2d": [0.1, 0.2, 0.3, 0.4]}, {"bbox_2d": [0, 0, 1, 0.5]}]',
        "Frame 1: [0.1, 0.2, 0.3, 0.4]\nFrame 2 (of 2, the last): [0, 0, 1, 0.5]",
        "Corners [x0, y0, x1, y1]: [0.1, 0.2, 0.3, 0.4], [0, 0, 1, 0.5]",
    ],
)
def test_boxes_that_models_write(answer):
    assert parse_boxes(f"<think>[[9, 9, 9, 9]]</think><answer>{answer}</answer>", count=2) == TWO


FAILURES = [
    ("no_boxes", ""),
    ("no_boxes", "the car stays left"),
    ("wrong_count", "0.1, 0.2, 0.3, 0.4"),
    ("no_boxes", "[[0.1, 0.2, 0.3, 0.4"),
    ("no_boxes", "[[nan, 0, inf, 1], [0, 0, 1, 1e]]"),
    ("no_boxes", "[[0.1, 0.2, 0.3, 0.4s]]"),
    ("no_boxes", "[[\u0660, \u0660, \u0661, \u0661]]"),  # Arabic-Indic digits
    ("no_boxes", f"[[0, 0, 1, 0.{'9' * 400}]]"),
    ("malformed", "[[0.1, 0.2, 0.3], [0, 0, 1, 1]]"),
    ("malformed", "[0.1, 0.2, 0.3, 0.4, 0, 0, 1]"),
    ("malformed", "[[(0.1, 0.2), (0.3, 0.4, 0.5)], [(0, 0), (1, 1)]]"),
    ("wrong_count", "[[0, 0, 1, 1]]"),
    ("wrong_count", "[[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]"),
    ("not_normalised", "[[0, 0, 1, 1], [0, 0, 1.03, 1]]"),
    ("not_normalised", "[[12, 40, 300, 200], [12, 40, 300, 200]]"),
    ("not_normalised", "[[0, 0, 1, 1], [-0.1, 0, 1, 1]]"),
    ("not_normalised", "[[0, 0, 1, 1], [0, 0, 1, 1e999999999]]"),
    ("reversed", "[[1, 0, 0, 1], [0.5, 0, 0.4, 1]]"),
]


@pytest.mark.parametrize(("reason", "answer"), FAILURES)
def test_answers_without_two_boxes(reason, answer):
    assert parse_boxes(f"<answer>{answer}</answer>", count=2) == ParseFailure(reason)


def test_every_reason_of_the_fixed_set_is_reached():
    assert parse_boxes("<think>[[0, 0, 1, 1]]", count=1) == ParseFailure("no_answer")
    assert parse_boxes(" " * (MAX_TEXT + 1), count=1) == ParseFailure("too_long")
    assert {reason for reason, _ in FAILURES} | {"too_long", "no_answer"} == set(BOX_FAILURES)
    assert len(set(BOX_FAILURES)) == len(BOX_FAILURES)


def test_only_the_last_answer_counts():
    first, last = format_boxes(TWO[:1]), format_boxes(TWO[1:])
    assert parse_boxes(f"<answer>{first}</answer><answer>{last}</answer>", count=1) == TWO[1:]


def test_boxes_are_written_with_three_decimals():
    assert format_boxes(TWO) == "[[0.100, 0.200, 0.300, 0.400], [0.000, 0.000, 1.000, 0.500]]"
    assert format_boxes((Box(-0.0001, 0, 1, 1),)) == "[[0.000, 0.000, 1.000, 1.000]]"


near, far = st.floats(0, 0.49), st.floats(0.5, 1)


@given(st.lists(st.builds(Box, near, near, far, far), min_size=1, max_size=8))
def test_written_boxes_are_read_back(boxes):
    read = parse_boxes(f"<answer>{format_boxes(tuple(boxes))}</answer>", count=len(boxes))
    assert isinstance(read, tuple)
    for got, box in zip(read, boxes, strict=True):
        assert (got.x0, got.y0, got.x1, got.y1) == pytest.approx(
            (box.x0, box.y0, box.x1, box.y1), abs=0.00051
        )


# ------------------------------------------------------------------------------------- for any text at all

PIECES = [
    "<answer>", "</answer>", "[0, 0, 1, 1]", "[0.1, 0.2, 0.3, 0.4]", "0", "1", "0.5", ".", "-1", "1e9", "nan",
    "\u0663", ",", ",", ";", "[", "[", "]", "]", "(", ")", "{", "`", "frame", " ", " ", "\n",
]  # fmt: skip
grammatical = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@settings(max_examples=300)
@given(
    st.one_of(st.text(), grammatical, st.one_of(st.text(), grammatical).map("<answer>{}</answer>".format)),
    st.integers(0, 3),
)
def test_any_text_gives_that_many_boxes_or_a_known_reason(text, count):
    value = parse_boxes(text, count)
    if isinstance(value, ParseFailure):
        assert value.reason in BOX_FAILURES
    else:
        assert len(value) == count
        assert all(0 <= box.x0 <= box.x1 <= 1 and 0 <= box.y0 <= box.y1 <= 1 for box in value)


HOSTILE = [
    "<answer>", "</answer>", "[", "]", "(", "[[", "[0", "[0,", "[0 0]", "[0, 0, 1, 1]", "0", "0,", "0.",
    ".", ",",
    ", ", " ", "\n", "e", "1e", "'", "[ ", "[a", "+", "-1", "\u0663", "\0",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_linear_time(unit):
    body = (unit * MAX_TEXT)[: MAX_TEXT - 50]
    began = time.process_time()
    for text in (body, f"<answer>{body}</answer>", f"<answer>[{body}]</answer>"):
        value = parse_boxes(text, count=8)
        assert isinstance(value, ParseFailure)
        assert value.reason in BOX_FAILURES
    assert time.process_time() - began < 2  # quadratic would take minutes


def test_an_edge_that_was_overshot_is_the_frames() -> None:
    found = parse_boxes("<answer>[[-0.01, 0, 0.5, 1.001], [0.1, 0.2, 0.3, 0.4]]</answer>", 2)
    assert found == (Box(0.0, 0.0, 0.5, 1.0), Box(0.1, 0.2, 0.3, 0.4))


def test_one_bracket_around_all_numbers() -> None:
    found = parse_boxes("<answer>[0.1, 0.2, 0.3, 0.4, 0, 0, 1, 1]</answer>", 2)
    assert found == (Box(0.1, 0.2, 0.3, 0.4), Box(0, 0, 1, 1))
