"""The judge that compares words, by hand."""

import pickle

import pytest

from vcr1.records import EventScores, JudgeFailure
from vcr1.scoring.judges import CaptionPair, LexicalJudge, f1

REFERENCE = "A man opens the door. Then he sits down; he reads a book."


def judged(*pairs: CaptionPair) -> list[EventScores | JudgeFailure]:
    return LexicalJudge().begin(pairs).result()


@pytest.mark.parametrize(
    ("prediction", "recall", "precision"),
    [
        (REFERENCE, 1.0, 1.0),
        ("He sits down. He sleeps.", 1 / 3, 1 / 2),
        ("the MAN opens a door, then he sits down and sighs", 2 / 3, 1 / 2),
        ("He door man the opens.", 1 / 3, 0.0),
        ("A dog barks.", 0.0, 0.0),
        ("", 0.0, 0.0),
        ("the and then of", 0.0, 0.0),
        ("...!?\n;;", 0.0, 0.0),
    ],
)
def test_an_event_is_told_where_a_sentence_has_its_words(
    prediction: str, recall: float, precision: float
) -> None:
    assert judged(CaptionPair(REFERENCE, prediction)) == [EventScores(recall, precision)]


def test_listed_events_are_the_reference_s() -> None:
    pair = CaptionPair(REFERENCE, "He sits down.", events=("sits down", "dances", "the"))
    assert judged(pair) == [EventScores(0.5, 1.0)]


@pytest.mark.parametrize(
    "pair", [CaptionPair("", "A dog."), CaptionPair("A dog.", "A dog.", ()), CaptionPair(".", "", ("the",))]
)
def test_without_events_there_is_nothing_to_recall(pair: CaptionPair) -> None:
    assert judged(pair) == [JudgeFailure("no_events")]


def test_verdicts_are_in_the_order_of_the_pairs() -> None:
    predictions = ["He sits down.", "A dog barks.", REFERENCE]
    verdicts = judged(*(CaptionPair(REFERENCE, prediction) for prediction in predictions))
    assert verdicts == [EventScores(1 / 3, 1.0), EventScores(0.0, 0.0), EventScores(1.0, 1.0)]


def test_it_travels_and_needs_nothing() -> None:
    judge = pickle.loads(pickle.dumps(LexicalJudge()))
    judge.probe()
    assert judge.begin([]).result() == []


@pytest.mark.parametrize(
    ("recall", "precision", "expected"),
    [(0.5, 1.0, 2 / 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0)],
)
def test_f1_is_the_harmonic_mean(recall: float, precision: float, expected: float) -> None:
    assert f1(recall, precision) == pytest.approx(expected)


def test_f1_is_unknown_where_a_part_is() -> None:
    nan = float("nan")
    assert [str(f1(*parts)) for parts in ((nan, 1.0), (1.0, nan), (nan, nan))] == ["nan"] * 3
