import pytest

from vcr1.config.entry import load_config
from vcr1.planning import with_strategy

DDP = "lightning.pytorch.strategies.DDPStrategy"
FSDP = "vcr1.distributed.sharded.ShardedStrategy"


@pytest.mark.parametrize(
    ("overrides", "target"),
    [
        # All weights of the 7B with their gradients and moments take 199 GB, its adapters little.
        (["trainer.devices=8"], FSDP),
        (["trainer.devices=1", "trainer.num_nodes=2"], FSDP),
        (["experiment=lora_24gb", "plan.gpu_gb=24", "trainer.devices=8"], DDP),
        (["experiment=demo", "trainer.accelerator=gpu", "trainer.devices=2"], DDP),
    ],
)
def test_several_gpus_share_what_one_cannot_hold(overrides: list[str], target: str) -> None:
    cfg = load_config(["plan.gpu_gb=80", *overrides])
    chosen = with_strategy(cfg)
    assert chosen.trainer.strategy._target_ == target
    assert cfg.trainer.strategy == "auto"
    if target == DDP:
        assert chosen.trainer.strategy.gradient_as_bucket_view


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.devices=1"],
        ["trainer.devices=8", "trainer.accelerator=cpu"],
        ["trainer.devices=8", "strategy=ddp"],
        ["trainer.devices=8", "strategy=fsdp_hybrid"],
    ],
)
def test_what_is_named_or_alone_stays(overrides: list[str]) -> None:
    cfg = load_config(overrides)
    assert with_strategy(cfg) is cfg
