"""Will it fit? ``python -m vcr1.plan experiment=videochat_r1 plan.gpu_gb=40``.

Takes the overrides of the training run and computes, without weights, data or a GPU, what it will need: bytes
on each GPU by what they are for and when, the floating-point work of an update, and what to change where it
does not fit. Printed, and written to ``plan.json`` in the run's folder.
Exit status: 0 where the run fits, 1 where it does not, 2 where no plan can be made.
"""

from __future__ import annotations

from vcr1.usage import show_usage

if __name__ == "__main__":  # before anything heavy is loaded
    show_usage("plan", __doc__)

import json
import sys
from pathlib import Path

from omegaconf import DictConfig

from vcr1.config.entry import command_line, exit_on_user_error
from vcr1.inference.weights import starting_weights
from vcr1.planning import make_plan, show_plan, with_strategy
from vcr1.records.files import write_whole


def run_job(cfg: DictConfig) -> None:
    """Plan, print and write, as a Hydra job."""
    with exit_on_user_error():
        starting_weights(cfg).ready()
        plan = make_plan(with_strategy(cfg))
    path = Path(cfg.run_dir) / "plan.json"
    write_whole(path, json.dumps(plan.as_dict(), indent=2) + "\n")
    show_plan(plan)
    if not plan.fits:
        sys.exit(1)


main = command_line(run_job, "plan")

if __name__ == "__main__":
    main()
