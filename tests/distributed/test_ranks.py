"""Who this process is, as torchrun, srun or nobody says."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from vcr1.distributed.ranks import (
    agent_store,
    check_launch,
    launch_name,
    launcher,
    only_first,
    own_name,
    rank,
    world_size,
)
from vcr1.errors import UserError

ELASTIC = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "16"}
SLURM = {"SLURM_NTASKS": "16", "SLURM_PROCID": "5", "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "2"}
PATTERN = "%Y-%m-%d_%H-%M-%S"


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, (None, 0, None)),
        ({"RANK": "3", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}, (None, 0, None)),
        (ELASTIC, ("torchrun", 3, 16)),
        (SLURM, ("srun", 5, 16)),
        (SLURM | ELASTIC, ("torchrun", 3, 16)),
        (SLURM | {"SLURM_JOB_NAME": "interactive"}, (None, 0, None)),
    ],
)
def test_the_environment_tells_the_rank(environment: dict[str, str], found: tuple[object, ...]) -> None:
    assert (launcher(environment), rank(environment), world_size(environment)) == found


def test_only_the_first_rank_has_the_plain_names() -> None:
    assert (only_first(".hydra", {}), own_name("train", {})) == (".hydra", "train")
    assert (only_first(".hydra", ELASTIC), own_name("train", ELASTIC)) == (None, "train_rank_3")


def test_the_name_of_a_launch_is_the_same_on_all_ranks() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", launch_name(PATTERN, {}))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", launch_name("%Y-%m-%d", ELASTIC))  # no id, no store
    assert launch_name(PATTERN, ELASTIC | {"TORCHELASTIC_RUN_ID": "mine"}) == "mine"
    assert launch_name(PATTERN, SLURM) == launch_name(PATTERN, SLURM | {"SLURM_PROCID": "0"}) == "slurm-77.2"


def test_ranks_of_torchrun_agree_on_the_clock_of_the_first() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    first = launch_name(PATTERN, ELASTIC | place)
    store.set(f"vcr1/launch/{PATTERN}", "as the first has said")
    assert first == first.strip() != ""
    assert launch_name(PATTERN, ELASTIC | place | {"RANK": "4"}) == "as the first has said"
    assert agent_store(place) is None  # not of torchrun


def test_a_launch_of_another_size_is_refused() -> None:
    check_launch(1, None, {})
    check_launch(8, 1, {})  # Lightning starts them
    check_launch(8, 2, ELASTIC)
    check_launch("auto", 2, SLURM)
    with pytest.raises(
        UserError, match=r"^trainer\.num_nodes=2: start the ranks of all nodes by torchrun or"
    ):
        check_launch(8, 2, {})
    for environment, name in ((ELASTIC, "torchrun"), (SLURM, "srun")):
        with pytest.raises(UserError, match=rf"num_nodes=1: {name} started 16 ranks"):
            check_launch(8, 1, environment)


def test_the_slurm_script_starts_a_rank_on_every_gpu(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "docs" / "slurm.sh"
    assert subprocess.run(["bash", "-n", script], capture_output=True).returncode == 0
    stand_in = tmp_path / "srun"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NUM_NODES": "2"}
    command = ["bash", str(script), "task=grounding", "name=a b"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert (
        said.split("python -m ")[1]
        == "vcr1.train trainer.num_nodes=2 trainer.devices=8 task=grounding name=a b\n"
    )
    assert "--kill-on-bad-exit=1" in said
    directives = dict(re.findall(r"#SBATCH --([a-z-]+)=(\S+)", script.read_text()))
    assert directives["ntasks-per-node"] == directives["gpus-per-node"] == "8"
