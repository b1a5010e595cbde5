"""Loads an export and computes logits: run by older_transformers.py in a process with transformers 4.57.

Usage: ``python older_forward.py FOLDER INPUTS OUTPUT``. It must not import vcr1, which needs transformers 5.
"""

import sys

import torch
import transformers
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer


def main(folder: str, inputs: str, output: str) -> None:
    model, report = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    processor = AutoProcessor.from_pretrained(folder)
    given = torch.load(inputs)
    frames, text = given.pop("frames"), given.pop("text")
    encoded = processor(text=[text], videos=[frames], do_resize=False, return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**given, use_cache=False).logits
    found = {
        "version": transformers.__version__,
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "logits": logits,
        "pixels": encoded["pixel_values_videos"],
        "tokens": processor.tokenizer(text)["input_ids"],
        "auto_tokens": AutoTokenizer.from_pretrained(folder)(text)["input_ids"],
        "special": sorted(processor.tokenizer.all_special_tokens),
        "template": processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "when?"}]}],
            add_generation_prompt=True,
            tokenize=False,
        ),
    }
    torch.save(found, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
