"""Exports in transformers 4.57, which reads them in a process of its own; run by `make older`.

No part of `make test`: transformers 4.57 does not install beside version 5. It takes 70 MB in a folder.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from published import placed
from small_models import MODELS, small_policy, video_prompt
from transformers import AutoTokenizer

from vcr1.policy import VideoPolicy, load_policy
from vcr1.records import PromptInputs

OLDER = Path(os.environ.get("OLDER_TRANSFORMERS", Path(__file__).resolve().parents[2] / ".older"))
TEXT = "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>when?<|im_end|>"


def policy_of(kind: str) -> VideoPolicy:
    """The embedded model, which ties its head, or a random one of a family, which does not."""
    if kind == "tiny":
        return load_policy("builtin:tiny", attention="eager").eval()
    policy = small_policy(kind)
    policy.model.set_attn_implementation("eager")
    return policy


def questions(kind: str, policy: VideoPolicy) -> PromptInputs:
    if kind != "tiny":
        return video_prompt(kind, [3, 4, 2], [(6, 4, 4), (3, 4, 8)])
    return policy.encoder.smallest()


@pytest.mark.parametrize("kind", ["tiny", *MODELS])
def test_logits_are_equal_in_transformers_4_57(kind: str, tmp_path: Path) -> None:
    assert (OLDER / "transformers").is_dir(), f"{OLDER} has no transformers; `make older` installs it"
    policy = policy_of(kind)
    inputs: dict[str, Any] = dict(placed(policy.model, questions(kind, policy)))
    with torch.no_grad():
        expected = policy.model(**inputs, use_cache=False).logits
    folder = tmp_path / "model"
    policy.save(folder, torch.float32)
    side = policy.encoder.grid.spatial
    frames = torch.arange(2 * 3 * side * side).reshape(2, 3, side, side).remainder(251).byte()
    del inputs["mm_token_type_ids"]  # unknown there
    torch.save(inputs | {"frames": frames, "text": TEXT}, tmp_path / "inputs.pt")
    script = Path(__file__).with_name("older_forward.py")
    done = subprocess.run(
        [sys.executable, script, folder, tmp_path / "inputs.pt", tmp_path / "found.pt"],
        env=os.environ | {"PYTHONPATH": str(OLDER), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    found = torch.load(tmp_path / "found.pt")
    assert found["version"].startswith("4.57.")
    assert (found["missing"], found["unexpected"]) == ([], [])
    assert (found["logits"] - expected).abs().max() <= 1e-5
    own = policy.encoder.processor
    pixels = own.video_processor([frames], do_resize=False, return_tensors="pt")["pixel_values_videos"]
    assert (found["pixels"] - pixels).abs().max() <= 1e-6
    tokens = AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    assert found["tokens"] == found["auto_tokens"] == tokens
    assert "<|video_pad|>" in found["special"]
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "when?"}]}]
    assert found["template"] == own.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
