"""The model card of an export: what the model is, how it is loaded, what it was trained on and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vcr1 import __version__
from vcr1.errors import UserError
from vcr1.policy.families import family_named

CARD = "README.md"
"""Its name in a folder."""
_SETTINGS = {
    "algorithm": None,
    "model": None,
    "data.video": None,
    "data.loader": ("batch_size",),
    "trainer": ("devices", "num_nodes", "accumulate_grad_batches", "precision", "max_epochs", "max_steps"),
}
"""Parts of a run's config that say how it learned, and of some only these keys; no folders, no hosts."""
_LEFT_OUT = ("_partial_", "path", "feature_cache", "feature_cache_gb")
_LOADING = """\
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained("{folder}")
model = AutoModelForImageTextToText.from_pretrained("{base}", dtype="auto")"""


_POSITIONS = "## Positions"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model was trained, in plain values.

    Attributes:
        base: the model that training began with.
        tasks: task -> its reward weights.
        data: task -> the reader of its training samples and the files' names.
        settings: algorithm, model, trainer and so on; part -> key -> value.
        git: ``commit`` and ``dirty`` of the folder that the run was started in; may be empty.
    """

    base: str
    tasks: Mapping[str, Mapping[str, float]]
    data: Mapping[str, str]
    settings: Mapping[str, Mapping[str, Any]]
    git: Mapping[str, Any] = field(default_factory=dict)


def recipe_of(cfg: DictConfig, base: str | None = None, git: Mapping[str, Any] | None = None) -> Recipe:
    """Return what a card says of a run's config.

    Args:
        cfg: of a training run.
        base: the model that training began with; None for what the config names.
        git: state of the code.

    Raises:
        UserError: a value of the config refers to one that does not exist.
    """
    tasks = cfg.get("tasks") or {}
    settings = {}
    for part, keys in _SETTINGS.items():
        found = _plain(OmegaConf.select(cfg, part), part)
        chosen = found.keys() - _LEFT_OUT if keys is None else keys
        settings[part] = {key: found[key] for key in found if key in chosen and found[key] is not None}
    sources = {name: OmegaConf.select(cfg, f"data.sources.{name}.train") for name in tasks}
    return Recipe(
        base=base or base_of(cfg),
        tasks={str(name): _plain(task.get("weights"), f"tasks.{name}") for name, task in tasks.items()},
        data={
            str(name): _reader(_plain(one, f"data.sources.{name}")) for name, one in sources.items() if one
        },
        settings=settings,
        git=git or {},
    )


def base_of(cfg: DictConfig) -> str:
    """Return name of the model that a run begins with: its path, or what makes one without a path."""
    return str(cfg.model.get("path") or cfg.model.get("_target_"))


def model_card(
    recipe: Recipe,
    report: Mapping[str, Any] | None = None,
    step: int | None = None,
    adapter: bool = False,
    config: Any = None,
) -> str:
    """Return the text of README.md.

    Args:
        recipe: of the run.
        report: content of the run's report.json, if it has one.
        step: updates that these weights had.
        adapter: whether the folder holds adapters alone.
        config: Hugging Face config of the model, which states the rule of its positions.
    """
    algorithm = str(recipe.settings["algorithm"].get("_target_", "?")).split(".")[-1].removesuffix("Module")
    tasks = ", ".join(name.replace("_", " ") for name in recipe.tasks) or "no task"
    what = "Adapters (LoRA) for" if adapter else "The weights of"
    parts = [
        f"# {_short(recipe.base)} trained on {tasks}",
        f"{what} `{_short(recipe.base)}`, trained by {algorithm} with vcr1 to answer questions about videos.",
        "## Loading",
        _loading(recipe, adapter),
        *_positions(config, adapter),
        "## Training",
        "\n".join(_facts(recipe, algorithm, step)),
        "Settings:",
        f"```yaml\n{OmegaConf.to_yaml(dict(recipe.settings)).strip()}\n```",
        *_results(report or {}, step),
    ]
    return f"---\n{_front_matter(recipe, algorithm, adapter)}\n---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(recipe: Recipe, algorithm: str, adapter: bool) -> str:
    """Return what the hub reads; a base that is a folder of this machine is nothing to it."""
    base: dict[str, Any] = {"base_model": recipe.base} if _on_hub(recipe.base) else {}
    if base:
        base["base_model_relation"] = "adapter" if adapter else "finetune"
    data = ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag="video-text-to-text",
        tags=["vcr1", algorithm.lower(), "video", *(["lora"] if adapter else []), *recipe.tasks],
        **base,
    )
    return str(data.to_yaml())


def _loading(recipe: Recipe, adapter: bool) -> str:
    folder = "path/to/this/folder"
    base = recipe.base if _on_hub(recipe.base) else f"path/to/{_short(recipe.base)}"
    lines = _LOADING.format(folder=folder, base=base if adapter else folder)
    if recipe.base.startswith("builtin:") and adapter:
        lines = f'from vcr1.policy import load_policy\n\nmodel = load_policy("{recipe.base}").model'
    if adapter:
        # Not load_adapter: transformers leaves DoRA's magnitudes unread, in its own files too.
        lines = f'from peft import PeftModel\n{lines}\nmodel = PeftModel.from_pretrained(model, "{folder}")'
    return f"```python\n{lines}\n```"


def _positions(config: Any, adapter: bool) -> list[str]:
    """Say where the text behind a video goes on, and which readers place it there."""
    rule, family = getattr(config, "text_after_video", None), getattr(config, "model_type", "")
    if rule is None:  # positions of the library's own
        return []
    if family_named(family).frames_are_grids:
        return [
            _POSITIONS,
            "The frames of this family are grids of their own: every reader places the text alike.",
        ]
    timed = "second_per_grid_ts" in family_named(family).inputs
    rounds = "; rounds the seconds of a step down to whole ones" if timed else ""
    earlier = f"{rounds} before 5.23" if rounds else ""
    if rule == "largest":
        where = "at the largest position so far plus 1, the video's times included: the published rule"
        readers = {
            "vcr1, vLLM": "right",
            "transformers up to 5.2": f"right{rounds}",
            "transformers 5.3 to 5.23": f"wrong, inside the video's times{earlier}",
        }
    else:
        where = "behind the larger side of the video's frame, whatever its length: not the published rule"
        readers = {
            "vcr1": "right",
            "vLLM, transformers up to 5.2": "wrong, behind the video's times",
            "transformers 5.3 to 5.23": "right in a forward, but `generate` goes on behind the video's "
            f"times{earlier}",
        }
    # A folder of adapters has no config.json, and the base's states the base's own rule.
    call, place = (f'model, "{rule}"', "") if adapter else ("model", " in `config.json`")
    table = [f"| {reader} | {does} |" for reader, does in readers.items()]
    return [
        _POSITIONS,
        f'The text behind a video goes on {where} (`"text_after_video": "{rule}"`{place}). '
        "Where readers compute the positions themselves, they place it so:",
        "\n".join(["| reader | text behind a video |", "|---|---|", *table]),
        "With transformers, hand `position_ids` to the model, or put its own rule into it:",
        f"```python\nfrom vcr1.policy import correct_positions\n\ncorrect_positions({call})\n```",
    ]


def _facts(recipe: Recipe, algorithm: str, step: int | None) -> list[str]:
    """Return a table of what matters most."""
    settings = recipe.settings["algorithm"]
    weights = {
        name: ", ".join(f"{part} {weight}" for part, weight in parts.items())
        for name, parts in recipe.tasks.items()
    }
    git = recipe.git
    rows: dict[str, Any] = {
        "base": f"`{_short(recipe.base)}`",
        "algorithm": algorithm,
        "updates": step,
        "learning rate": settings.get("lr"),
        "completions per prompt": settings.get("num_generations"),
        "KL weight": (settings.get("objective") or settings).get("kl_weight"),
        **{f"{name}: data": source for name, source in recipe.data.items()},
        **{f"{name}: rewards": parts for name, parts in weights.items() if parts},
        "vcr1": __version__,
        "commit": f"{git['commit']}{', changed' * bool(git.get('dirty'))}" if git.get("commit") else None,
    }
    table = [f"| {name} | {value} |" for name, value in rows.items() if value is not None]
    return ["| | |", "|---|---|", *table]


def _results(report: Mapping[str, Any], step: int | None) -> list[str]:
    """Return metrics before and after, where the run measured them."""
    before, after = report.get("before") or {}, report.get("after") or {}
    lines = []
    for task in dict.fromkeys([*before, *after]):
        earlier, later = before.get(task, {}), after.get(task, {})
        lines += [
            f"| {task} | {metric} | {_number(earlier.get(metric))} | {_number(later.get(metric))} |"
            for metric in dict.fromkeys([*earlier, *later])
        ]
    if not lines:
        return []
    when = "Held-out samples, before and after training."
    if step is not None and step != report.get("steps", step):
        when = (
            f"Held-out samples, before training and at its end, after {report['steps']} updates. "
            f"These weights are those of update {step} and were not measured."
        )
    table = ["| task | metric | before | after |", "|---|---|---|---|", *lines]
    return ["## Results", when, "\n".join(table)]


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def _plain(node: Any, place: str) -> dict[str, Any]:
    """Return a node's values, references resolved."""
    if not isinstance(node, DictConfig):
        return {}
    try:
        found: Any = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"the run's config: {place}: {str(error).splitlines()[0]}") from error
    return dict(found)


def _reader(source: Mapping[str, Any]) -> str:
    """Return a reader and its files, without the folders that they are in."""
    names = [
        Path(value).name for key, value in source.items() if isinstance(value, str) and key != "_target_"
    ]
    return f"{str(source.get('_target_', '?')).split('.')[-1]} ({', '.join(names)})"


def _on_hub(base: str) -> bool:
    """Return whether a base is a name on the hub, and not a folder."""
    if base.count("/") != 1 or Path(base).exists():
        return False
    try:
        validate_repo_id(base)
    except HFValidationError:
        return False
    return True


def _short(base: str) -> str:
    """Return a name on the hub as it is, of a folder the last part: where it lay is nobody's business."""
    return base if _on_hub(base) else Path(base).name
