import json
import socket
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from vcr1.errors import UserError
from vcr1.policy import check_weights, load_encoder, load_policy


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks a name up has gone too far."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was tried")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write_config(folder: Path, **values: Any) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values))
    return str(folder)


@pytest.mark.parametrize("load", [check_weights, load_policy])
def test_a_missing_folder_is_named(tmp_path: Path, load: Any) -> None:
    path = str(tmp_path / "nothing")
    with pytest.raises(UserError, match=rf"^model\.path={path}: .* looked in the folder {path}"):
        load(path)


def test_a_name_that_is_nowhere_says_where_it_was_looked_for() -> None:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        check_weights("nobody/no-such-model")
    message = str(caught.value)
    assert message.startswith("model.path=nobody/no-such-model: no model found")
    assert str(Path("nobody/no-such-model").absolute()) in message
    assert huggingface_hub.constants.HF_HUB_CACHE in message
    assert "\n" not in message
    assert time.monotonic() - start < 5


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^model\.path={tmp_path}: no model found"):
        check_weights(str(tmp_path))


def test_a_broken_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(UserError, match=rf"^model\.path={tmp_path}: "):
        check_weights(str(tmp_path))


@pytest.mark.parametrize("load", [check_weights, load_policy])
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_model_of_text_is_named(tmp_path: Path, family: str, load: Any) -> None:
    path = write_config(tmp_path / "model", model_type=family)
    with pytest.raises(UserError, match=rf"^model\.path={path}: family {family} answers no questions about"):
        load(path)


def test_another_family_without_processor_is_named(tmp_path: Path) -> None:
    path = write_config(tmp_path / "model", model_type="llava_onevision")
    with pytest.raises(UserError, match=rf"^model\.path={path}: no processor found there"):
        check_weights(path)


def test_a_model_without_processor_is_named(tmp_path: Path) -> None:
    path = write_config(tmp_path / "model", model_type="qwen2_5_vl")
    check_weights(path)
    with pytest.raises(UserError, match=rf"^model\.path={path}: no processor found there"):
        load_encoder(path)


def test_a_model_that_the_package_does_not_carry_is_named() -> None:
    for load in (check_weights, load_encoder, load_policy):
        with pytest.raises(UserError, match=r"^model\.path=builtin:unknown: the package carries no model in"):
            load("builtin:unknown")


@pytest.mark.parametrize("dtype", ["float23", "int8", "nn", ""])
def test_another_type_than_a_floating_one_is_named(dtype: str) -> None:
    with pytest.raises(UserError, match=rf"^model\.dtype={dtype} is no floating type"):
        load_policy("builtin:tiny", dtype=dtype)


def test_an_attention_that_takes_no_mask_is_refused() -> None:
    with pytest.raises(UserError, match=r"^model\.attention=flash_attention_2; choose from sdpa, eager"):
        load_policy("builtin:tiny", attention="flash_attention_2")


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(
        UserError, match=r"^model\.freeze names eyes; known parts: vision, merger, language, head$"
    ):
        load_policy("builtin:tiny", freeze=["vision", "eyes"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_weights_have_the_asked_type(dtype: str) -> None:
    policy = load_policy("builtin:tiny", dtype=dtype)
    assert {parameter.dtype for parameter in policy.parameters()} == {getattr(torch, dtype)}
    assert all(parameter.requires_grad for parameter in policy.parameters())


@pytest.mark.parametrize(
    ("parts", "frozen"),
    [
        (["vision"], {"model.visual."}),
        (["merger"], {"model.visual.merger."}),
        (["vision", "language"], {"model.visual.", "model.language_model."}),
    ],
)
def test_frozen_parts_are_frozen_and_the_rest_is_not(parts: list[str], frozen: set[str]) -> None:
    policy = load_policy("builtin:tiny", dtype="float32", freeze=parts)
    for name, parameter in policy.model.named_parameters():
        assert parameter.requires_grad is not any(name.startswith(prefix) for prefix in frozen), name
    assert policy.vision_is_frozen is ("vision" in parts)


def test_weights_that_are_missing_or_cut_short_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    load_policy("builtin:tiny", dtype="float32").save(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model: the weights cannot be read .*fetch them again"):
        load_policy(str(folder), dtype="float32")
    weights.unlink()
    with pytest.raises(UserError, match=r"model: the weights cannot be read .*fetch them again"):
        load_policy(str(folder), dtype="float32")
