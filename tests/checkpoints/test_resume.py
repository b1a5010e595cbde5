"""Which checkpoint is meant, and whether it is of the same run."""

from pathlib import Path

import pytest
import torch

from vcr1.checkpoints import Resumed, check_same_run, find_resumed, prepare_folder
from vcr1.checkpoints.resume import setting_differences
from vcr1.errors import UserError

CONFIG = {
    "name": "demo",
    "model": {"path": "builtin:tiny", "gradient_checkpointing": False},
    "algorithm": {"schedule": "constant", "lr": 1e-6},
    "trainer": {"devices": 2, "max_steps": 10},
    "data": {"root": "data", "loader": {"batch_size": 4, "num_workers": 4}},
}


def changed(**groups: dict[str, object]) -> dict[str, object]:
    return CONFIG | {name: {**CONFIG[name], **group} for name, group in groups.items()}  # type: ignore[dict-item]


def test_a_fresh_start_looks_for_nothing(tmp_path: Path) -> None:
    assert find_resumed(None, tmp_path) is None


def test_last_wants_a_checkpoint_and_auto_takes_one_if_there_is_any(tmp_path: Path) -> None:
    assert find_resumed("auto", tmp_path / "checkpoints") is None
    with pytest.raises(UserError, match=r"ckpt_path=last: there is no checkpoint in .*ckpt_path=auto"):
        find_resumed("last", tmp_path)
    path = tmp_path / "step-7.ckpt"
    torch.save({"global_step": 7, "vcr1": {"config": CONFIG, "world_size": 2}}, path)
    for word in ("auto", "last", str(path)):
        assert find_resumed(word, tmp_path) == Resumed(path, 7, CONFIG)


def test_a_path_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.ckpt").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"ckpt_path=.*broken\.ckpt cannot be read"):
        find_resumed(str(tmp_path / "broken.ckpt"), tmp_path)
    with pytest.raises(UserError, match="there is no such checkpoint"):
        find_resumed(str(tmp_path / "missing.ckpt"), tmp_path)


def test_what_does_not_change_the_learning_may_differ() -> None:
    other = changed(
        model={"gradient_checkpointing": True},
        trainer={"max_steps": 20},
        data={"root": "elsewhere", "loader": {"batch_size": 4, "num_workers": 0}},
    )
    assert setting_differences(CONFIG, other | {"name": "other"}) == {}


def test_differences_are_named_with_both_values() -> None:
    other = changed(trainer={"devices": 1}, data={"root": "data", "loader": {"batch_size": 8}})
    assert setting_differences(CONFIG, other) == {"data.loader.batch_size": (4, 8), "trainer.devices": (2, 1)}


def test_the_length_counts_where_the_learning_rate_depends_on_it() -> None:
    cosine = changed(algorithm={"schedule": "cosine"})
    longer = cosine | {"trainer": {"devices": 2, "max_steps": 20}}
    assert setting_differences(cosine, longer) == {"trainer.max_steps": (10, 20)}


def test_another_batch_size_is_a_warning_and_another_model_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resumed = Resumed(tmp_path / "step-1.ckpt", 1, CONFIG)
    check_same_run(resumed, CONFIG)
    assert caplog.text == ""
    check_same_run(resumed, changed(trainer={"devices": 1}))
    assert "step-1.ckpt exactly: trainer.devices was 2, is 1" in caplog.text
    with pytest.raises(UserError, match=r"another model: model\.path was builtin:tiny, is other"):
        check_same_run(resumed, changed(model={"path": "other"}))
    check_same_run(
        Resumed(tmp_path / "old.ckpt", 1, {}), changed(model={"path": "other"})
    )  # it does not tell


def test_a_run_keeps_of_its_own_folder_what_belongs_to_it(tmp_path: Path) -> None:
    for name in (".wandb_id", ".before.json"):
        (tmp_path / name).write_text("x")
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,1.5\n1,1.25\n2,1.0\n")
    prepare_folder(tmp_path, Resumed(tmp_path / "checkpoints" / "step-2.ckpt", 2, {}))
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,train/loss", "0,1.5", "1,1.25"]
    assert (tmp_path / ".wandb_id").read_text() == "x"
    prepare_folder(tmp_path, Resumed(tmp_path.parent / "other" / "step-2.ckpt", 2, {}))
    assert [path.name for path in tmp_path.iterdir()] == ["aside-1"]
    assert (tmp_path / "aside-1" / "metrics.csv").is_file()
