"""Whole runs: every experiment in this process, and the command line in processes of its own."""

import csv
import json
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback, LambdaCallback
from omegaconf import OmegaConf
from transformers import AutoModelForImageTextToText, AutoProcessor

from vcr1.config.choices import conf_dir
from vcr1.config.entry import load_config
from vcr1.evaluation import by_benchmark, read_answers
from vcr1.policy import load_policy
from vcr1.reporting.report import Report
from vcr1.train import main, train
from vcr1.video import build_world

EMBEDDED = ("demo", "tiny_base", "tiny_finish", "tiny_long", "tiny_loose")
EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
FAILURES = ("no_answer", "no_interval", "ambiguous", "not_seconds", "out_of_range", "reversed", "too_long")
PHASES = ("data", "vision", "rollout", "reward", "reference", "policy", "optimizer")
PROMISED = {
    f"train/{key}"
    for key in (
        "reward",
        "grounding/reward/total",
        "grounding/reward/format",
        "grounding/reward/iou",
        "grounding/iou",
        "reward_std",
        "advantage_spread",
        "zero_variance_groups",
        "loss",
        "lr",
        "kl",
        "entropy",
        "clip_fraction",
        "completion_tokens",
        "truncated",
        "lost_samples",
        "unjudged",
        *(f"grounding/failed/{reason}" for reason in FAILURES),
        *(f"seconds/{phase}" for phase in PHASES),
    )
}
SCORES = {"mIoU", "R@0.3", "R@0.5", "R@0.7", "format"}
TRACKING_SCORES = {"AO", "SR@0.5", "SR@0.75", "mIoU", "R@0.5", "R@0.7", "format"}
FEW = [
    "algorithm.num_generations=2",
    "logger=csv",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
]
NO_REPORT = ["report=none", "report.before=false", "report.wrong_video=false"]
NO_LOGS = ["hydra/job_logging=none", "hydra/hydra_logging=none"]

Rows = list[dict[str, str]]
CommandLine = Callable[..., subprocess.CompletedProcess[str]]


def rows(folder: Path) -> Rows:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def updates(folder: Path) -> Rows:
    """The rows that hold a training step."""
    return [row for row in rows(folder) if row.get("train/loss")]


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    """Parameters of an export."""
    return dict(AutoModelForImageTextToText.from_pretrained(folder, dtype="auto").state_dict())


def changed(folder: Path) -> set[str]:
    """Parts of the model that training changed: ``visual``, ``visual.merger``, ``language_model``."""
    before = load_policy("builtin:tiny", dtype="float32").model.state_dict()
    after = weights(folder / "huggingface")
    parts = {}
    for name, value in after.items():
        match = re.match(r"model\.(visual\.merger|visual|language_model)", name)
        if match:
            parts[match[1]] = parts.get(match[1], False) or not value.equal(before[name])
    assert len(parts) == 3
    return {part for part, differs in parts.items() if differs}


# ------------------------------------------------------------------------------------- in this process


@pytest.fixture(autouse=True)
def no_ranks_left() -> Iterator[None]:
    """Lightning leaves process group and rank in the process; a run that is started later would wait."""
    environment = dict(os.environ)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(environment)


def run(folder: Path, small: list[str], *overrides: str) -> Report:
    return train(load_config([*small, *overrides], folder))


@pytest.mark.parametrize("recipe", sorted({*EXPERIMENTS} - {*EMBEDDED}))
def test_every_recipe_runs_on_the_embedded_world(small: list[str], tmp_path: Path, recipe: str) -> None:
    overrides = [
        f"experiment={recipe}",
        *("data=synthetic", "model=tiny", "trainer=cpu", "strategy=auto"),
        *("trainer.devices=1", "trainer.fast_dev_run=true", "plan.show=false", "rollout.max_new_tokens=24"),
        "algorithm.lr=0.01",
        *("data.video.min_pixels=784", "data.video.total_pixels=784"),
        *(["model.path=builtin:tiny"] if recipe == "sft_then_grpo" else []),
        *FEW[1:],
        *NO_REPORT,
    ]
    run(tmp_path, small, *overrides)
    # Whether anything was learned in one update is up to two completions; that all of it ran is not.
    assert weights(tmp_path / "huggingface").keys() == load_policy("builtin:tiny").model.state_dict().keys()


