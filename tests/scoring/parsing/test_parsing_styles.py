"""A value in every style that is read, in any prose; prose alone has none; hostile text takes linear time."""

import time
from string import ascii_uppercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcr1.records import Box, Interval, ParseFailure
from vcr1.scoring.parsing import (
    MAX_TEXT,
    parse_boxes,
    parse_caption,
    parse_class,
    parse_interval,
    parse_intervals,
    parse_option,
)

# ---------------------------------------------------------------------------------------------- one value


def clock(seconds: float) -> str:
    return f"{int(seconds // 60):02}:{seconds % 60:04.1f}"


def srt(seconds: float) -> str:
    return f"00:{int(seconds // 60):02}:{int(seconds % 60):02},{round(seconds % 1 * 1000):03}"


def minutes(seconds: float) -> str:
    return f"{int(seconds // 60)}m{seconds % 60:.1f}s"


def chinese(seconds: float) -> str:
    return f"{int(seconds // 60)}分{seconds % 60:.1f}秒"


def wide(seconds: float) -> str:
    return f"{seconds:.1f}".translate({code: code + 0xFEE0 for code in range(0x2E, 0x3A)})


TIMES = [clock, srt, minutes, chinese, wide, "{:.1f}".format, "{:.1f}s".format, "{:.1f} seconds".format,
         "{:.1f}秒".format, "<{:.1f}s>".format, "**{:.1f}**".format, "${:.1f}$".format, "~{:.1f}".format,
         "`{:.1f} s`".format]  # fmt: skip
SPANS = ["{} to {}", "{} - {}", "{}–{}", "{} → {}", "{} --> {}", "from {} to {}", "between {} and {}",
         "[{}, {}]", "({}, {})", '{{"start": "{}", "end": "{}"}}', "start: {}, end: {}", "{}到{}", "从{}至{}",
         "{} ～ {}", "Event 2: {} to {}", "3. {} to {}", "- {} to {}", "It starts at {} and ends at {}.",
         "\\boxed{{{} \\text{{ to }} {}}}", "```json\n[{}, {}]\n```"]  # fmt: skip
BLOCKS = ["<answer>{}</answer>", "<think>From 1 to 2?</think><answer>{}</answer>", "<answer>\n{}</answer>",
          "<answer>1.0 to 2.0</answer> No: <answer>{}</answer>", "<think>Hm.</think>\n{}."]  # fmt: skip
WORDS = st.sampled_from(
    ["man", "walks", "slowly", "red", "car", "the", "door", "while", "opens", "一个人", "走进", "房间"]
)
PROSE = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)
tenths = st.integers(0, 35_990).map(lambda value: value / 10)


@settings(max_examples=300)
@given(tenths, tenths, st.sampled_from(TIMES), st.sampled_from(SPANS), st.sampled_from(BLOCKS))
def test_a_span_is_read_in_every_style(one, other, style, span, block):
    start, end = min(one, other), max(one, other)
    read = parse_interval(block.format(span.format(style(start), style(end))))
    assert isinstance(read, Interval)
    assert (read.start, read.end) == pytest.approx((start, end), abs=0.001)


@given(tenths, tenths, PROSE, PROSE, st.sampled_from(["{} to {}", "from {} s to {} s", "[{}, {}]"]))
def test_prose_around_a_span_does_not_change_it(one, other, before, behind, span):
    start, end = min(one, other), max(one, other)
    text = f"<answer>{before}: {span.format(start, end)}, {behind}</answer>"
    assert parse_interval(text) == Interval(start, end)


@given(
    st.lists(st.tuples(tenths, tenths), min_size=1, max_size=5),
    st.sampled_from(TIMES),
    st.sampled_from(SPANS),
)
def test_spans_are_read_in_every_style(ends, style, span):
    spans = [Interval(min(pair), max(pair)) for pair in ends]
    glue = "\n".join(span.format(style(each.start), style(each.end)) for each in spans)
    read = parse_intervals(f"<answer>B</answer><glue>{glue}</glue>")
    assert isinstance(read, tuple)
    assert [each.start for each in read] == pytest.approx([each.start for each in spans], abs=0.001)
    assert [each.end for each in read] == pytest.approx([each.end for each in spans], abs=0.001)


BOXES = ["[{}, {}, {}, {}]", "({}, {}, {}, {})", "({},{}),({},{})", '{{"bbox_2d": [{}, {}, {}, {}]}}',
         "{{'x1': {}, 'y1': {}, 'x2': {}, 'y2': {}}}", "left {}, top {}, right {}, bottom {}",
         "<|box_start|>({},{}),({},{})<|box_end|>", "{} {} {} {}", "[{} {} {} {}]"]  # fmt: skip
hundredths = st.integers(0, 49).map(lambda value: value / 100)


