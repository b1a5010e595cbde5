import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from policy_cases import make_clip, question
from safetensors import safe_open
from small_models import MODELS, small_policy
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from vcr1.policy import LoRA, PromptEncoder, VideoPolicy, check_weights, load_policy
from vcr1.policy.weights.saving import save_adapter


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_the_auto_classes_load_what_was_saved(policy: VideoPolicy, clips: Path, tmp_path: Path) -> None:
    with torch.no_grad():  # other weights than those that came with the package
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.01)
    folder = tmp_path / "deep" / "model"
    policy.save(folder)
    check_weights(str(folder))
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    loaded = dict(model.named_parameters())
    for name, parameter in policy.model.named_parameters():
        assert torch.equal(loaded[name], parameter), name

    clip = make_clip(clips, 6.0)
    inputs = policy.encoder(question(), clip)
    again = PromptEncoder(AutoProcessor.from_pretrained(folder))(question(), clip)
    assert list(again) == list(inputs)
    assert all(torch.equal(again[name], inputs[name]) for name in inputs)
    with torch.no_grad():
        assert torch.equal(model(**again).logits, policy.model(**inputs).logits)
    ids = model.generate(**again, max_new_tokens=20)  # with its own generation settings
    expected = policy.model.generate(**inputs, max_new_tokens=20)
    assert torch.equal(ids, expected)


def test_tied_weights_are_written_once_in_another_type_too(policy: VideoPolicy, tmp_path: Path) -> None:
    names = []
    for dtype in (None, torch.float16):
        policy.save(tmp_path / str(dtype), dtype)
        with safe_open(tmp_path / str(dtype) / "model.safetensors", "pt") as file:
            names.append(set(file.keys()))
    assert names[0] == names[1]
    assert "lm_head.weight" not in names[0]


def test_a_saved_policy_is_loaded_and_saved_again_alike(policy: VideoPolicy, tmp_path: Path) -> None:
    policy.save(tmp_path / "first")
    load_policy(str(tmp_path / "first"), dtype="float32").save(tmp_path / "second")
    first, second = contents(tmp_path / "first"), contents(tmp_path / "second")
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == set()


@pytest.mark.parametrize("family", MODELS)
def test_what_transformers_4_57_reads_is_in_the_files(family: str, tmp_path: Path) -> None:
    # `make older` loads them there. Which class reads a key is said in vcr1/policy/weights/versions.py.
    policy = small_policy(family)
    policy.save(tmp_path / "model", torch.float16)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    text = config["text_config"]
    assert text["rope_theta"] == 1e4
    assert text["rope_scaling"]["rope_type"] == "default"
    section = [1, 1, 0] if family == "glm4v" else [2, 1, 1]
    assert text["rope_scaling"]["mrope_section"] == section
    assert (config["tie_word_embeddings"], text["tie_word_embeddings"]) == (False, False)
    assert config["dtype"] == "float16"
    # Transformers 5 reads the older keys too, and finds the same.
    again = AutoConfig.from_pretrained(tmp_path / "model").text_config.rope_parameters
    assert again == policy.model.config.text_config.rope_parameters
    assert again["mrope_section"] == section


def test_an_export_has_the_tokenizer_and_the_processors_of_transformers_4_57(
    policy: VideoPolicy, tmp_path: Path
) -> None:
    policy.save(tmp_path, torch.float16)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"]) == (True, True)
    image = json.loads((tmp_path / "preprocessor_config.json").read_text())
    video = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    assert (image["image_processor_type"], image["patch_size"]) == ("Qwen2VLImageProcessor", 14)
    assert (video["video_processor_type"], video["do_sample_frames"]) == ("Qwen2VLVideoProcessor", False)
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "<|video_pad|>" in tokenizer["additional_special_tokens"]
    assert "extra_special_tokens" not in tokenizer
    again, own = AutoTokenizer.from_pretrained(tmp_path), policy.encoder.tokenizer
    assert again.all_special_tokens == own.all_special_tokens
    assert again.extra_special_tokens == own.extra_special_tokens


def test_an_existing_folder_is_replaced(policy: VideoPolicy, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    policy.save(folder)
    (folder / "optimizer.pt").write_bytes(b"left over from another run")
    with torch.no_grad():
        policy.model.model.language_model.norm.weight.mul_(2)
    policy.save(str(folder))
    assert not (folder / "optimizer.pt").exists()
    assert list(tmp_path.iterdir()) == [folder]
    saved = load_policy(str(folder), dtype="float32").model.model.language_model.norm.weight
    assert torch.equal(saved, policy.model.model.language_model.norm.weight)


def test_a_failure_leaves_the_folder_as_it_was(
    policy: VideoPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: str) -> None:
        assert (Path(folder) / "model.safetensors").exists()  # it fails midway
        raise OSError("no space left on device")

    folder = tmp_path / "model"
    policy.save(folder)
    before = contents(folder)
    monkeypatch.setattr(policy.encoder, "save", fail)
    with torch.no_grad():
        policy.model.model.language_model.norm.weight.mul_(2)
    with pytest.raises(OSError, match="no space"):
        policy.save(folder)
    with pytest.raises(OSError, match="no space"):
        policy.save(tmp_path / "new")
    assert list(tmp_path.iterdir()) == [folder]
    assert contents(folder) == before


def test_all_that_an_adapter_learns_is_saved(clips: Path, tmp_path: Path) -> None:
    policy = load_policy("builtin:tiny", lora=LoRA(rank=4, vision=True, dora=True, rslora=True)).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:  # magnitudes, too
                parameter.add_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02
                )
    save_adapter(policy.model, policy.encoder, tmp_path / "adapter", None, "builtin:tiny")
    model = PeftModel.from_pretrained(load_policy("builtin:tiny").model, str(tmp_path / "adapter")).eval()
    inputs = policy.encoder(question(), make_clip(clips, 6.0))
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, policy.model(**inputs).logits)


@pytest.mark.parametrize(("mask", "files", "folders"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_files_may_be_read_by_whom_the_umask_allows(
    policy: VideoPolicy, tmp_path: Path, mask: int, files: int, folders: int
) -> None:
    with umask(mask):
        policy.save(tmp_path / "model")
        assert os.umask(mask) == mask  # and the umask itself is left alone
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == folders
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").rglob("*")}
    assert "model.safetensors" in modes
    assert set(modes.values()) == {files}
