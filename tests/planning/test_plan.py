"""Sizes of published models, work, advice, what is printed, and the entry point."""

import json
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from vcr1.config.entry import load_config
from vcr1.errors import UserError
from vcr1.planning import (
    Plan,
    advise,
    announce_plan,
    make_plan,
    memory,
    plan_of,
    setup_of,
    shape_of,
    show_plan,
    work,
)
from vcr1.planning.advice import adapter_parameters
from vcr1.planning.settings import precision_of, sharding_of
from vcr1.policy.weights.shapes import carried_shapes, empty_model, model_config

BIG = ("trainer.devices=8",)


def printed(plan: Plan) -> str:
    output = StringIO()
    show_plan(plan, Console(file=output, width=120, markup=False, highlight=False))
    return output.getvalue()


@pytest.mark.parametrize(
    ("name", "billions", "vision"),  # as published
    [
        ("Qwen2.5-VL-3B-Instruct", 3.755, 0.669),
        ("Qwen2.5-VL-7B-Instruct", 8.292, 0.677),
        ("Qwen3-VL-8B-Instruct", 8.767, 0.576),
        ("GLM-4.1V-9B-Thinking", 10.293, 0.892),
    ],
)
def test_published_models_are_known_without_the_hub(name: str, billions: float, vision: float) -> None:
    assert name in carried_shapes()
    model = empty_model(model_config(f"Qwen/{name}"))
    assert sum(one.numel() for one in model.parameters()) / 1e9 == pytest.approx(billions, abs=1e-3)
    seen = sum(one.numel() for one in model.get_submodule("model.visual").parameters())
    assert seen / 1e9 == pytest.approx(vision, abs=1e-3)
    assert {one.device.type for one in model.parameters()} == {"meta"}


def test_a_folder_s_own_configuration_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen2.5-VL-7B-Instruct"
    folder.mkdir()
    config = model_config("builtin:tiny")
    config.save_pretrained(folder)
    assert model_config(str(folder)).get_text_config().hidden_size == 128


def test_the_sizes_of_the_paper_s_run() -> None:
    setup = setup_of(load_config(BIG))
    assert (setup.shape.text.layers, setup.shape.text.queries, setup.shape.text.keys) == (28, 3584, 512)
    assert (setup.shape.window, setup.shape.full_blocks, setup.shape.spatial) == (64, 4, 28)
    load = setup.load
    # No length of video up to three minutes takes more than the budget of 3,584 tokens; 720p comes close.
    assert 3400 < load.vision_tokens <= 3584
    assert (load.group, load.completion, load.prompts, load.samples) == (8, 1024, 1, True)
    assert setup.weights.trained == setup.weights.total
    assert (setup.precision.weights, setup.precision.compute, setup.checkpointing) == (4, 2, True)


def test_the_shape_of_qwen3_vl_has_deepstack_and_stamps() -> None:
    shape = shape_of(model_config("Qwen/Qwen3-VL-8B-Instruct"))
    assert (shape.mergers, shape.stamped, shape.window, shape.spatial) == (4, True, None, 32)
    assert not shape.vision.gated


def test_the_shape_of_glm_has_gated_blocks_and_a_merger_of_its_own() -> None:
    config = model_config("zai-org/GLM-4.1V-9B-Thinking")
    shape, model = shape_of(config), empty_model(config)
    sizes = {name: one.numel() for name, one in model.named_parameters()}
    block = sum(size for name, size in sizes.items() if "visual.blocks.0." in name)
    mergers = sum(size for name, size in sizes.items() if "visual.merger" in name or "downsample" in name)
    assert shape.vision.block_parameters == pytest.approx(block, rel=1e-3)
    assert shape.merger_parameters == pytest.approx(mergers, rel=1e-3)
    assert (shape.stamped, shape.window, shape.spatial, shape.text.keys) == (True, None, 28, 256)


def test_adapters_are_counted_as_they_are_put_in() -> None:
    overrides = ["adapter=lora", "model.lora.rank=8", "experiment=demo"]
    setup = setup_of(load_config(overrides))
    assert setup.weights.adapters == adapter_parameters(setup.shape, 8)
    assert (setup.weights.trained, setup.weights.vision_trained) == (0, False)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["trainer.precision=bf16-mixed"], (4, 2, 4)),
        (["trainer.precision=32-true"], (4, 4, 4)),
        (["trainer.precision=bf16-true"], (2, 2, 2)),
        (["trainer.precision=bf16-mixed", "model.dtype=bfloat16"], (2, 2, 2)),
        # Shards are gathered in the type of the products.
        (["trainer.precision=bf16-mixed", "strategy=fsdp", "trainer.devices=2"], (4, 2, 2)),
    ],
)
def test_bytes_of_numbers(overrides: list[str], expected: tuple[int, int, int]) -> None:
    cfg = load_config(overrides)
    found = precision_of(cfg, sharding_of(cfg))
    assert (found.weights, found.compute, found.stream) == expected


@pytest.mark.parametrize(
    ("overrides", "ranks", "shards", "buckets"),
    [
        ([], 1, 1, 0),
        (["trainer.devices=4"], 4, 1, 1),
        (["trainer.devices=4", "strategy=ddp"], 4, 1, 0),
        (["trainer.devices=4", "strategy=fsdp"], 4, 4, 0),
        (["trainer.devices=4", "trainer.num_nodes=2", "strategy=fsdp"], 8, 8, 0),
        (["trainer.devices=4", "trainer.num_nodes=2", "strategy=fsdp_hybrid"], 8, 4, 0),
    ],
)
def test_how_a_run_is_spread(overrides: list[str], ranks: int, shards: int, buckets: int) -> None:
    found = sharding_of(load_config(overrides))
    assert (found.ranks, found.shards, found.buckets) == (ranks, shards, buckets)


