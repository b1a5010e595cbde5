"""Model text, well meant and hostile."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcr1.records import Interval, ParseFailure
from vcr1.scoring.parsing import (
    INTERVAL_FAILURES,
    MAX_TEXT,
    answer_block,
    format_interval,
    has_answer_format,
    parse_interval,
)

# ------------------------------------------------------------------------------------------- answer block


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("<answer>3 to 7</answer>", "3 to 7"),
        ("<think>hm</think>\n<answer>\n 3 to 7 \n</answer>", "3 to 7"),
        ("<ANSWER>a</Answer>", "a"),
        ("<answer>a</answer> or <answer>b</answer>", "b"),
        ("<answer>a</answer> or <answer>b", "a"),  # the unclosed second hides nothing
        ("<answer>a<answer>b</answer>", "b"),
        ("<answer>a</answer></answer>", "a"),
        ("<answer></answer>", ""),
        ("\u0130\u0130<answer>a</answer>", "a"),  # lower-casing would lengthen the text before the tag
    ],
)
def test_answer_block_is_the_last_closed_one(text, content):
    assert answer_block(text) == content


@pytest.mark.parametrize(
    "text",
    ["", "3 to 7", "<answer>3 to 7", "3 to 7</answer>", "</answer><answer>", "<an\u017fwer>a</answer>"],
)
def test_no_answer_block(text):
    assert answer_block(text) == ParseFailure("no_answer")


def test_text_over_the_limit_is_refused_whole():
    answer = "<answer>3 to 7</answer>"
    fits = " " * (MAX_TEXT - len(answer)) + answer
    assert parse_interval(fits) == Interval(3, 7)
    assert parse_interval(" " + fits) == ParseFailure("too_long")
    assert has_answer_format(fits, think=False)
    assert not has_answer_format(" " + fits, think=False)


# ------------------------------------------------------------------------------------------ answer format


@pytest.mark.parametrize(
    "text",
    [
        "<think>a</think><answer>b</answer>",
        "\n<think>a\nb</think> \n\n <answer>b</answer>  ",
        "<think></think><answer></answer>",
        "<think>1 < 2, <b>bold</b></think><answer>b</answer>",
    ],
)
def test_think_format(text):
    assert has_answer_format(text, think=True)
    assert not has_answer_format(text, think=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<answer>b</answer>",
        "<think>a</think>",
        "<think>a</think><answer>b",
        "<think>a</think><answer>b</answer> so there",
        "well, <think>a</think><answer>b</answer>",
        "<think>a</think> so <answer>b</answer>",
        "<answer>b</answer><think>a</think>",
        "<think>a<answer>b</answer></think>",
        "<think>a</think><think>a</think><answer>b</answer>",
        "<think>a</think><answer>b</answer><answer>c</answer>",  # the released expression lets this pass
        "<think>a<answer>b</answer></think><answer>c</answer>",  # and this
        "<think>a</think><answer>b</ANSWER></answer>",
        "<Think>a</Think><Answer>b</Answer>",
    ],
)
def test_not_the_think_format(text):
    assert not has_answer_format(text, think=True)


def test_format_without_think():
    assert has_answer_format(" <answer>3 to 7</answer>\n", think=False)
    assert not has_answer_format("<answer>a</answer><answer>b</answer>", think=False)
    assert not has_answer_format("<answer><think>a</think></answer>", think=False)
    assert not has_answer_format("It is <answer>a</answer>", think=False)


# ---------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("answer", "start", "end"),
    [
        ("12.5 to 17.8", 12.5, 17.8),
        ("12.5s - 17.8s", 12.5, 17.8),
        ("12.5–17.8 seconds", 12.5, 17.8),
        ("12.5 — 17.8 sec", 12.5, 17.8),
        ("3-7", 3, 7),
        ("3 -7", 3, 7),
        ("3s -7s", 3, 7),
        ("3--7", 3, 7),
        ("3 ~ 7", 3, 7),
        ("3 → 7", 3, 7),
        ("00:03 --> 00:07", 3, 7),
        ("3 until 7", 3, 7),
        ("00:12 to 00:17.8", 12, 17.8),
        ("1:02:03.5 to 1:02:09", 3723.5, 3729),
        ("1:05 min to 1:10 min", 65, 70),
        ("90:00 to 90:01", 5400, 5401),
        ("from 3 to 7 seconds", 3, 7),
        ("between 3 and 7 s", 3, 7),
        ("between about 3 seconds and 7 seconds", 3, 7),
        ("[12.5, 17.8]", 12.5, 17.8),
        ("(12.5, 17.8)", 12.5, 17.8),
        ("[[12.5s; 17.8s]]", 12.5, 17.8),
        ('["3.0", "7.5"]', 3, 7.5),
        ("start time: 3.0, end time: 7.5", 3, 7.5),
        ("- Start: 3s\n- End: 7.5s", 3, 7.5),
        ("It starts at 3.0 s and ends at 7.5 s.", 3, 7.5),
        ('```json\n{"start_time": 3.0, "end_time": 7.5}\n```', 3, 7.5),
        ("3 to 7.", 3, 7),
        ("3\nto\n7", 3, 7),
        ("```\n3 to 7\n```", 3, 7),
        ("`3.0` to `7.0`", 3, 7),
        ("**3.0s** TO **7.0s**", 3, 7),
        (".5 to 3", 0.5, 3),
        ("... from 3 to 7", 3, 7),
        ("The event happens from 3.0s to 7.0s in the video.", 3, 7),
        ("The 2nd time in clip_1.mp4, from 3 to 7", 3, 7),
        ("3 to 3", 3, 3),
        ("0 to 1000000", 0, 1e6),
    ],
)
def test_spans_that_models_write(answer, start, end):
    assert parse_interval(f"<think>from 1 to 2?</think><answer>{answer}</answer>") == Interval(start, end)


FAILURES = [
    ("no_interval", ""),
    ("no_interval", "at the end"),
    ("no_interval", "3"),
    ("no_interval", "nan to inf"),
    ("no_interval", "3 to infinity"),
    ("no_interval", "1e5 to 2e5"),  # no number in this grammar, rather than 1 to 2
    ("no_interval", "at 3 and 7"),
    ("no_interval", "3, 7"),  # may be a decimal comma
    ("no_interval", "3 7"),
    ("no_interval", "3 people jump to 7"),
    ("no_interval", "\u0663 to \u0667"),  # Arabic-Indic digits
    ("no_interval", "3\u0663 to 7"),
    ("no_interval", "3² to 7"),
    ("ambiguous", "1 to 2 and 5 to 6"),
    ("ambiguous", "3 to 7 (5 seconds)"),
    ("ambiguous", "12,5 to 17,8"),
    ("ambiguous", "2024-05-01"),
    ("not_seconds", "3 minutes to 5"),
    ("not_seconds", "the last 3 to 5 seconds"),
    ("not_seconds", "20% to 30%"),
    ("not_seconds", "12 to 17 frames"),
    ("out_of_range", "-3 to 5"),
    ("out_of_range", "[-3, 5]"),
    ("out_of_range", "3 to -7"),
    ("out_of_range", "3 - -7"),
    ("out_of_range", "\u2212.5 to 3"),
    ("out_of_range", "3 to 1000000.1"),
    ("out_of_range", "3 to " + "9" * 400),
    ("out_of_range", "3 to 0." + "9" * 400),
    ("out_of_range", "0:75 to 1:20"),
    ("out_of_range", "1:60:00 to 2:00:00"),
    ("out_of_range", "0:00:00:01 to 0:00:00:05"),
    ("reversed", "7 to 3"),
    ("reversed", "1:00 to 59"),
]


@pytest.mark.parametrize(("reason", "answer"), FAILURES)
def test_answers_without_one_span(reason, answer):
    assert parse_interval(f"<answer>{answer}</answer>") == ParseFailure(reason)


def test_every_reason_of_the_fixed_set_is_reached():
    answered = {reason for reason, _ in FAILURES}
    assert answered | {"too_long", "no_answer"} == set(INTERVAL_FAILURES)
    assert len(set(INTERVAL_FAILURES)) == len(INTERVAL_FAILURES)


def test_only_the_last_answer_counts():
    assert parse_interval("<think>3 to 7</think>") == ParseFailure("no_answer")
    assert parse_interval("<answer>1 to 2</answer><answer>3 to 7</answer>") == Interval(3, 7)
    assert parse_interval("<answer>1 to 2</answer><answer>never</answer>") == ParseFailure("no_interval")


# ------------------------------------------------------------------------------------- for any text at all

PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "<ANSWER>", "3", "7", "12.5", "1:02", "99:99", "-3", ".5",
    "9999999", "1e9", "2nd", "nan", "inf", "\u0663", "\u0130", ".", ":", "::", ",", ";", "-", "--", "–", "→",
    "~", "(", ")", "[", "]", "{", "}", "`", "**", '"', "to", "and", "between", "from", "until", "start",
    "end", "time", "s", "sec", "min", "%", "frames", " ", " ", " ", "\n",
]  # fmt: skip
grammatical = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@settings(max_examples=300)
@given(st.one_of(st.text(), grammatical, st.one_of(st.text(), grammatical).map("<answer>{}</answer>".format)))
def test_any_text_gives_an_interval_or_a_known_reason(text):
    value = parse_interval(text)
    assert isinstance(value, Interval) or value.reason in INTERVAL_FAILURES
    for think in (True, False):
        if has_answer_format(text, think):
            assert isinstance(answer_block(text), str)


# Without tags of its own, so that it cannot end the block around it.
plain = st.text(alphabet=st.characters(exclude_characters="<>"))


@given(plain, plain)
def test_format_holds_for_any_plain_content(thought, answer):
    assert has_answer_format(f"<think>{thought}</think>\n<answer>{answer}</answer>", think=True)
    assert has_answer_format(f"<answer>{answer}</answer>", think=False)
    assert answer_block(f"<think>{thought}</think><answer>{answer}</answer>") == answer.strip()


@given(st.floats(-0.0, 1e6), st.floats(-0.0, 1e6))
def test_written_interval_is_read_back(one, other):
    interval = Interval(min(one, other), max(one, other))
    read = parse_interval(f"<answer>{format_interval(interval)}</answer>")
    assert isinstance(read, Interval)
    assert read.start == pytest.approx(interval.start, abs=0.05 + 1e-9)
    assert read.end == pytest.approx(interval.end, abs=0.05 + 1e-9)


def test_interval_is_written_with_one_decimal():
    assert format_interval(Interval(12.5, 17.84)) == "12.5 to 17.8"
    assert format_interval(Interval(-0.01, 3)) == "0.0 to 3.0"


# -------------------------------------------------------------------------------------------- linear time

HOSTILE = [
    "<answer>", "</answer>", "<think>", "<think></think>", "<answer></answer>", "<", "</", "1", "1 ", "1 to ",
    "1:", ":", "1.", ".", ".1", "-", "- ", "-1", "1-", "->", "(", "[", "a", "_", " ", "\n", "0:00 ", "1s ",
    "s ", "between ", "start ", "\u0663", "\u0130", "\ud800", "\0",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_linear_time(unit):
    body = (unit * MAX_TEXT)[: MAX_TEXT - 50]
    began = time.process_time()
    for text in (body, f"<answer>{body}</answer>", f"<think>{body}</think><answer>{body[:20]}</answer>"):
        value = parse_interval(text)
        assert isinstance(value, ParseFailure)
        assert value.reason in INTERVAL_FAILURES
        has_answer_format(text, think=True)
        has_answer_format(text, think=False)
    # All three take some 0.2 s; anything quadratic takes minutes.
    assert time.process_time() - began < 2
