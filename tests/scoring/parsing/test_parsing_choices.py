"""Letters of options and names of classes in answer blocks, well meant and hostile."""

import time
from string import ascii_uppercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcr1.records import ParseFailure
from vcr1.scoring.parsing import (
    CLASS_FAILURES,
    LETTER_FAILURES,
    MAX_TEXT,
    parse_class,
    parse_letter,
    parse_option,
)

# ------------------------------------------------------------------------------------------------ letters


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(C)", "C"),
        ("C.", "C"),
        ("C", "C"),
        ("c", "C"),
        ("c)", "C"),
        ("C)performing", "C"),
        ("C: performing", "C"),
        ("[c]", "C"),
        ("`C`", "C"),
        ("'C'", "C"),
        ("**C**", "C"),
        ("**C. performing**", "C"),
        ("\\boxed{C}", "C"),
        ("The answer is C", "C"),
        ("The answer is c.", "C"),
        ("The answer is 'C'", "C"),
        ("THE CORRECT ANSWER WOULD BE (C)", "C"),
        ("Answer: (C) performing", "C"),
        ("Answer:\nC", "C"),
        ("Option C", "C"),
        ("C performing", "C"),
        ("It's C.", "C"),
        ("I think C", "C"),
        ("(C), so C", "C"),
        ("The answer is A", "A"),
        ("A", "A"),
        ("a", "A"),
        ("A.", "A"),
        ("(A) A person", "A"),
        ("A because he sits", "A"),
        ("A person dances (C)", "C"),  # the article beside a marked letter
        ("C. A person dances", "C"),
        ("C, A person dances", "C"),
        ("A person in a U-shirt with an X-ray from the U.S. chooses C", "C"),
        ("(D) Both A and B", "D"),  # joined, but not to the marked letter
        ("C. Plan B", "C"),
    ],
)
def test_letters_that_models_write(answer, letter):
    assert parse_letter(f"<think>(B)?</think><answer>{answer}</answer>", options=5) == letter


LETTER_FAILING = [
    ("no_letter", ""),
    ("no_letter", "none of them"),
    ("no_letter", "A man plays"),
    ("no_letter", "Answer: A dog"),
    ("no_letter", "The answer is a dog"),
    ("no_letter", "I see"),
    ("no_letter", "T-shirt"),
    ("no_letter", "an\u017fwer"),
    ("no_letter", "\u24b8 \u0421"),  # a circled C and a Cyrillic one
    ("ambiguous", "A or B"),
    ("ambiguous", "(A) or B"),
    ("ambiguous", "A. or B."),
    ("ambiguous", "C/D"),
    ("ambiguous", "(C), (D)"),
    ("ambiguous", "The answer is A, B"),
    ("ambiguous", "The answer is C, or D"),
    ("ambiguous", "the answer is A or b"),
    ("ambiguous", "A. dog\nB. cat"),
    ("ambiguous", "C D"),
    ("not_an_option", "F"),
    ("not_an_option", "(z)"),
]


@pytest.mark.parametrize(("reason", "answer"), LETTER_FAILING)
def test_answers_without_one_letter(reason, answer):
    assert parse_letter(f"<answer>{answer}</answer>", options=5) == ParseFailure(reason)


def test_every_reason_for_no_letter_is_reached():
    assert parse_letter("<think>C", options=5) == ParseFailure("no_answer")
    assert {reason for reason, _ in LETTER_FAILING} | {"too_long", "no_answer"} == set(LETTER_FAILURES)
    assert len(set(LETTER_FAILURES)) == len(LETTER_FAILURES)


@pytest.mark.parametrize("letter", ascii_uppercase)
@pytest.mark.parametrize("form", ["{}", "({})", "{}.", "The answer is {}.", "({}) A dog"])
def test_every_letter_is_read_in_every_form(letter, form):
    assert parse_letter(f"<answer>{form.format(letter)}</answer>", options=26) == letter
    place = ascii_uppercase.index(letter)
    if place:
        short = parse_letter(f"<answer>{form.format(letter)}</answer>", options=place)
        assert short == ParseFailure("not_an_option")


@pytest.mark.parametrize("options", [0, -1, 27])
def test_no_letters_for_so_many_options(options):
    with pytest.raises(ValueError, match="options"):
        parse_letter("<answer>A</answer>", options)


# ------------------------------------------------------------------------------------------------ classes

