"""A config is known and typed as a whole: what is wrong is one sentence, before anything heavy."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, open_dict

from vcr1.config.choices import conf_dir, expand_choices
from vcr1.config.entry import load_config
from vcr1.config.overrides import check_overrides
from vcr1.config.schema import check_config
from vcr1.config.settings import SETTINGS
from vcr1.config.types import described, fits, nearest, parameters_of
from vcr1.errors import UserError
from vcr1.module import GRPOModule
from vcr1.usage import show_usage

GROUPS = {
    group: sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    for group in ("experiment", "algorithm", "model", "strategy", "adapter", "trainer", "report", "callbacks")
}


def composed(program: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(program, overrides=[*expand_choices(overrides), "run_dir=runs/x"])


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, options in GROUPS.items() for o in options])
def test_every_shipped_option_fits(group: str, option: str) -> None:
    check_config(composed("train", f"{group}={option}"))


@pytest.mark.parametrize("program", ["check", "plan", "score", "chat", "predict", "evaluate"])
def test_every_program_fits(program: str) -> None:
    check_config(composed(program, *(["video=clip.mp4"] if program == "predict" else [])))
    for option in sorted(path.stem for path in (conf_dir() / "benchmark").glob("*.yaml")):
        if program == "evaluate":
            check_config(composed("evaluate", f"benchmark={option}"))


WRONG = {
    "trainer.max_steps=two": "trainer.max_steps=two is not a whole number of at least -1",
    "trainer.max_steps=1.5": "trainer.max_steps=1.5 is not a whole number",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val=-1 is not a number of at least 0, or null",
    "trainer.gradient_clip_val=nan": "trainer.gradient_clip_val=nan is not a number",
    'trainer.gradient_clip_val="1.0"': "trainer.gradient_clip_val=1.0 is not a number",
    "trainer.log_every_n_steps=0": "trainer.log_every_n_steps=0 is not a whole number of at least 1",
    "trainer.accumulate_grad_batches=0": "is not a whole number of at least 1",
    "trainer.precision=bf17": "trainer.precision=bf17 is not",
    "seed=-1": "seed=-1 is not a whole number in 0..4294967295",
    "seed=true": "seed=True is not a whole number",
    "threads=0": "threads=0 is not a whole number of at least 1, or null",
    "tags=demo": "tags=demo is not a list of texts",
    "algorithm.lr=abc": "algorithm.lr=abc is not a number above 0",
    "algorithm.lr=0": "algorithm.lr=0 is not a number above 0",
    "algorithm.weight_decay=-0.1": "is not a number of at least 0",
    "algorithm.warmup_steps=null": "algorithm.warmup_steps=None is not a number of at least 0",
    "algorithm.final_lr=-1": "algorithm.final_lr=-1 is not a number in 0..1",
    "algorithm.objective.kl_weight=much": "algorithm.objective.kl_weight=much is not a number",
    "algorithm.betas=0.9": "algorithm.betas=0.9 is not a list",
    "rollout.temperature=hot": "rollout.temperature=hot is not a number",
    "rollout.max_new_tokens=1e3": "rollout.max_new_tokens=1000.0 is not a whole number",
    "model.freeze=vision": "model.freeze=vision is not a list of texts",
    "model.gradient_checkpointing=1": "is not true or false",
    "data.loader.batch_size=0": "data.loader.batch_size=0 is not a whole number of at least 1",
    "data.loader.decoder=cv2": "data.loader.decoder=cv2 is not auto or pyav or decord",
    "data.video.fps=fast": "data.video.fps=fast is not a number",
    "report.before=1": "report.before=1 is not true or false",
    "report.clips=-1": "is not a whole number of at least 0",
    "watchdog.minutes=long": "watchdog.minutes=long is not a number of at least 0",
    "callbacks.checkpoint.every=often": "callbacks.checkpoint.every=often is not a whole number",
    "tasks.grounding.think=3": "tasks.grounding.think=3 is not true or false",
    "tasks.grounding.weights.iou=much": "is not a mapping to a number",
    "+foo=bar": "foo=bar: there is no such setting",
    "+trainer.max_step=2": "did you mean trainer.max_steps?",
    "+model.attentoin=eager": "did you mean model.attention?",
    "+algorithm.clip_hihg=1": "algorithm.clip_hihg=1: there is no such setting",
    "+callbacks.mine={_target_: nowhere.Mine}": "callbacks.mine._target_=nowhere.Mine cannot be loaded",
    "+callbacks.mine={_target_: vcr1.callbacks.ProgressBar}": "is vcr1.reporting.callbacks now",
    "+callbacks.mine={_target_: vcr1.checkpoints.Checkpoints, folder: x, evry: 2}": "mine.every?",
    "+trainer.overfit_batches=2": "use trainer.limit_train_batches",
}


@pytest.mark.parametrize("override", WRONG)
def test_what_does_not_fit_is_one_sentence(override: str) -> None:
    with pytest.raises(UserError) as caught:
        check_config(composed("train", override))
    (line,) = str(caught.value).splitlines()
    assert WRONG[override] in line


def test_all_that_does_not_fit_is_said_at_once() -> None:
    with pytest.raises(UserError) as caught:
        check_config(composed("train", "seed=-1", "algorithm.lr=abc", "+trainer.x=1"))
    assert len(str(caught.value).splitlines()) == 3


def test_a_class_of_ones_own_states_its_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "counting_of_mine.py").write_text(
        "class Watch:\n    def __init__(self, every: int = 1, more: 'str | None' = None): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    node = "+callbacks.mine={_target_: counting_of_mine.Watch, every: %s}"
    check_config(composed("train", node % "2"))
    with pytest.raises(UserError, match=r"callbacks\.mine\.every=often is not a whole number"):
        check_config(composed("train", node % "often"))
    with pytest.raises(UserError, match=r"AttributeError.*Wach"):
        check_config(composed("train", "+callbacks.mine={_target_: counting_of_mine.Wach}"))
    (tmp_path / "broken_of_mine.py").write_text("import nothing_of_the_kind\n")
    with pytest.raises(UserError, match="No module named 'nothing_of_the_kind'"):
        check_config(composed("train", "+callbacks.mine={_target_: broken_of_mine.X}"))


def test_values_of_ones_own_have_a_place() -> None:
    cfg = composed("train")
    with open_dict(cfg):
        cfg.own = {"width": 3, "more": {"x": [1]}}
    check_config(cfg)


def test_every_setting_is_in_a_config_that_has_a_comment_or_a_default() -> None:
    text = "".join(path.read_text() for path in conf_dir().rglob("*.yaml"))
    for name in SETTINGS:
        if name not in ("data.frames", "own"):
            assert f"{name.rpartition('.')[2].strip('*')}:" in text, name


# ---------------------------------------------------------------------------------------- command lines

LINES = {
    ("trainer.max_step=2",): "there is no setting trainer.max_step; did you mean trainer.max_steps?",
    ("lr=1e-4",): "lr=1e-4: there is no setting lr; did you mean algorithm.lr?",
    ("experiments=demo",): "experiments=demo: there is no setting experiments; did you mean experiment?",
    ("+foo=bar",): "+foo=bar: there is no setting foo",
    ("algoritm.lr=1",): "algoritm.lr=1: there is no algoritm; did you mean algorithm?",
    ("-m", "trainer.max_step=2,3"): "did you mean trainer.max_steps?",
    ("-m", "algorithm=grpo,sft", "algorithm.num_generation=2"): "did you mean algorithm.num_generations?",
    ("model.lora.rank=2",): "model.lora.rank=2: model.lora is null and has no settings",
    ("max_steps=3",): "did you mean trainer.max_steps?",
    ("algorithm.ratio=token",): "algorithm.ratio is algorithm.objective.ratio now",
    ("weights_only=false",): "weights_only= is trust=true",
}


@pytest.mark.parametrize("line", LINES)
def test_a_typo_gets_the_nearest_name(line: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        check_overrides("train", expand_choices(line))
    assert LINES[line] in str(caught.value)


RIGHT: dict[tuple[str, ...], tuple[str, ...]] = {
    ("trainer.limit_train_batches=2",): ("+trainer.limit_train_batches=2",),
    ("adapter=lora", "model.lora.rank=2"): ("adapter=lora", "model.lora.rank=2"),
    ("-m", "algorithm.lr=1e-4,1e-5"): ("-m", "algorithm.lr=1e-4,1e-5"),
    ("+callbacks.mine={_target_: a.b}",): ("+callbacks.mine={_target_: a.b}",),
    ("~callbacks.export", "hydra.run.dir=x"): ("~callbacks.export", "hydra.run.dir=x"),
    ("experiment=demo", "task=[tracking]"): ("experiment=demo", "task=[tracking]"),
    ("--cfg", "job"): ("--cfg", "job"),
    ("data.sources.grounding.weight=2",): ("+data.sources.grounding.weight=2",),
    ("-m", "task=[grounding],[grounding,tracking]"): ("-m", "task=[grounding],[grounding,tracking]"),
}


@pytest.mark.parametrize("line", RIGHT)
def test_what_is_right_reaches_hydra(line: tuple[str, ...]) -> None:
    assert check_overrides("train", line) == list(RIGHT[line])


def test_options_of_ones_own_are_known(tmp_path: Path) -> None:
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / "mine.yaml").write_text("defaults: [grpo]\nlr: 1e-3\n")
    line = ["--config-dir", str(tmp_path), "algorithm=mine", "algorithm.num_generations=4"]
    assert check_overrides("train", line) == line
    with pytest.raises(UserError, match=r"did you mean algorithm\.num_generations\?"):
        check_overrides("train", [*line[:-1], "algorithm.num_generation=4"])


# ------------------------------------------------------------------------------------------------ types

HINTS: list[tuple[Any, list[Any], list[Any]]] = [
    (int, [0, -3], [True, 1.0, "1", None]),
    (float, [0, 1.5], [True, "1", None, float("nan")]),
    (bool, [True], [1, "true"]),
    (str, ["", "x"], [1, None, ["x"]]),
    (int | None, [1, None], ["x"]),
    (list[int], [[], [1]], [1, ["x"], (1,)]),
    (dict[str, float], [{}, {"a": 1}], [{"a": "x"}, [1], 1]),
    (Path, ["a"], [1]),
    (GRPOModule, [{"_target_": "x"}, None], ["x", 1]),
    (Any, [1, None, {}, []], []),
]


@pytest.mark.parametrize(("hint", "right", "wrong"), HINTS)
def test_types_by_hand(hint: Any, right: list[Any], wrong: list[Any]) -> None:
    assert all(fits(value, hint) for value in right)
    assert not any(fits(value, hint) for value in wrong)
    assert described(hint)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_no_value_breaks_the_check(value: Any) -> None:
    for hint in [*SETTINGS.values(), *(hint for hint, _, _ in HINTS)]:
        assert fits(value, hint) in (True, False)


def test_arguments_of_a_base_count() -> None:
    known, is_open = parameters_of(GRPOModule)
    assert {"num_generations", "lr", "reference_refresh", "on_nonfinite"} <= set(known)
    assert not is_open
    assert nearest("algorithm.num_generation", known) == "; did you mean algorithm.num_generations?"
    assert nearest("algorithm.xyz", known) == ""


# ------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize(
    "program", ["train", "evaluate", "predict", "chat", "export", "check", "plan", "score", "compare"]
)
def test_help_is_there_at_once(program: str) -> None:
    began = time.perf_counter()
    command = [sys.executable, "-X", "importtime", "-m", f"vcr1.{program}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "torch" not in done.stderr  # nothing heavy was loaded; seconds would depend on the machine
    assert f"python -m vcr1.{program}" in done.stdout
    assert time.perf_counter() - began < 30


def test_help_shows_the_config_with_its_comments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        show_usage("train", "Train.", ["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert "ckpt_path: null" in said
    assert "A checkpoint to go on from" in said
    assert "algorithm    cispo, dapo" in said
    with pytest.raises(SystemExit):
        show_usage("train", "Train.", ["--help", "algorithm"])
    assert "on_nonfinite: skip" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        show_usage("train", "Train.", ["--help", "algoritm"])
    assert "there is no group algoritm; choose from adapter" in capsys.readouterr().out
    show_usage("train", "Train.", ["experiment=demo"])  # goes on


def test_the_embedded_demo_fits() -> None:
    check_config(load_config(["experiment=demo"]))
