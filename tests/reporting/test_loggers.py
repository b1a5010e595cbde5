"""Weights & Biases offline, in its modes, and what a run is told about itself."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
import wandb
from lightning.pytorch.utilities import rank_zero_only

from vcr1.errors import UserError
from vcr1.reporting import loggers
from vcr1.reporting.loggers import MetricsTable, git_state, keep_metrics, logged_in, run_name, wandb_logger


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No key, no netrc file, no setting from outside; nothing is left running."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    wandb.finish()


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


# ------------------------------------------------------------------------------------------- logged in?


def test_nobody_is_logged_in_without_a_key() -> None:
    assert not logged_in()


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_a_key_in_the_environment_counts(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "k" * 40)
    assert logged_in()
    monkeypatch.setenv(name, "")
    assert not logged_in()


def test_a_key_in_the_netrc_file_counts_for_its_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert not logged_in()
    (tmp_path / "netrc").write_text("machine wandb.example.org login user password secret\n")
    assert logged_in()


def test_the_host_is_that_of_the_installed_version(tmp_path: Path) -> None:
    host = urlparse(wandb.Settings().base_url).hostname
    (tmp_path / "netrc").write_text(f"machine {host} login user password secret\n")
    assert logged_in()


@pytest.mark.parametrize(
    "content", ["machine api.wandb.ai nonsense\n", "", "machine other.org login a password b\n"]
)
def test_a_netrc_file_without_a_key_does_not(tmp_path: Path, content: str) -> None:
    (tmp_path / "netrc").write_text(content)
    assert not logged_in()


# ------------------------------------------------------------------------------------------------ modes


def test_an_unknown_mode_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"logger\.wandb\.mode=sometimes; choose from auto, online, offline"):
        wandb_logger(str(tmp_path / "run"), "vcr1", mode="sometimes")
    assert not (tmp_path / "run").exists()


def test_auto_is_offline_for_who_is_not_logged_in(tmp_path: Path) -> None:
    folder = tmp_path / "demo-1"
    logger = wandb_logger(str(folder), "project", group="group", tags=("a", "b"))
    logger.log_hyperparams({"config": {"seed": 3}, "git": {"commit": "abc", "dirty": True}})
    logger.log_metrics({"train/reward": 1.5}, step=2)
    run = logger.experiment
    assert run.settings._offline
    assert (run.name, run.project, run.group, run.tags) == ("demo-1", "project", "group", ("a", "b"))
    assert run.config["config"] == {"seed": 3}
    assert run.config["git"] == {"commit": "abc", "dirty": True}
    assert run.summary["train/reward"] == 1.5
    wandb.finish()
    (stored,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    assert stored.stat().st_size > 0


def test_the_jobs_of_a_sweep_carry_its_name() -> None:
    assert run_name(Path("runs/demo-1")) == "demo-1"
    assert run_name(Path("runs/demo-1/0")) == "demo-1/0"


def test_the_environment_goes_before_the_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    run = wandb_logger(str(tmp_path / "run"), "vcr1", mode="online").experiment
    assert run.disabled
    assert not (tmp_path / "run" / "wandb").exists()


def test_only_the_first_rank_logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    wandb_logger(str(tmp_path / "run"), "vcr1", mode="offline")
    assert wandb.run is not None
    assert wandb.run.disabled
    assert not (tmp_path / "run" / "wandb").exists()


def test_a_server_that_does_not_answer_does_not_stop_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    real, modes = wandb.init, []

    def init(**arguments: object) -> wandb.Run:
        modes.append(arguments["mode"])
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("timed out")
        return real(**arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(loggers, "unreachable", lambda: None)
    run = wandb_logger(str(tmp_path / "run"), "vcr1", mode="online").experiment
    assert modes == ["online", "offline"]
    assert run.settings._offline
    assert "timed out" in caplog.text
    assert "wandb sync" in caplog.text


def test_a_folder_keeps_its_run(tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        ids.append(wandb_logger(str(tmp_path / "run"), "vcr1").experiment.id)
        wandb.finish()
    ids.append(wandb_logger(str(tmp_path / "other"), "vcr1").experiment.id)
    assert ids[0] == ids[1] != ids[2]


# -------------------------------------------------------------------------------------------- the table


def table(folder: Path) -> MetricsTable:
    return MetricsTable(str(folder), name="", version="")


def test_a_table_of_metrics_is_gone_on_with(tmp_path: Path) -> None:
    first = table(tmp_path)
    for step in range(3):
        first.log_metrics({"loss": step + 0.5}, step=step)
    first.save()
    path = tmp_path / "metrics.csv"
    with path.open("a") as file:
        file.write("3.5")  # the line at which the run was killed
    keep_metrics(path, 2)
    second = table(tmp_path)
    second.log_metrics({"loss": 2.75, "kl": 0.25}, step=2)  # with one column more
    second.save()
    assert path.read_text().split() == ["kl,loss,step", ",0.5,0", ",1.5,1", "0.25,2.75,2"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.csv"]


# ------------------------------------------------------------------------------------------------- git


def test_git_state_is_the_commit_and_whether_files_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() == {}
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state() == {"commit": commit, "dirty": False}
    (tmp_path / "file").write_text("changed")
    assert git_state() == {"commit": commit, "dirty": True}


def test_git_state_is_empty_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_state() == {}


def test_a_server_that_cannot_be_reached_costs_seconds_and_no_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    wandb.teardown()  # its service has read the environment before
    logger = wandb_logger(str(tmp_path / "run"), "vcr1")
    assert logger.experiment.settings._offline
    assert "127.0.0.1:1 does not answer" in caplog.text
    logger.log_metrics({"train/loss": 1.0}, step=1)
    wandb.finish()
    wandb.teardown()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_failure_of_the_log_does_not_reach_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = wandb_logger(str(tmp_path / "run"), "vcr1", mode="offline")
    run = logger.experiment

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "log", full)
    for step in (1, 2):
        logger.log_metrics({"train/loss": 1.0}, step=step)
    assert caplog.text.count("No space left on device") == 1
    assert "the run goes on, and its metrics are in metrics.csv" in caplog.text
