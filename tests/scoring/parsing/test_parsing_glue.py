"""Glue blocks: their form, and the spans in them."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcr1.records import Interval, ParseFailure
from vcr1.scoring.parsing import (
    GLUE_FAILURES,
    MAX_INTERVALS,
    MAX_TEXT,
    format_intervals,
    glue_block,
    has_answer_format,
    has_glue_format,
    parse_intervals,
)

# ------------------------------------------------------------------------------------------ block and form


def test_glue_block_is_the_last_closed_one():
    assert glue_block("<answer>C</answer><glue> [(1, 2)] </glue>") == "[(1, 2)]"
    assert glue_block("<glue>a</glue><GLUE>b</Glue><glue>c") == "b"
    assert glue_block("<glue>a") == ParseFailure("no_glue")
    assert glue_block(" " * (MAX_TEXT + 1)) == ParseFailure("too_long")


@pytest.mark.parametrize(
    "text",
    [
        "<think>a</think><answer>C</answer><glue>[(1, 2)]</glue>",
        "\n<think>a\nb</think> \n <answer>C</answer>\n\n<glue>\n[(1,2) , ( 3.5, 4. )]</glue>  ",
    ],
)
def test_glue_format(text):
    assert has_glue_format(text, think=True)
    assert not has_glue_format(text, think=False)
    assert not has_answer_format(text, think=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<think>a</think><answer>C</answer>",
        "<answer>C</answer><glue>b</glue>",
        "<think>a</think><glue>b</glue><answer>C</answer>",
        "<think>a</think><answer>C<glue>b</glue></answer>",
        "<think>a</think> so <answer>C</answer><glue>b</glue>",
        "<think>a</think><answer>C</answer> at <glue>b</glue>",
        "<think>a</think><answer>C</answer><glue>b</glue> there",
        "<think>a</think><answer>C</answer><glue>b</glue><glue>c</glue>",
        "<think>a</think><answer>C</answer><answer>D</answer><glue>b</glue>",
        "<think><glue>a</think><answer>C</answer><glue>b</glue>",
        "<think>a</think><answer>C</answer><Glue>b</Glue>",
        " " * MAX_TEXT + "<think>a</think><answer>C</answer><glue>b</glue>",
    ],
)
def test_not_the_glue_format(text):
    assert not has_glue_format(text, think=True)


def test_glue_format_without_think():
    assert has_glue_format(" <answer>C</answer> <glue>[(1, 2)]</glue>\n", think=False)
    assert not has_glue_format("<glue>[(1, 2)]</glue><answer>C</answer>", think=False)


# -------------------------------------------------------------------------------------------------- spans


@pytest.mark.parametrize(
    ("glue", "spans"),
    [
        ("[(1.0, 2.5), (4, 6.5)]", [(1, 2.5), (4, 6.5)]),
        ("[[1,2],[4,6]]", [(1, 2), (4, 6)]),
        ("1.0 to 2.5, 4 to 6.5", [(1, 2.5), (4, 6.5)]),
        ("(1, 2)", [(1, 2)]),
        ("[(1, 2),]", [(1, 2)]),
        ("(1, 2), (4, 6)", [(1, 2), (4, 6)]),
        ("[(1s, 2s); (4s - 6s)]", [(1, 2), (4, 6)]),
        ("```json\n[\n  [1.0, 2.5],\n  [4.0, 6.5]\n]\n```", [(1, 2.5), (4, 6.5)]),
        ("[(00:01, 00:02), (01:04, 01:06)]", [(1, 2), (64, 66)]),
        ("from 1 to 2 seconds and between 4 and 6 seconds", [(1, 2), (4, 6)]),
        ("- 1 to 2\n- 4 to 6", [(1, 2), (4, 6)]),
        ("1. (1, 2)\n2. (4, 6)", [(1, 2), (4, 6)]),
        ('[{"start": 1, "end": 2}, {"start": 4, "end": 6}]', [(1, 2), (4, 6)]),
        ("(4, 6), (1, 5), (1, 5)", [(4, 6), (1, 5), (1, 5)]),  # as written
        ("(3, 3)", [(3, 3)]),
    ],
)
def test_spans_that_models_write(glue, spans):
    expected = tuple(Interval(start, end) for start, end in spans)
    assert parse_intervals(f"<answer>7 to 8</answer><glue>{glue}</glue>") == expected


FAILURES = [
    ("no_interval", ""),
    ("no_interval", "[]"),
    ("no_interval", "3"),
    ("no_interval", "[1, 2, 4, 6]"),  # how they pair is a guess
    ("no_interval", "1 to 2 to 3 to 4"),
    ("no_interval", "1, 2; 4, 6"),
    ("no_interval", "(1, 2), 4 6"),
    ("no_interval", "(1,5, 2,5)"),  # decimal commas
    ("unpaired", "[(1, 2), (4"),
    ("unpaired", "(1, 2, 3)"),
    ("too_many", "(1, 2)," * (MAX_INTERVALS + 1)),
    ("not_seconds", "(1, 2), 4 to 6 frames"),
    ("out_of_range", "(1, 2), (-4, 6)"),
    ("out_of_range", "(1, 2), (4, 10000000)"),
    ("reversed", "(1, 2), (6, 4)"),
]


@pytest.mark.parametrize(("reason", "glue"), FAILURES)
def test_glue_without_spans(reason, glue):
    assert parse_intervals(f"<glue>{glue}</glue>") == ParseFailure(reason)


def test_every_reason_of_the_fixed_set_is_reached():
    assert parse_intervals("(1, 2)") == ParseFailure("no_glue")
    assert {reason for reason, _ in FAILURES} | {"too_long", "no_glue"} == set(GLUE_FAILURES)
    assert len(set(GLUE_FAILURES)) == len(GLUE_FAILURES)


def test_spans_are_written_with_one_decimal():
    assert format_intervals([Interval(1, 2.5), Interval(4, 6.54)]) == "[(1.0, 2.5), (4.0, 6.5)]"
    assert format_intervals([]) == "[]"


seconds = st.floats(-0.0, 1e6)
intervals = st.tuples(seconds, seconds).map(lambda ends: Interval(min(ends), max(ends)))


@given(st.lists(intervals, min_size=1, max_size=MAX_INTERVALS))
def test_written_spans_are_read_back(written):
    read = parse_intervals(f"<glue>{format_intervals(written)}</glue>")
    assert isinstance(read, tuple)
    assert [end for i in read for end in (i.start, i.end)] == pytest.approx(
        [end for i in written for end in (i.start, i.end)], abs=0.05 + 1e-9
    )


# ------------------------------------------------------------------------------------- for any text at all

PIECES = [
    "<glue>", "</glue>", "1", "2.5", "0:04", "99:99", "-3", "1e9", "\u0663", ".", ":", ",", ";", "-", "~",
    "(",
    "(", ")", ")", "[", "]", "{", "`", "to", "and", "between", "start", "end", "s", "min", " ", " ", "\n",
]  # fmt: skip
grammatical = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@settings(max_examples=300)
@given(st.one_of(st.text(), grammatical, st.one_of(st.text(), grammatical).map("<glue>{}</glue>".format)))
def test_any_text_gives_spans_or_a_known_reason(text):
    value = parse_intervals(text)
    if isinstance(value, ParseFailure):
        assert value.reason in GLUE_FAILURES
    else:
        assert 1 <= len(value) <= MAX_INTERVALS
        assert all(isinstance(span, Interval) for span in value)
    assert not has_glue_format(text, think=False)


HOSTILE = [
    "<glue>", "</glue>", "<glue></glue>", "1", "1 ", "1 to ", "(1, 2),", "(", "[", "[1,", "- ", "- 1",
    "\n- 1",
    "1. ", "\n1.", "\n ", " ", "start ", "between ", "a", "0:00 ", "\u0663", "\0",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_linear_time(unit):
    body = (unit * MAX_TEXT)[: MAX_TEXT - 50]
    began = time.process_time()
    for text in (body, f"<glue>{body}</glue>", f"<answer>C</answer><glue>{body}</glue>"):
        value = parse_intervals(text)
        assert isinstance(value, ParseFailure)
        assert value.reason in GLUE_FAILURES
        has_glue_format(text, think=True)
        has_glue_format(text, think=False)
    assert time.process_time() - began < 2  # quadratic would take minutes
