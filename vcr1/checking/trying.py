"""Trying what training would do: every video, and every sample against its video."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress

from vcr1.config.preflight import check_all, check_frames, expected_world_size
from vcr1.config.sources import training_order
from vcr1.data import misfit, oddities
from vcr1.errors import UserError
from vcr1.readers import Annotations
from vcr1.records import Sample
from vcr1.tasks import Task
from vcr1.video import DecodeLimits
from vcr1.video.journal import Journal
from vcr1.video.probing import Outcome, Trial, probe_all

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tried:
    """A sample, and what training would make of it.

    Attributes:
        task: of the sample.
        sample: as the annotations have it.
        trial: the decoding that training would do.
        outcome: of that.
    """

    task: Task
    sample: Sample
    trial: Trial
    outcome: Outcome

    @property
    def misfit(self) -> str | None:
        """Why training leaves the sample out though its video is usable: the judgement of its data set."""
        if self.outcome.status != "ok" or self.trial.frames is not None:
            return None
        return misfit(self.task, self.sample, self.outcome.duration)

    @property
    def lost(self) -> bool:
        """Return whether training would count the sample as lost."""
        return self.outcome.status != "ok" or self.misfit is not None

    @property
    def oddities(self) -> list[str]:
        """Return what is odd about it though it is used."""
        if self.lost or self.trial.frames is not None:
            return []
        return oddities(self.task, self.sample, self.outcome.duration)


def check_settings(settings: DictConfig) -> None:
    """See that the settings of ``check`` make sense.

    Raises:
        UserError: one is not a number that does.
    """
    for name, least in (("workers", 1), ("compare", 0), ("limit", 1)):
        value = settings[name]
        if name == "limit" and value is None:
            continue
        if not isinstance(value, int) or not least <= value < math.inf:
            raise UserError(f"check.{name}={value}: must be a whole number of at least {least}")


def refusals(
    cfg: DictConfig, tasks: Mapping[str, Task], annotations: Mapping[str, Mapping[str, Annotations]]
) -> list[str]:
    """Return why training would not even begin with these annotations, in the words of training itself."""
    checks: list[Callable[[], object]] = [
        partial(check_frames, tasks[name], found.samples, f"data.sources.{name}.{split}")
        for name, splits in annotations.items()
        for split, found in splits.items()
    ]
    trained = {name: splits for name, splits in annotations.items() if "train" in splits}
    if trained:
        checks.append(partial(training_order, cfg, trained, expected_world_size(cfg)))
    try:
        check_all(checks)
    except UserError as error:
        return str(error).split("\n")
    return []


def try_all(trials: Iterable[Trial], settings: DictConfig, limits: DecodeLimits) -> dict[Trial, Outcome]:
    """Return the outcome of each trial: from the journal where it is known, else by decoding.

    Raises:
        UserError: the configuration of a trial makes no sense, or the journal cannot be written.
    """
    unique = list(dict.fromkeys(trials))
    journal = Journal(settings.journal, limits, name=f"check.journal={settings.journal}")
    journal.check()
    outcomes = {trial: known for trial in unique if (known := journal.find(trial)) is not None}
    pending = [trial for trial in unique if trial not in outcomes]
    log.info("%d videos: %d known from %s", len(unique), len(outcomes), settings.journal)
    # Without a thread that redraws it: the workers are forked.
    with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
        bar = progress.add_task("decoding", total=len(pending))
        for trial, outcome in probe_all(pending, settings.workers, limits):
            if outcome.status == "refused":
                raise UserError(outcome.message)
            outcomes[trial] = outcome
            journal.add(trial, outcome)
            progress.update(bar, advance=1, refresh=True)
    return outcomes