@given(
    st.lists(st.tuples(hundredths, hundredths), min_size=2, max_size=8),
    st.sampled_from(BOXES),
    st.sampled_from(["\n", ",\n", "\n- "]),
)
def test_boxes_are_read_in_every_style(corners, style, gap):
    expected = tuple(Box(x, y, x + 0.5, y + 0.5) for x, y in corners)
    text = gap.join(style.format(box.x0, box.y0, box.x1, box.y1) for box in expected)
    assert parse_boxes(f"<think>hm</think><answer>{text}</answer>", len(corners)) == expected


OPTIONS = ("sitting down", "opening vitamin C", "door B", "both A and C", "I", "Plan A.")
LETTERS = ["{0}", "({0})", "{0}.", "**{0}**", "{0}. {1}", "({0}) {1}", "{0} {1}", "{1}", "Answer: {0}",
           "答案是{0}。",
           "The answer is {1}", "The correct option is ({0}).", "\\boxed{{{0}}}", '{{"answer": "{0}"}}',
           "（{0}）"]  # fmt: skip


@given(st.integers(0, 3), st.sampled_from(LETTERS), st.sampled_from(BLOCKS[:3]))
def test_an_option_is_read_in_every_style(place, style, block):
    text = block.format(style.format(ascii_uppercase[place], OPTIONS[place]))
    assert parse_option(text, OPTIONS) == ascii_uppercase[place]


CLASSES = ("low quality", "medium quality", "high quality")
NAMED = [
    "{}",
    "{}.",
    "The video is of {}.",
    "**{}**",
    "`{}`",
    "Answer: {}",
    "\\boxed{{{}}}",
    '{{"answer": "{}"}}',
]


@given(st.sampled_from(CLASSES), st.sampled_from(NAMED), st.sampled_from([str.upper, str.title, str]))
def test_a_class_is_read_in_every_style(name, style, case):
    spelt = case(name).replace(" ", "_") if style == "`{}`" else case(name)
    assert parse_class(f"<answer>{style.format(spelt)}</answer>", CLASSES) == name


# ----------------------------------------------------------------------------------------------- no value


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(WORDS, st.sampled_from(["low", "high", "quality", "from", "to", "5", "frames", "%", "20"])),
        max_size=12,
    )
)
def test_prose_has_no_span_unless_two_numbers_are_joined(words):
    read = parse_interval(f"<answer>{' '.join(words)}</answer>")
    if isinstance(read, Interval):
        assert sum(word in ("5", "20") for word in words) >= 2
        assert "to" in words
        assert not {"frames", "%"} & set(words)


@given(PROSE)
def test_prose_has_no_other_value_either(text):
    for words in (text, f"<answer>{text}</answer>"):
        assert isinstance(parse_boxes(words, 2), ParseFailure)
        assert isinstance(parse_class(words, CLASSES), ParseFailure)
        assert isinstance(parse_intervals(words), ParseFailure)
        assert isinstance(parse_option(words, ("running", "swimming")), ParseFailure)


@given(st.text(), st.sampled_from(["", "<answer>", "</answer>", "<glue>[(1, 2)]</glue>"]))
def test_what_only_thought_holds_is_no_answer(text, tag):
    thought = text.replace("<", "").replace(">", "")
    for words in (f"<think>{thought} 1 to 2 {tag}", f"<think>{thought} B {tag}</think>"):
        assert isinstance(parse_interval(words), ParseFailure)
        assert isinstance(parse_option(words, ("a", "b")), ParseFailure)
        assert isinstance(parse_caption(words), ParseFailure)


# -------------------------------------------------------------------------------------------- linear time

FRAGMENTS = [
    "5秒到", "１：０５", "1m5s ", "1 minute and ", "<5.0s> - ", "片段1：", "00:00:05,000 --> ",
    "(7 seconds)", "\n1) ", "{", "\\boxed{", "```", "**", '"', "“", '{"a": "',
    '{"answer": "B", ', "<|box_start|>(0,0),", "<ref>", "x0=0.1, ", "frame 1: ",
    "0.1 0.2 ", "0, 0, 1, 1\n", "not the ", "n't ", "is not ", "vitamin C ", "a dog ",
    "（B）", "答案是", "the answer is ", "low quality ", "低质量", "<think>", "</think>",
    "< answer >", "<glue", "<|im_end|>", "the the ",
]  # fmt: skip
NAMES = ("vitamin C", "a dog", "both A and B", "低质量")


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_fragments_over_and_over_take_linear_time(fragment):
    def parse_all(length: int) -> float:
        body = (fragment * length)[: length - 50]
        began = time.process_time()
        answer = f"<answer>{body}</answer>"
        for parse in (parse_interval, parse_caption, lambda text: parse_boxes(text, 8)):
            parse(answer)
            parse(answer * 10)
        parse_option(answer, NAMES)
        parse_class(answer, CLASSES)
        parse_intervals(f"<glue>{body}</glue>")
        parse_caption(body)
        return time.process_time() - began

    # Four times the text takes four times as long; quadratic, sixteen times. Below half a second it may.
    assert parse_all(MAX_TEXT) < 8 * parse_all(MAX_TEXT // 4) + 0.5
