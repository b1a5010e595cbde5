"""Which process of a job this one is, as far as its environment tells: before Lightning has started."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined] # documented there

from vcr1.errors import UserError

STORE_SECONDS = 10.0
"""How long a store may take to answer."""
MAKING_SECONDS = 3600.0
"""How long ranks wait for what the first one makes."""


def launcher(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what started all ranks of this job: ``torchrun``, ``srun``, or None where Lightning will.

    The same rules as Lightning's: torchrun goes first, as it may run inside of Slurm, and a shell that Slurm
    gave to a person is no job.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    interactive = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return "srun" if "SLURM_NTASKS" in environment and not interactive else None


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Number of this process among those that a launcher started; 0 where Lightning starts the others."""
    name = {"torchrun": "RANK", "srun": "SLURM_PROCID"}.get(launcher(environment) or "")
    return int(environment.get(name, 0)) if name else 0


def world_size(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return processes that a launcher started, on all nodes; None where Lightning will start them."""
    name = {"torchrun": "WORLD_SIZE", "srun": "SLURM_NTASKS"}.get(launcher(environment) or "")
    return int(environment.get(name, 1)) if name else None


def only_first(text: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return a text on the first rank, None on others: ``${only_first:.hydra}`` in a config."""
    return text if rank(environment) == 0 else None


def own_name(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a name that other ranks extend by their number: ``${own_name:train}`` in a config."""
    number = rank(environment)
    return f"{name}_rank_{number}" if number else name


def launch_name(pattern: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of this launch, the same on all ranks: ``${launch:%Y-%m-%d}`` in a config.

    Ranks that torchrun started agree on the clock of the first to ask. Those of a Slurm job are called after
    the job and its step, so that a job that is queued again finds its folder. A process alone has its clock.
    """
    now = time.strftime(pattern)
    if (store := agent_store(environment)) is not None:
        return str(store.compare_set(f"vcr1/launch/{pattern}", "", now).decode())
    if environment.get("TORCHELASTIC_RUN_ID", "none") != "none":
        return environment["TORCHELASTIC_RUN_ID"]
    if launcher(environment) == "srun" and "SLURM_STEP_ID" in environment:
        return f"slurm-{environment.get('SLURM_JOB_ID', '0')}.{environment['SLURM_STEP_ID']}"
    return now


def from_first(name: str, make: Callable[[], str], environment: Mapping[str, str] = os.environ) -> str:
    """Return a text that the first rank makes, on all ranks that torchrun started; else each makes its own.

    Args:
        name: of the text, another one for each.
        make: makes it.
        environment: of the process.
    """
    if (store := agent_store(environment)) is None:
        return make()
    key = f"vcr1/{name}/{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if rank(environment) == 0:
        store.set(key, make())
    else:
        store.wait([key], timedelta(seconds=MAKING_SECONDS))
    return str(store.get(key).decode())


def agent_store(environment: Mapping[str, str] = os.environ) -> TCPStore | None:
    """Return the store that torchrun keeps for its ranks from their first moment on; None without one.

    Raises:
        UserError: there should be one, but it does not answer.
    """
    if launcher(environment) != "torchrun" or environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    if (store := open_store(environment)) is None:
        place = f"{environment.get('MASTER_ADDR')}:{environment.get('MASTER_PORT')}"
        raise UserError(f"rank {rank(environment)}: torchrun does not answer at {place}; has its node ended?")
    return store


def open_store(environment: Mapping[str, str] = os.environ) -> TCPStore | None:
    """A connection of one's own to the store at MASTER_ADDR and MASTER_PORT; None where nobody answers."""
    try:
        return TCPStore(
            environment["MASTER_ADDR"],
            int(environment["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=STORE_SECONDS),
            wait_for_workers=False,
        )
    except (KeyError, DistError):
        return None


def check_launch(
    devices: int | str, nodes: int | str | None, environment: Mapping[str, str] = os.environ
) -> None:
    """See that as many ranks were started as the Trainer will want.

    Raises:
        UserError: another number of them; or several nodes, but nothing started the ranks of the others.
    """
    found, nodes = world_size(environment), int(nodes or 1)
    if found is None and nodes > 1:
        raise UserError(
            f"trainer.num_nodes={nodes}: start the ranks of all nodes by torchrun or srun "
            f"(see 'Several machines' in the README); this process was started alone"
        )
    if found is not None and str(devices).isdigit() and int(devices) * nodes != found:
        raise UserError(
            f"trainer.devices={devices} trainer.num_nodes={nodes}: {launcher(environment)} started {found} "
            f"ranks; set them to the ranks of each node and the number of nodes"
        )


def check_launcher(overrides: Sequence[str], package: str = "hydra_plugins.hydra_submitit_launcher") -> None:
    """See that the package is there with which a sweep is given to Slurm.

    Raises:
        UserError: it is not.
    """
    if "hydra/launcher=slurm" not in overrides:
        return
    try:
        found = find_spec(package) is not None
    except ModuleNotFoundError:  # of what stands before the dot
        found = False
    if not found:
        raise UserError("hydra/launcher=slurm needs an extra of this package: pip install 'vcr1[slurm]'")
