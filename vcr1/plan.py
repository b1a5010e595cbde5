"""Will it fit? ``python -m vcr1.plan experiment=videochat_r1 plan.gpu_gb=40``.

Takes the overrides of the training run and computes, without weights, data or a GPU, what it will need: bytes
on each GPU by what they are for and when, the floating-point work of an update, and what to change where it
does not fit. Printed, and written to ``plan.json`` in the run's folder.
Exit status: 0 where the run fits, 1 where it does not, 2 where no plan can be made.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from omegaconf import DictConfig

from vcr1.config.building import command_line
from vcr1.errors import UserError
from vcr1.planning import make_plan, show, with_strategy


def run_job(cfg: DictConfig) -> None:
    """The Hydra job: plan, print, write; what is wrong is said without a stack."""
    try:
        plan = make_plan(with_strategy(cfg))
    except UserError as error:
        print(f"vcr1: {error}", file=sys.stderr)
        sys.exit(2)
    path = Path(cfg.run_dir) / "plan.json"
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(json.dumps(plan.as_dict(), indent=2) + "\n", encoding="utf-8")
    scratch.replace(path)
    show(plan)
    if not plan.fits:
        sys.exit(1)


main = command_line(run_job, "plan")

if __name__ == "__main__":
    main()
