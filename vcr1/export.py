"""Export a checkpoint as a Hugging Face folder: ``python -m vcr1.export checkpoint=runs/NAME out=FOLDER``."""

from __future__ import annotations

from vcr1.usage import show_usage

if __name__ == "__main__":  # before anything heavy is loaded
    show_usage("export", __doc__)

import os

# Before torch starts its threads: idle ones sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from torch import Tensor

from vcr1.checkpoints.opening import Checkpoint, find_checkpoint, open_checkpoint
from vcr1.config.building import build, check_targets
from vcr1.config.entry import command_line, exit_on_user_error
from vcr1.errors import UserError
from vcr1.policy import VideoPolicy, floating_type
from vcr1.policy.weights.saving import is_model_folder, save_adapter, save_folder
from vcr1.reporting.card import CARD, base_of, model_card, recipe_of

log = logging.getLogger(__name__)

_POLICY = "policy."
"""What names of the policy's weights begin with; those of a reference are not read."""


@dataclass(frozen=True, slots=True)
class Run:
    """Describe the run that wrote a checkpoint, as its folder states it.

    Attributes:
        source: the file that the config comes from.
        config: what the run was started with.
        git: state of the code, where it was logged.
        report: content of report.json, where there is one.
    """

    source: Path
    config: DictConfig
    git: Mapping[str, Any]
    report: Mapping[str, Any]


def export(cfg: DictConfig) -> Path:
    """Write the folder.

    Returns:
        The folder.

    Raises:
        UserError: the checkpoint, the run's config, the base or the folder to write is missing or unfit.
    """
    for name in ("checkpoint", "out"):
        if not cfg[name]:
            raise UserError(f"{name}= is missing: python -m vcr1.export checkpoint=runs/NAME out=FOLDER")
    return write_export(
        find_checkpoint(Path(cfg.checkpoint)),
        Path(cfg.out).absolute(),
        adapters=cfg.adapters,
        dtype=cfg.dtype,
        config=None if cfg.config is None else Path(cfg.config),
        base=cfg.base,
        trust=cfg.trust,
    )


def write_export(
    path: Path,
    out: Path,
    *,
    adapters: bool = False,
    dtype: str | None = None,
    config: Path | None = None,
    base: str | None = None,
    trust: bool = False,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write the folder of a checkpoint, whole or not at all.

    Args:
        path: the checkpoint.
        out: the folder; an older export there is replaced.
        adapters: write them alone.
        dtype: name of the written weights' type; None for that of the checkpoint.
        config: the run's config; None to look in its folder.
        base: another place of the base model; None where it was.
        trust: allow code that the run's config names, and objects in the checkpoint.
        files: name -> text of further files in the folder.

    Raises:
        UserError: the checkpoint, the run's config, the base or the folder to write is missing or unfit.
    """
    run = read_run(path, config)
    model = run.config.model
    if adapters and model.get("lora") is None:
        raise UserError(f"adapters=true: {run.source} trains without adapters; leave adapters=true out")
    place = str(base or base_of(run.config))
    check_folder(out, [path, Path(place)])
    kind = None if dtype is None else floating_type(dtype, "dtype")
    checkpoint = open_checkpoint(path, trust)
    if checkpoint.rule is not None and "path" in model:  # the base may state another one by now
        with open_dict(model):
            model.text_after_video = checkpoint.rule
    policy = policy_of_run(model, base, run.source, trust)
    fill(policy, checkpoint, run.source)
    recipe = recipe_of(run.config, place, run.git)
    card = model_card(recipe, run.report, checkpoint.step, adapters, policy.model.config)
    more = {CARD: card} | dict(files or {})
    try:
        if adapters:
            save_adapter(policy.model, policy.encoder, out, kind, place, more)
        else:
            save_folder(policy.model, policy.encoder, out, kind, more)
    except (OSError, SafetensorError) as error:
        raise UserError(f"out={out}: cannot be written ({error}); what was there is unchanged") from error
    return out


def read_run(path: Path, config: Path | None = None) -> Run:
    """Find what is known of the run that wrote a checkpoint.

    Args:
        path: of the checkpoint.
        config: the run's config; None to look in its folder.

    Raises:
        UserError: there is no config, or it is none of a training run.
    """
    folder = folder_of_run(path)
    logged = folder / "hparams.yaml"  # of the CSV logger: the config resolved, and the state of the code
    places = [folder / ".hydra" / "config.yaml", logged] if config is None else [config]
    source = next((place for place in places if place.is_file()), None)
    if source is None:
        looked = " and ".join(map(str, places))
        raise UserError(
            f"checkpoint={path}: no config of its run, looked for {looked}; name it by config=FILE"
            if config is None
            else f"config={config}: there is no such file"
        )
    found = _read_config(source)
    if "model" not in found and "config" in found:
        found = found.config
    if not isinstance(found.get("model"), DictConfig):
        raise UserError(f"{source}: no config of a training run, it has no model")
    git: Any = _read_config(logged).get("git") if logged.is_file() else None
    return Run(source, found, dict(git or {}), _read_report(folder / "report.json"))


def folder_of_run(path: Path) -> Path:
    """Return the folder of the run that wrote a checkpoint."""
    folder = path.absolute().parent
    return folder.parent if folder.name == "checkpoints" else folder


def _read_config(path: Path) -> DictConfig:
    try:
        found = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: cannot be read as a config ({str(error).splitlines()[0]})") from error
    if not isinstance(found, DictConfig):
        raise UserError(f"{path}: no config of a training run, it has no model")
    return found


def _read_report(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: no JSON ({error}); mend it or move it away") from error
    return found if isinstance(found, dict) else {}


def check_folder(out: Path, kept: Iterable[Path]) -> None:
    """See that a folder may be written, and replaced where it is there.

    Args:
        out: the folder.
        kept: what must not be replaced.

    Raises:
        UserError: it may not.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out}: there is a file of that name")
    for one in kept:
        place = one.resolve()
        if one.exists() and out.resolve() in (place, *place.parents):
            raise UserError(f"out={out}: would replace {one}, which the export is made from; choose another")
    if out.is_dir() and any(out.iterdir()) and not is_model_folder(out):
        raise UserError(f"out={out}: is no export, and would be replaced; choose a new or empty folder")