def test_work_of_the_shared_prompt() -> None:
    setup = setup_of(load_config([*BIG, "model.freeze=[vision]", "model.gradient_checkpointing=false"]))
    load = replace(setup.load, reference=False)
    plain = work(replace(setup, load=load))
    # Two gradients of every product; without checkpointing nothing is computed again.
    assert plain["backward"] == pytest.approx(2 * plain["forward"])
    assert plain["reference"] == 0
    # Twice the parameters for each token, but for attention and the head.
    tokens = load.prompt + 8 * load.expected
    block = setup.shape.text.block_parameters
    assert plain["forward"] > 2 * 28 * block * tokens
    assert plain["forward"] < 1.25 * 2 * 28 * block * tokens
    checkpointed = work(replace(setup, load=load, checkpointing=True))
    assert checkpointed["backward"] == pytest.approx(3 * plain["forward"])
    twice = work(replace(setup, load=replace(load, micro_batches=2)))
    assert twice["rollout"] == pytest.approx(2 * plain["rollout"])


def test_what_does_not_fit_comes_with_overrides_that_make_it_fit() -> None:
    setup = setup_of(load_config(BIG))
    ways = advise(setup, 78 * 10**9)
    assert [way.overrides for way in ways] == [
        ("strategy=fsdp",),
        ("adapter=lora model.dtype=bfloat16 algorithm.lr=1e-5",),
    ]
    assert all(way.fits and way.peak <= 78 * 10**9 for way in ways)
    # The overrides, taken, lead where the advice says.
    for way in ways:
        followed = setup_of(load_config([*BIG, *" ".join(way.overrides).split()]))
        assert memory(followed).peak == pytest.approx(way.peak, rel=0.02)
    assert advise(setup, 10**12) == []


def test_where_nothing_helps_enough_the_closest_way_is_named() -> None:
    (way,) = advise(setup_of(load_config(BIG)), 10**9)
    assert not way.fits
    assert way.peak > 10**9


def test_a_plan_is_printed_with_its_verdict() -> None:
    plan = make_plan(load_config([*BIG, "plan.gpu_gb=80"]))
    text = printed(plan)
    assert "8.29 B parameters, 8.29 B trained; 8 ranks" in text
    for item in ("weights", "gradients", "optimizer", "reference", "KV cache", "logits", "TFLOP"):
        assert item in text
    assert "does not fit a GPU of 80 GB, of which 78 GB can be used" in text
    assert "fits with: strategy=fsdp" in text
    assert ": fits a GPU of 300 GB." in printed(plan_of(plan.setup, 298 * 10**9, "a GPU of 300 GB"))


def test_a_run_on_a_cpu_is_held_against_nothing() -> None:
    plan = make_plan(load_config(["experiment=demo"]))
    assert plan.fits
    assert printed(plan).rstrip().endswith("in a process on the CPU.")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("plan.gpu_gb=0", r"plan\.gpu_gb=0: must be a positive number"),
        ("+plan.gpus=2", r"plan\.gpus does not exist; it knows show, gpu_gb"),
        ("model.path=no/such-model", r"model\.path=no/such-model: no model found"),
        ("model=tiny_scratch", r"vcr1\.tiny\.build_policy has no model\.path"),
        ("model.freeze=[eyes]", r"model\.freeze names eyes"),
    ],
)
def test_what_cannot_be_planned_is_named(
    monkeypatch: pytest.MonkeyPatch, override: str, problem: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=problem):
        make_plan(load_config([override]))


@pytest.mark.parametrize(
    ("override", "rule", "words"),
    [
        ("model.text_after_video=null", "largest", "text behind a video: at the largest position so far + 1"),
        ("model.text_after_video=frame", "frame", "after the frame's larger side (transformers 5.3 to 5.23)"),
    ],
)
def test_a_plan_states_where_the_text_behind_a_video_goes_on(override: str, rule: str, words: str) -> None:
    plan = make_plan(load_config(["experiment=demo", override]))
    assert plan.as_dict()["text_after_video"] == rule
    assert words in printed(plan).replace("\n", " ")


def test_training_announces_its_plan(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    announce_plan(load_config(["experiment=demo"]))
    assert caplog.text == ""
    announce_plan(load_config(["model=tiny_scratch"]))  # trains, but without a plan
    assert "no plan: model: vcr1.tiny.build_policy has no model.path" in caplog.text
    assert capsys.readouterr().out == ""
    announce_plan(load_config(["experiment=demo", "plan.show=true"]))
    assert "1.22 M parameters" in capsys.readouterr().out


def test_the_entry_point_prints_and_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vcr1.plan", "model=qwen2_5_vl_3b", "plan.gpu_gb=24", "run_dir=out"]
    (tmp_path / "out").mkdir()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1, done.stderr
    assert "does not fit a GPU of 24 GB" in done.stdout
    written = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert written["fits"] is False
    assert written["parameters"]["total"] == pytest.approx(3.755e9, rel=1e-3)