CLASSES = ["low quality", "High  Quality", "quality", "C++"]


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("low quality", "low quality"),
        ("LOW\n  Quality.", "low quality"),
        ("This video is of **low quality**, very low quality", "low quality"),
        ("high quality", "High  Quality"),
        ("its quality", "quality"),
        ("low-quality", "low quality"),
        ("High_Quality", "High  Quality"),
        ("low", "low quality"),  # no other class has the word
        ("It is rather low.", "low quality"),
        ("c++!", "C++"),
    ],
)
def test_classes_that_models_write(answer, name):
    assert parse_class(f"<answer>{answer}</answer>", CLASSES) == name


CLASS_FAILING = [
    ("no_class", ""),
    ("no_class", "lower"),
    ("ambiguous", "low or high"),
    ("no_class", "qualitylow qualitys"),
    ("ambiguous", "low quality or high quality"),
    ("ambiguous", "low quality, the quality of a phone"),
]


@pytest.mark.parametrize(("reason", "answer"), CLASS_FAILING)
def test_answers_without_one_class(reason, answer):
    assert parse_class(f"<answer>{answer}</answer>", CLASSES) == ParseFailure(reason)


def test_every_reason_for_no_class_is_reached():
    assert parse_class("<think>low quality", CLASSES) == ParseFailure("no_answer")
    assert {reason for reason, _ in CLASS_FAILING} | {"too_long", "no_answer"} == set(CLASS_FAILURES)
    assert len(set(CLASS_FAILURES)) == len(CLASS_FAILURES)


@pytest.mark.parametrize("classes", [[], ["low", " "], ["Low quality", "low  quality"]])
def test_no_classes_to_choose_from(classes):
    with pytest.raises(ValueError, match="classes"):
        parse_class("<answer>low</answer>", classes)


# ------------------------------------------------------------------------------------- for any text at all

PIECES = [
    "<answer>", "</answer>", "A", "B", "C", "Z", "I", "a", "c", "(", ")", "[", "]", "{", "**", ".", ":",
    ",", "/",
    "'", "-", "answer", "option", "is", "or", "and", "dog", "low", "high", "quality", "C++", "\u0421", "\0",
    " ", " ", " ", "\n",
]  # fmt: skip
grammatical = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
wrapped = st.one_of(st.text(), grammatical).map("<answer>{}</answer>".format)


@settings(max_examples=300)
@given(st.one_of(st.text(), grammatical, wrapped), st.integers(1, 26))
def test_any_text_gives_an_option_a_class_or_a_known_reason(text, options):
    letter = parse_letter(text, options)
    if isinstance(letter, ParseFailure):
        assert letter.reason in LETTER_FAILURES
    else:
        assert letter in list(ascii_uppercase[:options])
    name = parse_class(text, CLASSES)
    assert name in CLASSES if isinstance(name, str) else name.reason in CLASS_FAILURES


HOSTILE = [
    "<answer>", "</answer>", "A", "A ", "A. ", "(", "( ", "(A", "(A ", "**", "** ", "**A", "A/", "A or ",
    "A, or ",
    "answer ", "answer is ", "answer: is is ", "is ", "option.", "\n", " ", " \n", "\nA", "\n*", "\nA*",
    "*", "-",
    "'", "a", "a ", "A\t", "low ", "quality ", "low qualit ", "\u0421", "\u0130", "\0", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_linear_time(unit):
    def parse(length: int) -> float:
        body = (unit * length)[: length - 50]
        began = time.process_time()
        for text in (body, f"<answer>{body}</answer>", f"<answer>({body})</answer>"):
            letter, name = parse_letter(text, options=5), parse_class(text, CLASSES)
            assert letter in list("ABCDE") if isinstance(letter, str) else letter.reason in LETTER_FAILURES
            assert name in CLASSES if isinstance(name, str) else name.reason in CLASS_FAILURES
        return time.process_time() - began

    # Four times the text takes four times as long; quadratic, sixteen times. Below half a second it may.
    assert parse(MAX_TEXT) < 8 * parse(MAX_TEXT // 4) + 0.5


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A. Put the book (a) down", "A"),  # the letter and its own text, whatever else the text holds
        ("(C) option A and option B", "C"),
        ("running", "B"),
        ("Running.", "B"),
        ("B", "B"),
        ("A or B", ParseFailure("ambiguous")),
        ("walking", ParseFailure("no_letter")),
    ],
)
def test_an_option_may_be_named_by_its_text(answer: str, expected: object) -> None:
    options = ["Put the book (a) down", "running", "Option A and option B"]
    assert parse_option(f"<answer>{answer}</answer>", options) == expected


def test_of_two_options_alike_none_is_named_by_its_text() -> None:
    assert parse_option("<answer>runs</answer>", ["runs", "Runs"]) == ParseFailure("no_letter")
