"""Bytes: small parts by hand, whole updates against what they really allocate."""

from dataclasses import replace
from pathlib import Path

import pytest
from measured_runs import Run, measure, write_model

from vcr1.planning import (
    MOMENTS,
    ModelShape,
    PlannedSharding,
    Precision,
    Setup,
    Tower,
    WeightSizes,
    Workload,
    memory,
)
from vcr1.planning.activations import cache_bytes, entering, grown, head_bytes, norm_bytes
from vcr1.policy import LoRA

TEXT = Tower(layers=2, hidden=8, intermediate=16, heads=4, kv_heads=2, head_dim=2)
SIGHT = Tower(layers=3, hidden=4, intermediate=8, heads=2, kv_heads=2, head_dim=2)
SHAPE = ModelShape(TEXT, SIGHT, 100, False, 24, 2, 2, 4, 4, 1, 1, 384, False)
WEIGHTS = WeightSizes(total=10_000, trained=8_000, vision=1_000, head=800)
LOAD = Workload(prompts=1, vision_tokens=6, text_tokens=4, steps=2, group=2, completion=5, expected=5)
SETUP = Setup(SHAPE, WEIGHTS, LOAD, Precision(), PlannedSharding(), checkpointing=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of 7 million parameters."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "run",
    [
        pytest.param(Run(), id="all weights"),
        pytest.param(Run(checkpointing=True, kl_weight=0.04), id="checkpointing and a reference"),
        pytest.param(Run(kl_weight=0.04, lora=LoRA(rank=8)), id="adapters"),
        pytest.param(Run(checkpointing=True, lora=LoRA(rank=8)), id="adapters and checkpointing"),
        pytest.param(Run(kl_weight=0.04, precision="bf16-mixed"), id="mixed precision"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_peak_of_real_updates_is_within_fifteen_percent(model: Path, run: Run) -> None:
    measured, setup = measure(model, run)
    assert memory(setup).peak == pytest.approx(measured, rel=0.15)


def state(setup: Setup, item: str) -> list[int]:
    return [memory(setup).items[item].get(moment, 0) for moment in MOMENTS]


def test_what_lives_as_long_as_the_run() -> None:
    assert state(SETUP, "weights") == [40_000] * 6
    # Gradients are cleared between the forward and the backward pass.
    assert state(SETUP, "gradients") == [32_000, 32_000, 32_000, 0, 32_000, 32_000]
    # Two moments, and on a GPU a temporary of the size of one.
    assert state(SETUP, "optimizer") == [64_000] * 5 + [96_000]
    assert state(SETUP, "reference") == [40_000] * 6
    on_cpu = replace(SETUP, sharding=PlannedSharding(on_gpu=False))
    assert state(on_cpu, "optimizer") == [64_000] * 6


def test_a_reference_costs_nothing_without_a_weight_or_under_adapters() -> None:
    assert state(replace(SETUP, load=replace(LOAD, reference=False)), "reference") == [0] * 6
    adapted = replace(WEIGHTS, trained=0, adapters=500, rank=2)
    assert state(replace(SETUP, weights=adapted), "reference") == [0] * 6
    # Adapters are float32 whatever the base has.
    half = replace(SETUP, weights=adapted, precision=Precision(2, 2, 2))
    assert state(half, "weights") == [20_000 + 2_000] * 6
    assert state(half, "gradients") == [2_000, 2_000, 2_000, 0, 2_000, 2_000]


def test_ddp_keeps_buckets_and_fsdp_cuts_everything_up() -> None:
    ddp = replace(SETUP, sharding=PlannedSharding(4, buckets=1, kept=True))
    assert state(ddp, "gradients") == [64_000] * 6
    fsdp = replace(SETUP, sharding=PlannedSharding(4, 4))
    assert state(fsdp, "weights") == [10_000] * 6
    assert state(fsdp, "gradients") == [8_000, 8_000, 8_000, 0, 8_000, 8_000]
    # Two blocks of 2·8·8 + 2·8·4 + 3·8·16 = 576, both ends of 800, and the merger's 16·(16 + 8) = 384.
    gathered = 4 * (2 * 576 + 1600 + 384)
    assert state(fsdp, "gathered, cast")[:3] == [gathered] * 3
    offloaded = replace(SETUP, sharding=PlannedSharding(4, 4, offload=True))
    assert state(offloaded, "weights") == state(offloaded, "optimizer") == [0] * 6
    assert state(offloaded, "gathered, cast") == state(fsdp, "gathered, cast")


def test_autocast_copies_trained_weights_for_a_forward() -> None:
    assert state(SETUP, "gathered, cast") == [0] * 6
    mixed = replace(SETUP, precision=Precision(4, 2, 4), checkpointing=True)
    # Decoding has all 10,000 weights in half precision at once.
    assert state(mixed, "gathered, cast") == [20_000, *[16_000 + 1_152] * 2, 1_152, 1_152, 0]


def test_parts_of_blocks() -> None:
    # Five matrices take their input from two norms; with autocast each keeps a copy.
    assert entering(Precision(), (3, 2), adapters=False) == 4 * 2
    assert entering(Precision(4, 2, 4), (3, 2), adapters=False) == 2 * 5
    assert entering(Precision(2, 2, 2), (3, 2), adapters=True) == 2 * 5
    # An RMSNorm keeps its input and, for the gradient of its weight, what it has normalised.
    assert norm_bytes(TEXT, Precision(), trained=True) == 2 * 8 * (4 + 4)
    assert norm_bytes(TEXT, Precision(), trained=False) == 2 * 8 * 4
    assert norm_bytes(replace(TEXT, rms=False), Precision(), trained=True) == 2 * 8 * 4


def test_logits_are_never_all_alive() -> None:
    assert head_bytes(SHAPE, 10, Precision()) == 10 * 100 * 16
    assert head_bytes(SHAPE, 5000, Precision(4, 2, 4)) == 1024 * 100 * 14


def test_keys_and_values_of_a_prompt_are_there_once() -> None:
    # 2 layers · 4 wide · (4 + 4) bytes = 64 a column; 64 columns for completions, which grow layer by layer.
    assert [grown(count) for count in (5, 64, 65, 200)] == [64, 64, 128, 256]
    assert cache_bytes(SHAPE, Precision(), 1, 2, LOAD) == 64 * (10 + 2 * 64) + 32 * 2 * 64
    # Several prompts are read one by one, then laid side by side.
    assert cache_bytes(SHAPE, Precision(), 2, 2, LOAD) == 64 * 2 * (20 + 2 * 64) + 32 * 2 * 64


def test_passes_and_checkpointing_save_activations() -> None:
    kept = memory(SETUP)
    checkpointed = memory(replace(SETUP, checkpointing=True))
    assert checkpointed.at("forward") < kept.at("forward")
    passes = memory(replace(SETUP, load=replace(LOAD, max_tokens=15)))
    assert LOAD.passes() == [(10, [10])]
    assert replace(LOAD, max_tokens=15).passes() == [(10, [5]), (10, [5])]
    assert passes.items["language"]["backward"] < kept.items["language"]["backward"]
    frozen = memory(replace(SETUP, weights=replace(WEIGHTS, vision_trained=False)))
    assert frozen.items["vision"]["forward"] < kept.items["vision"]["forward"]


def test_an_update_is_decoded_at_once_within_the_bound_of_rows() -> None:
    load = replace(LOAD, prompts=2, group=4, micro_batches=3)
    assert load.decoded == (6, 4)
    assert replace(load, rows=17).decoded == (4, 4)
    assert replace(load, rows=3).decoded == (1, 3)
    assert replace(load, samples=False, eval_prompts=5).decoded == (5, 1)
