"""What is said to be sent is what two ranks send, and the arithmetic on paper is the one by hand."""

from pathlib import Path

import pytest

import scaling
from scaling_model import Assumptions, phase_flops, step
from scaling_runs import CASES, SETTING, SMALL, Update
from sent import Gathers, Weights, expected_bytes, gathered_bytes, gathers, weights_of
from shapes import PAPER, SHAPES
from traffic import GATHER, REDUCE, SCATTER, ring_bytes

QUESTION = 8
"""Bytes to ask the other rank one number, of its passes for instance, or whether it needs another token."""


@pytest.fixture(scope="module")
def counted() -> dict[str, Update]:
    """An update of every case, on the first of two ranks."""
    found = scaling.count()
    assert all(one.bytes == other.bytes for one, other in found.values())  # all send alike
    return {name: one for name, (one, _) in found.items()}


@pytest.mark.slow  # two fresh processes, in which every case trains two updates
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("fsdp")])
def test_ranks_send_what_the_formula_says(counted: dict[str, Update], name: str) -> None:
    found = counted[name].bytes
    for phase, kinds in scaling.expected(CASES[name]).items():
        asked = QUESTION if phase in ("reference", "policy forward") else 0
        if phase == "rollout":  # whether all had the memory; or how many turns, and who needs another token
            asked = QUESTION if CASES[name].gather else QUESTION * (1 + SETTING.length)
        assert found.get(phase, {}) == kinds | ({REDUCE: asked} if asked else {}), phase


@pytest.mark.slow
def test_ddp_sends_its_gradients_and_hardly_more(counted: dict[str, Update]) -> None:
    found, total = counted["ddp"].bytes, weights_of(SMALL, None).total
    assert found["backward"] == {REDUCE: 4 * total}  # (2 - 1) / 2 of them, twice
    assert sum(sum(kinds.values()) for kinds in found.values()) < 4 * total + 10_000


@pytest.mark.slow
def test_a_run_is_a_row_for_each_collective(counted: dict[str, Update]) -> None:
    rows = {(row[0], row[1]): row[2:] for row in scaling.traffic_rows(counted)}
    whole = 4 * weights_of(SMALL, None).total
    # vision, rollout, reference, policy forward, backward, rest, in all, formula, calls
    assert rows["ddp", REDUCE][4] == rows["ddp", REDUCE][7] == f"{whole:,}"
    assert rows["fsdp", SCATTER][6] == rows["fsdp", SCATTER][7] == f"{whole // 2:,}"
    assert rows["fsdp", GATHER][6] == rows["fsdp", GATHER][7]
    # A layer or block each; the root in two parts, those behind the log-probs and those behind the video.
    assert rows["fsdp", SCATTER][8] == str(4 + 4 + 2)
    assert rows["fsdp, bf16-mixed", GATHER][6] == f"{int(rows['fsdp', GATHER][6].replace(',', '')) // 2:,}"


def test_a_ring_sends_all_but_its_own_share() -> None:
    assert ring_bytes(GATHER, 800, 8) == ring_bytes(SCATTER, 800, 8) == 700
    assert ring_bytes(REDUCE, 800, 8) == 1400
    assert ring_bytes(REDUCE, 800, 1) == 0


def test_bytes_of_an_update_by_hand() -> None:
    weights = Weights(root=10, language=40, vision=20, trained=70, layers=4, blocks=2, adapted=False)
    assert gathered_bytes(weights, Gathers(2, 1, 0.5), 2) == 2 * (20 + 40 + 10)
    # Half of 2 bytes is sent: a byte for each gathered weight.
    expected = {
        "vision": {GATHER: 10 + 20},
        "rollout": {GATHER: 10 + 40},
        "reference": {GATHER: 20 + 40 + 20},
        "policy forward": {GATHER: 10 + 40},
        # The root for either forward, and one of four layers in vain; half of 4 bytes per gradient.
        "backward": {GATHER: 20 + 40 + 10 + 20, SCATTER: 140},
    }
    assert expected_bytes(weights, 2, 2) == expected
    assert expected_bytes(weights, 2, 2, forwards=3)["rollout"] == {GATHER: 10 + 3 * 40}