@pytest.mark.parametrize("experiment", EMBEDDED)
def test_every_experiment_runs(small: list[str], tmp_path: Path, experiment: str) -> None:
    tasks = [*load_config([f"experiment={experiment}"]).tasks]
    report = run(
        tmp_path,
        small,
        f"experiment={experiment}",
        *([f"data.sources.{task}.weight=1" for task in tasks] if experiment == "tiny_loose" else []),
        "trainer.fast_dev_run=true",
        "callbacks.progress=null",
        "logger=csv",
    )
    assert report.after is not None
    assert report.wrong_video is not None
    assert list(report.after.scores) == list(report.after.judgements) == list(report.baselines) == tasks
    assert set(report.after.scores["grounding"]) == SCORES
    # fast_dev_run: one batch of each task, of at most 50; two questions about each of 6 clips, or four.
    questions = 24 if experiment == "tiny_long" else 12
    assert len(report.after.judgements["grounding"]) == questions
    assert set(report.baselines["grounding"]) == {"constant", "constant_per_duration"}
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["after"] == report.after.scores
    assert stored["steps"] == 1
    kept = by_benchmark(read_answers(tmp_path / "held_out.jsonl"))
    assert list(kept) == tasks
    assert len({answer.id for answer in kept["grounding"]}) == len(kept["grounding"]) == questions
    ious = [answer.scores["mIoU"] for answer in kept["grounding"]]
    assert sum(ious) / questions == pytest.approx(report.after.scores["grounding"]["mIoU"])
    assert "| after |" in (tmp_path / "report.md").read_text()
    assert AutoProcessor.from_pretrained(tmp_path / "huggingface").tokenizer.eos_token == "<|im_end|>"
    card = (tmp_path / "huggingface" / "README.md").read_text()
    assert "| updates | 1 |" in card
    (row,) = [line for line in card.splitlines() if line.startswith("| grounding | mIoU | ")]
    assert row.endswith(f" | {report.after.scores['grounding']['mIoU']:.3f} |")


def real_files(root: Path, world: Path) -> None:
    """Charades-STA and ActivityNet as their authors lay them out, with clips of the synthetic world."""
    clips = [path for path, _ in build_world(world / "synthetic", "train", 12, seed=1)]
    for name in ("charades_sta", "activitynet"):
        (root / name / "videos").mkdir(parents=True)
        for clip in clips[:3]:
            (root / name / "videos" / clip.name).symlink_to(clip)
    lines = [f"{clip} 1.0 7.5##a shape appears." for clip in ("00000", "00001", "00002")]
    rows = {
        clip: {"duration": 6.0, "timestamps": [[1, 2]], "sentences": ["a shape"]}
        for clip in ("00000", "00001")
    }
    for split in ("train", "test"):
        (root / "charades_sta" / f"charades_sta_{split}.txt").write_text("\n".join(lines))
    for split in ("train", "val_2"):
        (root / "activitynet" / f"{split}.json").write_text(json.dumps(rows))


@pytest.mark.parametrize(("name", "samples"), [("charades_sta", 3), ("activitynet", 2)])
def test_published_data_sets_run(world: Path, tmp_path: Path, name: str, samples: int) -> None:
    real_files(tmp_path / "data", world)
    overrides = [
        "experiment=demo",
        f"data={name}",
        f"data.root={tmp_path / 'data'}",
        "data.loader.batch_size=2",
        "data.loader.num_workers=0",
        "data.video.total_pixels=784",
        "data.video.min_pixels=784",
        "trainer.val_check_interval=null",
        "trainer.fast_dev_run=true",
        "report.before=false",
        "callbacks=none",
        "logger=csv",
        "threads=1",
    ]
    report = train(load_config(overrides, tmp_path / "run"))
    assert report.after is not None
    assert len(report.after.judgements["grounding"]) == samples
    assert (tmp_path / "run" / "report.md").is_file()


