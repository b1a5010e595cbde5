"""What results depend on, by digests and versions: two runs with one manifest answer the same questions."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from vcr1.errors import UserError
from vcr1.evaluation.benchmarks import Benchmark
from vcr1.policy import Sampling
from vcr1.policy.weights.loading import resolve
from vcr1.records import json_value
from vcr1.records.files import write_whole

PACKAGES = ("vcr1", "torch", "transformers", "lightning", "av", "decord", "numpy")
WEIGHTS = ("*.safetensors", "*.bin", "config.json", "generation_config.json", "tokenizer.json", "*.jinja")
MANIFEST = "manifest.json"
_BLOB = re.compile(r"[0-9a-f]{64}")


def benchmark_facts(benchmark: Benchmark) -> dict[str, Any]:
    """Return what decides the questions and scores of a benchmark."""
    annotations = benchmark.annotations
    rows = (
        [one.id, one.query, json_value(one.target), one.options, benchmark.task.category(one)]
        for one in benchmark.samples
    )
    lost = sorted(one.sample_id for one in benchmark.lost)
    file = Path(annotations.source)
    return {
        "task": benchmark.kind,
        "split": benchmark.split,
        "annotations": file_digest(file) if file.is_file() else None,
        "samples": len(benchmark.samples) + len(lost),
        "samples_digest": digest_of([*rows, *lost]),
        "mended": dict(sorted(annotations.mended.items())),
        "kept_as_published": dict(sorted(annotations.noticed.items())),
        "dropped": dict(sorted(annotations.dropped.items())),
        "video": asdict(benchmark.budget) | {"frames": benchmark.task.frames},
        "prompts_digest": digest_of(benchmark.task.prompt(one).text for one in benchmark.samples),
        "think": benchmark.task.think,
    }


def make_manifest(
    benchmarks: Sequence[Benchmark],
    sampling: Sampling | None = None,
    draws: int = 1,
    **more: Any,
) -> dict[str, Any]:
    """Return content of manifest.json.

    Args:
        benchmarks: what is asked.
        sampling: how the model decodes; None where another system has answered.
        draws: completions of each sample.
        more: what else the answers depend on: model, precision, batch size, seed.
    """
    return {
        "benchmarks": {one.name: benchmark_facts(one) for one in benchmarks},
        "parsers_digest": parsers_digest(),
        "decoding": None if sampling is None else sampling.distribution() | {"draws": draws},
        **more,
        "packages": versions(),
    }


def versions() -> dict[str, str]:
    """Return versions of Python and of the packages that results depend on; of those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def parsers_digest() -> str:
    """Return a digest of the sources of `vcr1.scoring.parsing`, as the parsers' version."""
    folder = Path(str(resources.files("vcr1"))) / "scoring" / "parsing"
    return digest_of([path.name, path.read_text(encoding="utf-8")] for path in sorted(folder.glob("*.py")))


def model_digest(path: str) -> str:
    """Return digest of a model's weights, configuration and tokenizer.

    Args:
        path: as ``model.path``: a folder, a hub name whose files are in the cache, or a packaged model.
    """
    place = resolve(path)
    folder = Path(place) if Path(place).is_dir() else Path(snapshot_download(place, local_files_only=True))
    files = sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)})
    return digest_of([file.name, file_digest(file)] for file in files)


def file_digest(path: Path) -> str:
    """Return SHA-256 of a file; of one in the hub's cache that bears its digest as its name, that."""
    name = path.resolve().name
    if _BLOB.fullmatch(name):
        return name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(items: Iterable[Any]) -> str:
    """Return SHA-256 over items that JSON can hold."""
    found = hashlib.sha256()
    for item in items:
        found.update(json.dumps(json_value(item), sort_keys=True).encode() + b"\n")
    return found.hexdigest()


def agree(folder: Path, manifest: Mapping[str, Any]) -> None:
    """See that a folder's answers, if it has any, were given to the same questions in the same way.

    Raises:
        UserError: names what differs.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: no JSON ({error}); choose another hydra.run.dir") from error
    now = json.loads(json.dumps(manifest))
    changed = sorted(_differences(before, now))
    if changed:
        raise UserError(
            f"{folder} holds answers of another evaluation: {', '.join(changed[:5])} differ"
            f"{' (and more)' if len(changed) > 5 else ''}; choose another hydra.run.dir, or delete it"
        )


def _differences(first: Any, second: Any, place: str = "") -> set[str]:
    """Return places in which two contents of JSON differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = first.keys() | second.keys()
        inner = partial(_inner, first, second, place)
        return {found for key in keys for found in inner(key)}
    return set() if first == second else {place}


def _inner(first: dict[str, Any], second: dict[str, Any], place: str, key: str) -> set[str]:
    return _differences(first.get(key), second.get(key), f"{place}.{key}" if place else key)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json, whole or not at all."""
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