def test_adapters_gather_no_second_tower() -> None:
    full, adapted = (gathers(weights_of(SMALL, rank)) for rank in (None, 4))
    assert full["reference"] == (2, 1, 1)
    assert adapted["reference"] == (1, 1, 0)
    assert sum(times.vision for times in adapted.values()) == 1


def test_seconds_of_collectives_by_hand() -> None:
    cluster = Assumptions(node=4, nvlink=100, network=10, rails=4, hop_in=1, hop_out=10)
    # Within a node: 3/4 of 8 GB at 100 GB/s, and 2 calls of 3 hops.
    assert cluster.packed(GATHER, 8e9, 4, 2) == pytest.approx(0.06 + 6e-6)
    # Over two nodes: 7/8 of 8 GB at 4 cards of 10 GB/s; 6 hops inside, 2 outside.
    assert cluster.packed(GATHER, 8e9, 8, 1) == pytest.approx(7 / 40 + 26e-6)
    assert cluster.packed(REDUCE, 8e9, 8, 1) == pytest.approx(14 / 40 + 52e-6)
    assert cluster.packed(GATHER, 8e9, 1, 1) == 0
    # Across 2 nodes, each GPU with its counterpart: twice half of 8 GB at its own card's 10 GB/s.
    assert cluster.across(8e9, 2, 1) == pytest.approx(0.8 + 20e-6)


def test_more_ranks_wait_for_a_longer_completion() -> None:
    """The largest of 64 normal numbers is 2.35 standard deviations above their mean."""
    cluster = Assumptions(decode_ms=10, spread=50)
    assert Assumptions(decode_ms=10).decode(200, 64) == pytest.approx(2.0)
    assert cluster.decode(200, 64) == pytest.approx(2.0 + 0.5 * 2.35, abs=0.01)


def test_only_what_compute_does_not_cover_is_uncovered() -> None:
    weights, flops = weights_of(SHAPES["7b"], None), phase_flops(SHAPES["7b"], PAPER, None)
    fast, slow = (
        step(weights, flops, PAPER, "fsdp", 64, Assumptions(network=network)) for network in (40.0, 1.0)
    )
    assert fast.uncovered == 0 < fast.hidden
    assert slow.hidden + slow.exposed > fast.hidden + fast.exposed
    # At 8 cards of 1 GB/s: vision, reference, policy and backward send 63/64 of what they gather and reduce,
    # less what they compute meanwhile.
    beside = [
        (18.7, 2 * 0.630),
        (95.3, 2 * (6.526 + 0.630)),
        (76.6, 2 * 6.526),
        (190.5, 2 * (6.526 * 29 / 28 + 0.630) + 4 * 8.292),
    ]
    expected = sum(63 / 64 * gigabytes / 8 - tera / (0.4 * 989) for tera, gigabytes in beside)
    assert slow.uncovered == pytest.approx(expected, rel=0.01)


def test_hybrid_sends_only_gradients_between_nodes() -> None:
    weights, flops = weights_of(SHAPES["7b"], None), phase_flops(SHAPES["7b"], PAPER, None)
    one, many = (step(weights, flops, PAPER, "hybrid", ranks, Assumptions()) for ranks in (8, 64))
    # An eighth of the float32 gradients, twice 7/8 of it.
    assert many.sent - one.sent == pytest.approx(4 * 8.292 / 8 * 2 * 7 / 8, rel=1e-3)
    assert many.alone == one.alone


def test_the_paper_alone_is_written_into_its_section(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scaling.md"
    file.write_text(
        "<!-- measured: begin -->\nmine\n<!-- measured: end -->\n<!-- model: begin -->\n<!-- model: end -->\n"
    )
    scaling.main(["--paper", "--decode_ms", "10", "--out", str(file)])
    text = file.read_text()
    assert text.startswith("<!-- measured: begin -->\nmine\n")
    assert "`--decode_ms 10`" in text
    assert text.count("| all weights, hybrid | 512 |") == 1
    assert capsys.readouterr().out.strip() in text


def test_an_impossible_assumption_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="--rails 0 is out of range"):
        scaling.main(["--paper", "--rails", "0"])
