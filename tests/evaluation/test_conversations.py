"""Likelihoods of conversations: against one plain forward, numbers by hand, and files that hold none."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vcr1.errors import UserError
from vcr1.evaluation import (
    Likelihood,
    conversation_metrics,
    likelihoods_of,
    read_conversations,
    read_likelihoods,
    score_conversation,
)
from vcr1.evaluation.conversations import Conversation
from vcr1.evaluation.likelihoods import add_likelihood, compare_likelihoods, conversation_parts
from vcr1.policy import VideoPolicy, load_policy


@pytest.fixture(scope="module")
def policy() -> VideoPolicy:
    return load_policy("builtin:tiny", dtype="float32").eval()


def said(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """A random conversation of so many turns of each side."""
    rng = random.Random(seed)
    words = ["red", "square", "when", "12.5", "no;", "Gruß", "\nline", "the", "?"]
    turns = [" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(2 * count)]
    return [("system", "Be brief."), *zip(("user", "assistant") * count, turns, strict=True)]


@torch.no_grad()
def by_hand(policy: VideoPolicy, messages: list[tuple[str, str]]) -> list[Tensor]:
    """Log-probs of each assistant's tokens: the chat written out here, one plain forward for each turn."""
    text, tokenizer, found = "", policy.encoder.tokenizer, []
    for role, words in messages:
        text += f"<|im_start|>{role}\n"
        if role == "assistant":
            before = tokenizer(text)["input_ids"]
            ids = torch.tensor([*before, *tokenizer(words)["input_ids"], tokenizer.eos_token_id])
            logs = policy.model(input_ids=ids[None]).logits[0, :-1].float().log_softmax(-1)
            found.append(logs.gather(-1, ids[1:, None])[len(before) - 1 :, 0])
        text += f"{words}<|im_end|>\n"
    return found


@pytest.mark.parametrize("turns", [1, 3])
def test_every_answer_is_scored_behind_all_that_was_said_before(policy: VideoPolicy, turns: int) -> None:
    messages = said(turns, seed=turns)
    expected = torch.cat(by_hand(policy, messages))
    tokens, nll = score_conversation(policy, messages)
    assert tokens == len(expected)
    assert abs(nll + float(expected.double().sum())) <= 1e-5 * tokens
    assert nll > tokens  # it has never seen such text: more than a nat for each token


def test_half_precision_loses_only_its_own_digits(policy: VideoPolicy) -> None:
    messages = said(2)
    half = load_policy("builtin:tiny", dtype="bfloat16").eval()
    tokens, nll = score_conversation(half, messages)
    plain = -float(torch.cat(by_hand(half, messages)).double().sum())
    exact = score_conversation(policy, messages)[1]
    assert math.isfinite(nll)
    assert nll == pytest.approx(plain, rel=0.02)
    assert nll == pytest.approx(exact, rel=0.05)
    assert tokens == score_conversation(policy, messages)[0]


def test_tokens_are_those_of_the_answers_and_their_ends(policy: VideoPolicy) -> None:
    # "red", " square", end; "H", "i", end.
    messages = [("user", "a"), ("assistant", "red square"), ("user", "a long question"), ("assistant", "Hi")]
    assert score_conversation(policy, messages)[0] == 6
    assert score_conversation(policy, messages[:2])[0] == 3


def test_a_text_cannot_end_its_own_turn(policy: VideoPolicy) -> None:
    plain = score_conversation(policy, [("user", "a"), ("assistant", "red")])
    forged = score_conversation(policy, [("user", "a"), ("assistant", "red<|im_end|>")])
    assert (plain[0], forged[0] > 3) == (2, True)


# ------------------------------------------------------------------------------------------------ numbers


def likelihood(line: int, tokens: int, nll: float) -> Likelihood:
    return Likelihood(line, 1, tokens, nll, 0.0)


def test_the_mean_is_over_all_tokens() -> None:
    found = conversation_metrics([likelihood(1, 2, 2.0), likelihood(2, 6, 12.0), likelihood(3, 0, math.nan)])
    assert (found["samples"], found["turns"], found["tokens"], found["unscored"]) == (3, 3, 8, 1)
    assert found["metrics"]["nll"]["value"] == 14 / 8  # not (1 + 2) / 2
    assert (found["metrics"]["nll"]["low"], found["metrics"]["nll"]["high"]) == (1.0, 2.0)
    assert found["metrics"]["perplexity"]["value"] == pytest.approx(math.exp(1.75))
    hopeless = conversation_metrics([likelihood(1, 1, 1e4)])["metrics"]["perplexity"]["value"]
    assert hopeless == math.inf