ALL = {"visual", "visual.merger", "language_model"}
VARIANTS = {
    "sft": (["algorithm=sft"], ALL),
    "no think": (["tasks.grounding.think=false", "algorithm=sft"], ALL),
    "ddp": (["strategy=ddp"], ALL),
    "no reference": (["algorithm.objective.kl_weight=0"], ALL),
    "frozen vision": (["model.freeze=[vision]"], {"language_model"}),
    "frozen merger": (["model.freeze=[merger]"], {"visual", "language_model"}),
    "adapters": (["adapter=lora", "algorithm.lr=0.1"], {"language_model"}),
    "adapters in both towers": (
        ["adapter=dora", "model.lora.vision=true", "model.lora.rslora=true", "algorithm.lr=0.1"],
        {"visual", "language_model"},
    ),
    "sharded": (["strategy=fsdp"], ALL),
    "sharded within nodes": (["strategy=fsdp_hybrid", "trainer.precision=bf16-mixed"], ALL),
    "checkpointing": (["model.gradient_checkpointing=true"], ALL),
    "no logger": (["logger=[]"], ALL),
    "mixed precision": (["trainer.precision=bf16-mixed"], ALL),
    "half precision": (["trainer.precision=bf16-true", "model.dtype=bfloat16", "algorithm.lr=0.1"], ALL),
    "sampling": (["rollout.temperature=0.7", "rollout.top_k=20", "rollout.top_p=0.9"], ALL),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_one_override_away(small: list[str], tmp_path: Path, variant: str) -> None:
    overrides, parts = VARIANTS[variant]
    run(tmp_path, small, "experiment=demo", *NO_REPORT, "logger=csv", "trainer.fast_dev_run=true", *overrides)
    assert changed(tmp_path) == parts


def test_without_a_kl_penalty_no_reference_is_asked(small: list[str], tmp_path: Path) -> None:
    overrides = ["algorithm.objective.kl_weight=0", "trainer.max_steps=2"]
    run(tmp_path, small, "experiment=demo", *FEW, *NO_REPORT, *overrides)
    assert [float(row["train/kl"]) for row in updates(tmp_path)] == [0.0, 0.0]
    assert max(float(row["train/seconds/reference"]) for row in updates(tmp_path)) < 1e-3


def test_a_feature_cache_changes_no_weight(
    small: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = [
        "experiment=demo",
        *FEW,
        *NO_REPORT,
        "model.freeze=[vision]",
        "data.loader.batch_size=1",  # as a batch, features might be rounded otherwise
        "trainer.max_steps=3",
    ]
    cached = f"model.feature_cache={tmp_path / 'features'}"
    caplog.set_level(logging.INFO, "vcr1.train")
    for name, overrides in {"none": [], "cold": [cached], "warm": [cached]}.items():
        run(tmp_path / name, small, *settings, *overrides)
    none, *others = (weights(tmp_path / name / "huggingface") for name in ("none", "cold", "warm"))
    for other in others:
        assert [key for key, value in other.items() if not value.equal(none[key])] == []
    assert changed(tmp_path / "warm") == {"language_model"}
    said = [record.getMessage() for record in caplog.records if "feature cache" in record.getMessage()]
    read, computed = zip(
        *(map(int, re.findall(r"(\d+) (?:read|computed)", line)) for line in said), strict=True
    )
    assert computed[0] > 0
    assert (read[1], computed[1]) == (read[0] + computed[0], 0)


def test_gradients_may_be_gathered_over_batches(small: list[str], tmp_path: Path) -> None:
    batches: list[int] = []
    WATCHES["batches"] = LambdaCallback(
        on_train_batch_end=lambda trainer, *_: batches.append(trainer.global_step)
    )
    overrides = ["trainer.accumulate_grad_batches=2", "trainer.max_steps=2"]
    run(tmp_path, small, "experiment=demo", *FEW, *NO_REPORT, *overrides, watch("batches"))
    assert batches == [0, 1, 1, 2]
    stored = updates(tmp_path)
    assert [row["step"] for row in stored] == ["0", "1"]
    assert [row for row in stored if any(row[key] == "" for key in PROMISED)] == []


WATCHES: dict[str, Callback] = {}


def watched(name: str) -> Callback:
    """What a config's ``_target_`` finds: a callback that a test has put here."""
    return WATCHES[name]


def watch(name: str) -> str:
    return f"+callbacks.watch={{_target_: {__name__}.watched, name: {name}}}"


def test_a_run_goes_on_where_it_stopped(small: list[str], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    settings = [
        "experiment=demo",
        *FEW,
        *NO_REPORT,
        "trainer.max_epochs=-1",  # an epoch that max_steps ends counts as done
        "algorithm.schedule=constant",
        "algorithm.warmup_steps=4",
    ]
    run(first, small, *settings, "trainer.max_steps=2")
    checkpoint = first / "checkpoints" / "last.ckpt"
    stored = torch.load(checkpoint, weights_only=True)
    assert stored["global_step"] == 2
    assert [name for name in stored["state_dict"] if name.startswith("reference.")] == []

    found: dict[str, Any] = {}

    def note(trainer: Any, module: Any) -> None:
        found["step"] = trainer.global_step
        found["policy"] = {name: value.clone() for name, value in module.policy.model.state_dict().items()}
        found["reference"] = module.reference.model.state_dict()

    WATCHES["start"] = LambdaCallback(on_train_start=note)
    run(second, small, *settings, "trainer.max_steps=4", f"ckpt_path={checkpoint}", watch("start"))
    assert found["step"] == 2
    exported, weak_base = weights(first / "huggingface"), load_policy("builtin:tiny", dtype="float32")
    base = weak_base.model.state_dict()
    assert [name for name, value in found["policy"].items() if not value.equal(exported[name])] == []
    assert [name for name, value in found["reference"].items() if not value.equal(base[name])] == []
    steps = [(int(row["step"]), float(row["train/lr"])) for row in updates(first) + updates(second)]
    assert [step for step, _ in steps] == [0, 1, 2, 3]
    rates = [rate for _, rate in steps]
    assert rates == sorted(rates)  # the warm-up goes on, too
    assert len(set(rates)) == 4
    assert torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_wrong_videos_that_do_not_exist_are_not_scored(small: list[str], tmp_path: Path) -> None:
    one = ["data.sources.grounding.val.count=1", "report.before=false", "report.wrong_video=true"]
    report = run(tmp_path, small, "experiment=demo", *FEW, *one, "trainer.max_steps=1")
    assert report.after is not None
    assert report.after.scores
    assert "wrong video" not in report.rows("grounding")
    assert "wrong_video" not in report.as_json()["baselines"]["grounding"]


# ------------------------------------------------------------------------------------- the command line

TWO_STEPS = ["experiment=demo", "trainer.max_steps=2", "algorithm.num_generations=2"]


@pytest.fixture(scope="module")
def demo(
    tmp_path_factory: pytest.TempPathFactory, small: list[str], command_line: CommandLine
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The run's folder and what was printed, of a small demo that was started in an empty folder."""
    home = tmp_path_factory.mktemp("home")
    done = command_line(home, *small, *TWO_STEPS, "data.loader.num_workers=1")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in home.iterdir() if not path.name.startswith(".")] == ["runs"]
    (folder,) = (home / "runs").iterdir()
    return folder, done


@pytest.mark.slow
def test_the_demo_s_folder_is_named_after_it_and_holds_everything(demo: Any) -> None:
    folder, _ = demo
    assert re.fullmatch(r"demo-\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", folder.name)
    held = {path.name for path in folder.iterdir()}
    expected = {
        ".hydra",
        "answers.png",
        "checkpoints",
        "huggingface",
        "learning_curve.png",
        "metrics.csv",
        "report.json",
        "report.md",
        "wandb",
    }
    assert expected - held == set()
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    cfg = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert (cfg.name, cfg.trainer.max_steps, cfg.algorithm.num_generations) == ("demo", 2, 2)


@pytest.mark.slow
def test_the_demo_s_report_compares_with_the_blind(demo: Any) -> None:
    folder, _ = demo
    report = json.loads((folder / "report.json").read_text())
    assert set(report["before"]["grounding"]) == set(report["after"]["grounding"]) == SCORES
    baselines = report["baselines"]["grounding"]
    assert set(baselines) == {"constant", "constant_per_duration", "wrong_video"}
    values = [*report["after"]["grounding"].values(), *(scores["mIoU"] for scores in baselines.values())]
    assert [value for value in values if not 0 <= value <= 1] == []
    assert 0 < report["seconds"]["training"]["cpu"] < 100
    assert (report["seed"], report["steps"]) == (0, 2)
    markdown = (folder / "report.md").read_text().splitlines()
    assert markdown[0] == f"# {folder.name}"
    assert [line.split("|")[1].strip() for line in markdown if line.startswith("| ")] == [
        "grounding, held out",
        "before",
        "after",
        "wrong video",
        "constant",
        "constant per duration",
    ]


@pytest.mark.slow
def test_the_demo_s_pictures_are_of_a_size_to_look_at(demo: Any) -> None:
    folder, _ = demo
    for name in ("learning_curve.png", "answers.png"):
        height, width, _ = matplotlib.image.imread(folder / name).shape
        assert 300 < height < 2000, name
        assert 600 < width < 2000, name


@pytest.mark.slow
def test_the_demo_s_export_is_a_model_and_not_the_one_it_began_with(demo: Any) -> None:
    folder, _ = demo
    assert changed(folder) == ALL
    processor = AutoProcessor.from_pretrained(folder / "huggingface")
    assert processor.tokenizer.decode(processor.tokenizer("the red square")["input_ids"]) == "the red square"


@pytest.mark.slow
def test_the_demo_logs_every_promised_number_at_every_update(demo: Any) -> None:
    folder, _ = demo
    stored = updates(folder)
    assert [row["step"] for row in stored] == ["0", "1"]
    assert PROMISED - stored[0].keys() == set()
    values = [float(row[key]) for row in stored for key in PROMISED]
    assert all(map(math.isfinite, values))
    for row in stored:
        total = float(row["train/grounding/reward/format"]) + float(row["train/grounding/reward/iou"])
        assert float(row["train/reward"]) == pytest.approx(total, abs=1e-5)
        assert 0 < float(row["train/completion_tokens"]) <= 96
        assert float(row["train/lost_samples"]) == float(row["train/unjudged"]) == 0
    held_out = [row for row in rows(folder) if row.get("val/grounding/mIoU")]
    assert len(held_out) == 2  # before and after
    assert len([row for row in rows(folder) if row.get("wrong_video/grounding/mIoU")]) == 1


@pytest.mark.slow
def test_the_demo_keeps_a_wandb_run_offline_and_asks_nobody(demo: Any) -> None:
    folder, done = demo
    (stored,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    keys = [b"train/grounding/reward/iou", b"val/grounding/mIoU", b"num_generations", folder.name.encode()]
    assert [key for key in keys if key not in content] == []
    assert "wandb: (1)" not in done.stdout + done.stderr
    assert "api.wandb.ai" not in done.stdout + done.stderr


@pytest.mark.slow
def test_the_demo_prints_one_table_and_where_everything_is(demo: Any) -> None:
    folder, done = demo
    assert done.stdout.count("┃ grounding, held out") == 1
    assert f"Everything is in {folder}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert [line for line in done.stderr.splitlines() if "Warning" in line] == []


# ---------------------------------------------------------------------------------------- several tasks

QUICK = ["trainer.fast_dev_run=true", "callbacks=none", "algorithm.num_generations=2", "logger=csv"]
BOTH = {"grounding": SCORES, "tracking": TRACKING_SCORES}


def test_two_tasks_are_trained_and_reported_each_by_itself(small: list[str], tmp_path: Path) -> None:
    overrides = [
        "task=grounding+tracking",
        "trainer.max_steps=3",
        "trainer.accumulate_grad_batches=2",
        "data.loader.shuffle=false",  # the tasks take turns: 24 samples of one, twice 12 of the other
        "++data.sources.tracking.weight=2",
        "data.loader.batch_size=1",
        "report.clips=2",
    ]
    report = run(tmp_path, small, "experiment=demo", *FEW, *overrides)
    for evaluation in (report.before, report.after):
        assert evaluation is not None
        assert {name: set(scores) for name, scores in evaluation.scores.items()} == BOTH
        assert {name: len(judged) for name, judged in evaluation.judgements.items()} == {
            "grounding": 12,
            "tracking": 6,
        }
    assert set(report.baselines["tracking"]) == {"first_box", "constant"}
    stored = updates(tmp_path)
    assert [row["step"] for row in stored] == ["0", "1", "2"]
    # Equal weights of both: each update is a micro-batch of one and a micro-batch of the other.
    both = ("train/grounding/reward/total", "train/tracking/reward/total")
    assert all(row[key] for row in stored for key in both)
    assert [name for row in stored for name, value in row.items() if "nan" in value] == []
    held_out = [row for row in rows(tmp_path) if row.get("val/tracking/AO")]
    assert len(held_out) == 2
    assert all(row["val/grounding/mIoU"] for row in held_out)
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {
        f"{kind}_{task}.png" for kind in ("answers", "learning_curve") for task in ("grounding", "tracking")
    }
    markdown = (tmp_path / "report.md").read_text()
    assert "| grounding, held out | mIoU |" in markdown
    assert "| tracking, held out | AO |" in markdown


@pytest.mark.slow
def test_two_tasks_are_one_option_away_on_the_command_line(
    small: list[str], tmp_path: Path, command_line: CommandLine
) -> None:
    folder = f"hydra.run.dir={tmp_path / 'run'}"
    done = command_line(tmp_path, "experiment=demo", *small, "task=grounding+tracking", *QUICK, folder)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert {name: set(scores) for name, scores in report["after"].items()} == BOTH
    assert [done.stdout.count(f"┃ {name}, held out") for name in BOTH] == [1, 1]
    cfg = OmegaConf.load(tmp_path / "run" / ".hydra" / "config.yaml")
    assert list(cfg.tasks) == ["grounding", "tracking"]
    # What Hydra keeps of the command line can be given again.
    kept = OmegaConf.to_container(OmegaConf.load(tmp_path / "run" / ".hydra" / "overrides.yaml"))
    assert "task=[grounding,tracking]" in kept
    assert "Traceback" not in done.stdout + done.stderr


# ---------------------------------------------------------------------------------------- two processes

CHECK = """
import hashlib, os
from pathlib import Path
from lightning.pytorch.callbacks import Callback

class Hash(Callback):
    def __init__(self, folder):
        self.folder = Path(folder)

    def digest(self, module):
        digest = hashlib.sha256()
        for name, value in sorted(module.policy.state_dict().items()):
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()

    def on_train_start(self, trainer, module):
        self.before = self.digest(module)

    def on_train_end(self, trainer, module):
        line = " ".join([self.before, self.digest(module), *sorted(trainer.callback_metrics)])
        (self.folder / f"rank-{trainer.global_rank}").write_text(line)
"""


def two_ranks(folder: Path) -> dict[int, list[str]]:
    return {rank: (folder / f"rank-{rank}").read_text().split() for rank in (0, 1)}


@pytest.fixture
def hash_check(tmp_path: Path) -> str:
    (tmp_path / "check.py").write_text(CHECK)
    return f"+callbacks.check={{_target_: check.Hash, folder: {tmp_path}}}"


@pytest.mark.slow
def test_two_processes_learn_one_model(
    small: list[str], tmp_path: Path, command_line: CommandLine, hash_check: str
) -> None:
    settings = [
        "trainer.devices=2",
        "report.before=false",
        "report.wrong_video=false",
        f"run_dir={tmp_path / 'run'}",
    ]
    done = command_line(tmp_path, *small, *TWO_STEPS, *settings, hash_check, PYTHONPATH=python_path(tmp_path))
    assert done.returncode == 0, done.stderr
    ranks = two_ranks(tmp_path)
    assert ranks[0] == ranks[1]  # the weights before and after, and the logged keys
    before, after, *keys = ranks[0]
    assert before != after
    assert PROMISED - set(keys) == set()
    stored = updates(tmp_path / "run")
    assert len(stored) == 2
    assert all(math.isfinite(float(row[key])) for row in stored for key in PROMISED)
    assert done.stdout.count("┃ grounding, held out") == 1
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*"))) == 1
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert set(report["after"]["grounding"]) == SCORES


@pytest.mark.slow
def test_two_processes_share_one_model(small: list[str], tmp_path: Path, command_line: CommandLine) -> None:
    overrides = [
        "experiment=demo",
        "strategy=fsdp",
        "trainer.devices=2",
        "trainer.max_steps=2",
        "trainer.precision=bf16-mixed",
        "report.wrong_video=false",
        f"run_dir={tmp_path / 'run'}",
    ]
    done = command_line(tmp_path, *small, *FEW, *overrides)
    assert done.returncode == 0, done.stderr
    assert len(updates(tmp_path / "run")) == 2
    assert changed(tmp_path / "run") == ALL
    assert done.stdout.count("┃ grounding, held out") == 1
    # A folder, as every rank writes its part.
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt" / ".metadata").is_file()


@pytest.mark.slow
def test_two_processes_learn_two_tasks(
    small: list[str], tmp_path: Path, command_line: CommandLine, hash_check: str
) -> None:
    settings = [
        "task=grounding+qa",
        "trainer.devices=2",
        "trainer.max_steps=6",
        "data.loader.shuffle=false",  # both tasks have their turns
        "report.before=false",
        "report.wrong_video=false",
        "logger=csv",
        f"run_dir={tmp_path / 'run'}",
    ]
    done = command_line(tmp_path, *small, *TWO_STEPS, *settings, hash_check, PYTHONPATH=python_path(tmp_path))
    assert done.returncode == 0, done.stderr
    ranks = two_ranks(tmp_path)
    assert ranks[0] == ranks[1]
    stored = updates(tmp_path / "run")
    asked = ["grounding" if row["train/grounding/iou"] else "qa" for row in stored]
    assert len(asked) == 6
    assert set(asked) == {"grounding", "qa"}
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert set(report["after"]) == {"grounding", "qa"}


def python_path(*folders: Path) -> str:
    """Where a subprocess looks for modules: first here, then where this process does."""
    return ":".join(map(str, [*folders, *filter(None, sys.path)]))


@pytest.mark.slow
def test_a_rank_whose_video_is_lost_does_not_stop_the_others(
    small: list[str], tmp_path: Path, world: Path, command_line: CommandLine, hash_check: str
) -> None:
    good = next((world / "synthetic").glob("train-*/00000.mp4"))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "good.mp4").write_bytes(good.read_bytes())
    (tmp_path / "videos" / "bad.mp4").write_bytes(good.read_bytes()[:500])
    about = {"duration": 6.0, "timestamps": [[1.0, 3.0]], "sentences": ["the red square appears"]}
    (tmp_path / "train.json").write_text(json.dumps({"good": about, "bad": about}))
    settings = [
        "data=activitynet",
        f"data.sources.grounding.train.annotations={tmp_path / 'train.json'}",
        f"data.sources.grounding.train.videos={tmp_path / 'videos'}",
        "data.sources.grounding.val=null",
        "data.video.min_pixels=784",
        "data.video.total_pixels=784",
        "data.loader.batch_size=1",
        "data.loader.num_workers=0",
        "trainer.val_check_interval=null",
        "trainer.max_epochs=-1",
        "trainer.devices=2",
        "logger=csv",
        f"run_dir={tmp_path / 'run'}",
        hash_check,
    ]
    done = command_line(tmp_path, *TWO_STEPS, *settings, PYTHONPATH=python_path(tmp_path))
    assert done.returncode == 0, done.stderr
    stored = updates(tmp_path / "run")
    assert [float(row["train/lost_samples"]) for row in stored] == [1, 2]  # one per update, added up
    assert all(math.isfinite(float(row[key])) for row in stored for key in PROMISED)
    ranks = two_ranks(tmp_path)
    assert ranks[0] == ranks[1]
    assert done.stdout.count("sample bad-0 is lost: ") == 2  # whichever rank it was


# ----------------------------------------------------------------------------------------------- sweeps


@pytest.mark.slow
def test_a_sweep_of_jobs_with_two_processes_each(
    small: list[str], tmp_path: Path, command_line: CommandLine
) -> None:
    settings = [
        "trainer.max_steps=1",
        "trainer.devices=2",
        "logger=csv",
        *NO_REPORT,
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    ]
    done = command_line(tmp_path, "-m", *small, *TWO_STEPS[::2], *settings, "algorithm.lr=1e-5,1e-4")
    assert done.returncode == 0, done.stderr
    folders = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert [folder.name for folder in folders] == ["0", "1"]
    for folder, rate in zip(folders, (1e-5, 1e-4), strict=True):
        cfg = OmegaConf.load(folder / ".hydra" / "config.yaml")
        assert cfg.algorithm.lr == rate
        (row,) = updates(folder)
        assert float(row["train/lr"]) == pytest.approx(rate / 5)  # the first of five steps of warm-up
        assert changed(folder) == ALL
        # The second process of a job is started with the job's own command line.
        assert (folder / "train_ddp_process_1.log").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name == "runs"] == []


def test_a_job_that_fails_is_named_at_the_end_and_does_not_stop_the_sweep(
    small: list[str], tmp_path: Path, command_line: CommandLine
) -> None:
    settings = ["trainer.max_steps=1", "logger=csv", *NO_REPORT, f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = command_line(tmp_path, "-m", *small, *TWO_STEPS[::2], *settings, "algorithm.lr=-1,1e-4")
    assert done.returncode == 2
    assert len(updates(tmp_path / "sweep" / "1")) == 1  # the second job was trained
    last = done.stderr.strip().splitlines()[-2:]
    assert last[0] == "vcr1: 1 of the sweep's jobs failed:"
    assert last[1].startswith("  job 0 (")
    assert last[1].endswith("): algorithm.lr=-1 is not a number above 0")
    assert "Traceback" not in done.stderr


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line in this process, which Hydra leaves as it was."""

    def start(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        main()

    yield start
    HydraConfig.instance().cfg = None


def test_a_sweep_may_compare_single_tasks_with_their_mixture(
    small: list[str], tmp_path: Path, in_process: Callable[..., None]
) -> None:
    tasks = "task=grounding,tracking,grounding+tracking"
    folder = f"hydra.sweep.dir={tmp_path}"
    settings = [*small, *QUICK, "report.wrong_video=false", "report.before=false", "report.clips=0"]
    in_process("-m", tasks, "experiment=demo", *settings, *NO_LOGS, folder)
    wanted = {"0": ["grounding"], "1": ["tracking"], "2": ["grounding", "tracking"]}
    folders = {path.name: path for path in tmp_path.iterdir() if path.is_dir()}
    assert {
        name: list(OmegaConf.load(path / ".hydra" / "config.yaml").tasks) for name, path in folders.items()
    } == wanted
    assert {
        name: list(json.loads((path / "report.json").read_text())["after"]) for name, path in folders.items()
    } == wanted
    # What Lightning would repeat for the other ranks of the last job.
    assert "task=[grounding,tracking]" in sys.argv


def test_the_shipped_sweep_starts_a_job_for_each_learning_rate(
    small: list[str], tmp_path: Path, in_process: Callable[..., None]
) -> None:
    quick = ["trainer.fast_dev_run=true", "callbacks=none", "logger=csv", "algorithm.num_generations=2"]
    folder = f"hydra.sweep.dir={tmp_path}"
    in_process("-m", "sweep=learning_rate", "experiment=demo", *small, *quick, *NO_REPORT, *NO_LOGS, folder)
    rates = {
        path.name: OmegaConf.load(path / ".hydra" / "config.yaml").algorithm.lr
        for path in tmp_path.iterdir()
        if path.is_dir()
    }
    assert rates == {"0": 5e-5, "1": 1.5e-4, "2": 5e-4}
    # What Lightning would repeat for the other ranks of the last job.
    assert "algorithm.lr=0.0005" in sys.argv
    assert [argument for argument in sys.argv if argument in ("-m", "--multirun")] == []
