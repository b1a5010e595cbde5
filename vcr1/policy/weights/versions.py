"""What an export needs beside the files of transformers 5, so that transformers 4.57 reads it too.

Version 5 writes rotary parameters, tied embeddings, special tokens and processors in new places. Version 4.57
does not look there and takes its defaults: it then draws the head at random and leaves M-RoPE out. Each value
is written in both places. Version 5 and vLLM read the older places too and find the same values there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Values = dict[str, Any]


def write_older_files(folder: Path, config: Any, processor: Any) -> None:
    """Complete a folder that ``save_pretrained`` of transformers 5 has written.

    ``AutoImageProcessor`` and ``AutoVideoProcessor`` of 4.57 read ``preprocessor_config.json`` and
    ``video_preprocessor_config.json``.

    Args:
        folder: an export of a Qwen-VL family; one of adapters has no ``config.json``.
        config: the model's Hugging Face config.
        processor: the model's Hugging Face processor.
    """
    processor.image_processor.save_pretrained(folder)
    processor.video_processor.save_pretrained(folder)
    _rewrite(folder / "tokenizer_config.json", older_tokenizer)
    if (folder / "config.json").is_file():
        tied = bool(config.tie_word_embeddings)
        _rewrite(folder / "config.json", lambda values: older_config(values, tied))


def older_config(values: Values, tied: bool) -> Values:
    """Add what the config classes of 4.57 read.

    ``Qwen2VLTextConfig``, ``Qwen2_5_VLTextConfig`` and ``Qwen3VLTextConfig`` read ``rope_theta`` and
    ``rope_scaling`` (``rope_type``, ``mrope_section``). Whether the head is tied is read from the text's
    config (Qwen2-VL, Qwen2.5-VL) or from the model's (Qwen3-VL).

    Args:
        values: content of a ``config.json``.
        tied: whether the head's weights are those of the embeddings.
    """
    text = dict(values["text_config"])
    rope = text["rope_parameters"]
    text |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {key: value for key, value in rope.items() if key != "rope_theta"},
        "tie_word_embeddings": tied,
    }
    return values | {"text_config": text, "tie_word_embeddings": tied}


def older_tokenizer(values: Values) -> Values:
    """Rename what 4.57 calls otherwise: ``AutoTokenizer`` its class, ``PreTrainedTokenizerBase`` the tokens.

    Args:
        values: content of a ``tokenizer_config.json``.
    """
    values = dict(values)
    if values.get("tokenizer_class") == "TokenizersBackend":
        values["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(values.get("extra_special_tokens"), list):  # 4.57 wants a dict here, and fails
        values["additional_special_tokens"] = values.pop("extra_special_tokens")
    return values


def _rewrite(file: Path, change: Callable[[Values], Values]) -> None:
    values = change(json.loads(file.read_text(encoding="utf-8")))
    file.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