def policy_of_run(model: DictConfig, base: str | None, source: Path, trust: bool) -> VideoPolicy:
    """Return the policy as the run began with it, on the CPU.

    Args:
        model: the run's own description.
        base: another place of its weights; None where they are where they were.
        source: the file with the description.
        trust: allow it to name code that the package's own configs do not.

    Raises:
        UserError: it cannot be built, or names such code.
    """
    if not trust:
        check_targets(model, f"{source}: model")
    with open_dict(model):
        model.update({"feature_cache": None} if "feature_cache" in model else {})
        model.update({"path": base} if base is not None else {})
    try:
        policy: VideoPolicy = build(model)
    except UserError as error:
        if base is None and "path" in model:
            raise UserError(f"{error}; base=FOLDER names another place") from error
        raise
    return policy.eval()


@torch.no_grad()
def fill(policy: VideoPolicy, checkpoint: Checkpoint, source: Path) -> None:
    """Give a policy the weights of a checkpoint; under adapters, the base may be missing from it.

    Args:
        policy: as the run began with it; takes the type that the checkpoint has for all its weights.
        checkpoint: weights of the module.
        source: the config of the policy, to be named.

    Raises:
        UserError: weights are missing, are not the model's, or have other shapes; names some.
    """
    saved = {name: kind for name, kind in checkpoint.saved.items() if name.startswith(_POLICY)}
    types = {dtype for _, dtype in saved.values() if dtype.is_floating_point}
    if not policy.is_adapted and len(types) == 1:
        policy.model.to(*types)
    # Parameters themselves: without keep_vars all would look as if they were not trained.
    state: dict[str, Tensor] = policy.state_dict(prefix=_POLICY, keep_vars=True)
    there = {tensor.data_ptr() for name, tensor in state.items() if name in saved}  # tied ones need one name
    faults = {
        "lacks": [
            name
            for name, tensor in state.items()
            if name not in saved
            and tensor.data_ptr() not in there
            and (tensor.requires_grad or not policy.is_adapted)
        ],
        "has, and the model has not,": [name for name in saved if name not in state],
        "has in another shape": [
            name for name in saved if name in state and saved[name][0] != state[name].shape
        ],
    }
    said = [f"it {what} {_some(names)}" for what, names in faults.items() if names]
    if said:
        raise UserError(
            f"checkpoint={checkpoint.path}: a checkpoint of another model than {source} describes: "
            f"{'; '.join(said)}"
        )
    checkpoint.read({name: state[name].detach() for name in saved})


def _some(names: list[str]) -> str:
    shown = ", ".join(name.removeprefix(_POLICY) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def run_job(cfg: DictConfig) -> None:
    """Export, as a Hydra job."""
    transformers.utils.logging.disable_progress_bar()
    with exit_on_user_error():
        out = export(cfg)
    log.info("Hugging Face folder: %s", out)


main = command_line(run_job, "export")

if __name__ == "__main__":
    main()