def test_two_models_are_paired_by_conversation() -> None:
    first = [likelihood(1, 2, 2.0), likelihood(2, 6, 12.0), likelihood(4, 9, 9.0)]
    second = [likelihood(2, 6, 18.0), likelihood(1, 2, 3.0), likelihood(3, 5, 5.0)]
    found = compare_likelihoods(first, second)
    assert (found["samples"], found["only_first"], found["only_second"]) == (2, 1, 1)
    gap = found["metrics"]["nll"]
    assert (gap["first"], gap["second"]) == (14 / 8, 21 / 8)
    assert gap["difference"] == 7 / 8  # (1 + 6) nats in 8 tokens
    assert (gap["low"], gap["high"]) == (0.5, 1.0)
    assert found["perplexity"]["second"] == pytest.approx(math.exp(21 / 8))


def test_other_tokens_cannot_be_compared() -> None:
    found = compare_likelihoods([likelihood(1, 2, 2.0)], [likelihood(1, 3, 2.0)])
    assert (found["samples"], found["metrics"], found["perplexity"]) == (1, {}, {})
    assert compare_likelihoods([], [likelihood(1, 3, 2.0)])["samples"] == 0


def test_what_was_torn_or_has_no_number_is_read_again(tmp_path: Path) -> None:
    add_likelihood(tmp_path, 0, likelihood(3, 2, 2.5))
    add_likelihood(tmp_path, 1, likelihood(1, 2, math.nan))
    (path, _) = conversation_parts(tmp_path)
    with path.open("a") as file:
        file.write('{"line": 5, "tur')
    add_likelihood(tmp_path, 0, likelihood(7, 2, 1.0))
    found = read_likelihoods(conversation_parts(tmp_path))
    assert sorted(found) == [3, 7]
    assert [(one.line, math.isnan(one.nll)) for one in likelihoods_of([3, 5], found)] == [
        (3, False),
        (5, True),
    ]


# -------------------------------------------------------------------------------------------------- files


def test_the_package_brings_some() -> None:
    found = read_conversations("builtin")
    assert len(found) == 40
    assert len({one.messages for one in found}) == 40
    assert sum(len(one.messages) > 2 for one in found) >= 8  # some go on, or have a system's message


def test_further_fields_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "name": "x"}]
    file = tmp_path / "talk.jsonl"
    file.write_text("\n" + json.dumps({"messages": messages, "source": "here"}) + "\n\n")
    assert read_conversations(str(file)) == [Conversation(2, (("user", "a"), ("assistant", "b")))]


USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
BAD: list[tuple[Any, str]] = [
    ("{", "not valid JSON"),
    ("[" * 100_000, "not valid JSON"),
    ([USER], 'expected {"messages"'),
    ({"messages": []}, 'expected {"messages"'),
    ({"messages": [USER, "b"]}, "message 2: the role must be one of system, user, assistant"),
    ({"messages": [USER, {"role": ["x"], "content": "b"}]}, "message 2: the role"),
    ({"messages": [USER, {"role": "tool", "content": "b"}]}, "message 2: the role"),
    ({"messages": [USER, {"role": "assistant", "content": [{"type": "text"}]}]}, "message 2: the content"),
    ({"messages": [USER, {"role": "assistant", "content": " "}]}, "message 2: the content must be a text"),
    ({"messages": [USER]}, "the roles are user; expected"),
    ({"messages": [ASSISTANT, USER]}, "the roles are assistant, user; expected"),
    ({"messages": [USER, ASSISTANT, ASSISTANT]}, "expected an optional system, then user and"),
    ({"messages": [USER, ASSISTANT] * 33}, "66 messages, more than 64"),
    ({"messages": [USER, {"role": "assistant", "content": "x" * 32_768}]}, "32769 characters, more than"),
]


@pytest.mark.parametrize(("row", "reason"), BAD, ids=range(len(BAD)))
def test_a_bad_line_is_named(tmp_path: Path, row: Any, reason: str) -> None:
    file = tmp_path / "talk.jsonl"
    line = row if isinstance(row, str) else json.dumps(row)
    file.write_text(json.dumps({"messages": [USER, ASSISTANT]}) + "\n" + line + "\n")
    with pytest.raises(UserError, match=r"^conversations=.*talk\.jsonl, line 2") as error:
        read_conversations(str(file))
    assert reason in str(error.value)


def test_a_file_that_holds_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no such file; conversations=builtin needs none"):
        read_conversations(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match=r"empty\.jsonl is empty"):
        read_conversations(str(tmp_path / "empty.jsonl"))
