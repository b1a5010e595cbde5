"""Entry points: from a command line to a composed config, and from errors to exit statuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vcr1.checkpoints.saving import FULL
from vcr1.config.choices import check_choices, conf_dir, expand_choices
from vcr1.config.overrides import check_overrides
from vcr1.config.schema import check_config
from vcr1.distributed import ranks
from vcr1.errors import UserError

FAILED_JOBS: list[str] = []
"""Jobs of this process's sweep that the user has to mend, each as a line; the sweep goes on without them."""
_SWEEPING: list[int] = []
"""Id of the process whose command line started a sweep: jobs elsewhere cannot leave it a line."""


def load_config(overrides: Sequence[str] = (), run_dir: str | Path = "runs/notebook") -> DictConfig:
    """Compose the training config as the command line does, for notebooks and scripts.

    Args:
        overrides: as on the command line, e.g. ``["experiment=demo", "trainer.max_steps=10"]``.
        run_dir: the run's folder, which Hydra would choose otherwise.
    """
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        paths = [f"run_dir={Path(run_dir).absolute()}"]
        return compose("train", overrides=[*expand_choices(overrides), *paths])


def command_line(job: Callable[[DictConfig], Any], config: str) -> Callable[[], None]:
    """The main function of an entry point: ``task=a+b`` is written as Hydra wants it, then Hydra takes over.

    Args:
        job: what is called with the composed config, once or for each job of a sweep.
        config: name of the primary config.
    """

    @wraps(job)
    def checked(cfg: DictConfig) -> Any:
        try:
            check_config(cfg)
        except UserError as error:
            print(f"vcr1: {error}", file=sys.stderr, flush=True)
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                sys.exit(2)
            note_failed_job(error)
            return None
        return job(cfg)

    run = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config)(checked)

    def main() -> None:
        with exit_on_user_error():
            arguments = expand_choices(sys.argv[1:])
            # Hydra takes overrides in one row only; -m may stand anywhere in it.
            arguments.sort(key=lambda one: one not in ("-m", "--multirun"))
            check_choices(arguments)
            ranks.check_launcher(arguments)
            sys.argv[1:] = check_overrides(config, arguments)
        FAILED_JOBS.clear()
        _SWEEPING[:] = [os.getpid()]
        run()
        if FAILED_JOBS:
            print(
                "\n".join([f"vcr1: {len(FAILED_JOBS)} of the sweep's jobs failed:", *FAILED_JOBS]),
                file=sys.stderr,
            )
            sys.exit(2)

    return main


def note_failed_job(error: UserError) -> None:
    """Keep a job's failure for the end of the sweep.

    Raises:
        UserError: the job runs in a process of its own, as launchers of clusters start them; it fails there.
    """
    if [os.getpid()] != _SWEEPING:
        raise error
    job = HydraConfig.get().job
    FAILED_JOBS.append(f"  job {job.num} ({job.override_dirname}): {str(error).splitlines()[0]}")


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Within, say what is wrong in a sentence and end with exit status 2, without a stack."""
    try:
        yield
    except UserError as error:
        print(f"vcr1: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except OmegaConfBaseException as error:  # such as a value that must be given
        print(f"vcr1: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in FULL:
            raise
        place = error.filename or "the output"
        print(
            f"vcr1: {place}: {error.strerror}. What was written before is whole; make room, then repeat the "
            f"command",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(2)
