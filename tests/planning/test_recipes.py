"""Every recipe composes, is built on the meta device, and prints a plan in which it fits."""

from io import StringIO

import pytest
from rich.console import Console

from vcr1.config.building import build
from vcr1.config.choices import conf_dir
from vcr1.config.entry import load_config
from vcr1.config.sources import selected_tasks
from vcr1.module import GRPOModule, SFTModule
from vcr1.planning import make_plan, show_plan
from vcr1.policy import VideoPolicy, load_encoder
from vcr1.policy.weights.shapes import empty_policy_model

RECIPES = {  # name -> its GPU, in GB
    "videochat_r1": 80,
    "videochat_r1_grounding": 80,
    "videochat_r1_tracking": 80,
    "videochat_r1_grounded_qa": 80,
    "sft_grounding": 80,
    "sft_tracking": 80,
    "sft_grounded_qa": 80,
    "lora_24gb": 24,
    "lora_48gb": 48,
    "qwen3_vl_8b": 80,
}
PAPER = [name for name in RECIPES if name.startswith(("videochat", "sft"))]


def test_every_experiment_is_a_recipe_or_of_the_tiny_model() -> None:
    names = {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")}
    # The second of two stages has no model before the first has made one.
    second = {"sft_then_grpo"}
    assert names == {*RECIPES, *second, "demo", "tiny_base", "tiny_finish", "tiny_long", "tiny_loose"}


@pytest.mark.parametrize(("name", "gpu"), RECIPES.items())
def test_a_recipe_is_built_on_the_meta_device_and_fits(name: str, gpu: int) -> None:
    cfg = load_config([f"experiment={name}", f"plan.gpu_gb={gpu}"])
    lora = build(cfg.model.lora) if cfg.model.lora else None
    model = empty_policy_model(cfg.model.path, list(cfg.model.freeze), lora)
    module = build(cfg.algorithm)(policy=VideoPolicy(model, load_encoder("builtin:tiny")))
    assert {one.device.type for one in module.parameters()} == {"meta"}
    assert isinstance(module, SFTModule if name.startswith("sft") else GRPOModule)
    assert name in (cfg.name, *cfg.tags)

    plan = make_plan(cfg)
    output = StringIO()
    show_plan(plan, Console(file=output, width=120, markup=False, highlight=False))
    assert f"fits a GPU of {gpu} GB." in output.getvalue()
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert plan.setup.weights.trained + plan.setup.weights.adapters == trained


@pytest.mark.parametrize("name", PAPER)
def test_recipes_of_the_paper_keep_its_settings(name: str) -> None:
    cfg = load_config([f"experiment={name}"])
    assert cfg.name == name
    assert cfg.model.path == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert (cfg.trainer.devices, cfg.trainer.max_epochs, cfg.data.loader.batch_size) == (8, 1, 1)
    assert (cfg.data.video.fps, cfg.data.video.total_pixels) == (2, 3584 * 28 * 28)
    assert cfg.algorithm.lr == (2e-5 if name.startswith("sft") else 1e-6)
    if not name.startswith("sft"):
        assert (cfg.algorithm.num_generations, cfg.algorithm.objective.kl_weight) == (8, 0.04)
        assert (cfg.rollout.max_new_tokens, cfg.rollout.temperature) == (1024, 1.0)
    tasks = {"grounding", "grounded_qa", "tracking"}
    single = next((task for task in tasks if name == f"videochat_r1_{task}" or name == f"sft_{task}"), None)
    assert set(selected_tasks(cfg)) == ({single} if single else tasks)
    assert all("train" in cfg.data.sources[task] for task in selected_tasks(cfg))


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "gspo", "rloo", "sft"])
def test_the_demo_keeps_its_pace_with_every_algorithm(algorithm: str) -> None:
    cfg = load_config(["experiment=demo", f"algorithm={algorithm}"])
    assert (cfg.algorithm.lr, cfg.algorithm.warmup_steps, cfg.algorithm.schedule) == (1.5e-4, 5, "cosine")
    assert cfg.algorithm.get("objective", {}).get("kl_weight", 0) == {"dapo": 0, "sft": 0}.get(
        algorithm, 0.04
    )
    assert load_config(["experiment=demo", "algorithm=dapo", "algorithm.lr=1e-5"]).algorithm.lr == 1e-5
    assert load_config(["experiment=demo"]).algorithm.objective.kl_weight == 0.02
