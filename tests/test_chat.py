"""The page's settings, without a page."""

import os
import socket
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from vcr1.chat import check_page, own_folder, run_job
from vcr1.config.building import build
from vcr1.config.choices import conf_dir
from vcr1.config.sources import build_budget, build_task
from vcr1.errors import UserError


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("chat", overrides=["run_dir=runs/chat", *overrides])


def test_the_page_is_for_this_machine_and_offers_all_tasks() -> None:
    cfg = composed()
    assert (cfg.host, cfg.port, cfg.videos, cfg.checkpoint) == ("127.0.0.1", 7860, None, None)
    tasks = ["grounding", "tracking", "grounded_qa", "qa", "captioning", "quality"]
    assert list(cfg.tasks) == tasks
    assert [build_task(cfg, name).name for name in tasks] == tasks
    assert build_budget(cfg, "free") == build(cfg.data.video)
    assert build(cfg.clues).rounds == 0
    assert build(cfg.rollout).temperature == 0
    assert list(composed("task=[qa]").tasks) == ["qa"]
    assert list(composed("task=free").tasks) == []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        asked = compose("predict", overrides=["run_dir=x", "video=a.mp4"])
    shared = ("limits", "device", "rollout", "model", "seed", "clues")
    assert {name: cfg[name] for name in shared} == {name: asked[name] for name in shared}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_page_that_can_be_served_is_not_complained_of(tmp_path: Path) -> None:
    check_page(composed(f"port={free_port()}", f"videos={tmp_path}"))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["videos=/no/such/folder"], "videos=/no/such/folder: there is no such folder"),
        (["port=0"], "port=0 must be a whole number from 1 to 65535"),
        (["port=http"], "port=http must be"),
        (["upload_mb=-5"], "upload_mb=-5 must be"),
        (["host=no.such.host.example"], "host=no.such.host.example port=7860: cannot be listened on"),
        (["host='::1'"], "host=::1: must be a name or an IPv4 address"),
        (["limits.query=0"], "limits.query=0 must be a positive number"),
        (["checkpoint=runs/x.ckpt"], "checkpoint=runs/x.ckpt: no Hugging Face model there"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    overrides: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    port = [] if "port=7860" in reason or overrides[0].startswith("port") else [f"port={free_port()}"]
    with pytest.raises(SystemExit) as ended:
        run_job(composed(*overrides, *port))
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2
    assert reason in said
    assert "\n" not in said


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port={port}: cannot be listened on .*in use"):
            check_page(composed(f"port={port}"))


def test_without_gradio_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"Gradio, which is not installed: pip install 'vcr1\[app\]'"):
        check_page(composed())


def test_settings_of_gradio_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/elsewhere")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    with own_folder() as folder:
        found = {name: value for name, value in os.environ.items() if name.startswith("GRADIO_")}
        assert folder.is_dir()
    assert found == {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    assert not folder.exists()
