"""From a prompt and a clip to the inputs of a model that this package knows nothing about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import ProcessorMixin

from vcr1.errors import UserError
from vcr1.policy.families import Family
from vcr1.policy.prompts.encoding import PromptEncoder
from vcr1.records import PromptInputs, VideoClip
from vcr1.video import PatchGrid

OWN_SIZE = PatchGrid(temporal=1, spatial=28)
"""What frames are sampled and resized for where the processor resizes them once more, to its own size."""
_ANSWER = "vcr1 answer"


class PlainEncoder(PromptEncoder):
    """Relies on what processors have in common, and passes on whatever they return.

    A processor that cuts frames into patches of a stated size takes them as they are; one that has a size of
    its own resizes them to it.

    Args:
        processor: a Hugging Face processor with a tokenizer, a video processor and a chat template.
        family: the family of the processor's model.
        stops: ids at which the model's generation config stops.

    Raises:
        UserError: the processor lacks one of them.
    """

    def __init__(self, processor: ProcessorMixin, family: Family, stops: Sequence[int] = ()) -> None:
        lacks = [
            what
            for what, attribute in (
                ("video input", "video_processor"),
                ("tokenizer", "tokenizer"),
                ("chat template", "chat_template"),
            )
            if getattr(processor, attribute, None) is None
        ]
        if lacks:
            raise UserError(
                f"family {family.name} cannot be used: its {type(processor).__name__} has no "
                f"{', no '.join(lacks)}"
            )
        super().__init__(processor, family, stops)
        self._special = {
            int(id_): str(token)
            for id_, token in self.tokenizer.added_tokens_decoder.items()
            if token.special
        }
        self._end_of_turn = self._behind_an_answer()

    def _behind_an_answer(self) -> int:
        """The special token that the chat template puts behind an answer, or else the end of the text."""
        turns = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("user", "When?"), ("assistant", _ANSWER))
        ]
        written = str(self.processor.apply_chat_template(turns, tokenize=False))
        behind = self.tokenizer(written.rpartition(_ANSWER)[2], add_special_tokens=False)["input_ids"]
        return next((int(id_) for id_ in behind if id_ in self._special), int(self.tokenizer.eos_token_id))

    @property
    def end_of_turn(self) -> int:
        """Id of the token that ends a completion; in some families another than the tokenizer's own end."""
        return self._end_of_turn

    @property
    def padding(self) -> int:
        """Return id of the padding token; where there is none, the one that ends a completion."""
        id_ = self.tokenizer.pad_token_id
        return self._end_of_turn if id_ is None else int(id_)

    @property
    def grid(self) -> PatchGrid:
        """Return frames and pixels per vision token, where the processor states them."""
        video = self.processor.video_processor
        patch, merge, temporal = (
            getattr(video, name, None) for name in ("patch_size", "merge_size", "temporal_patch_size")
        )
        # Video-LLaMA 3 and its like have no temporal patches.
        if isinstance(patch, int) and isinstance(merge, int):
            return PatchGrid(temporal=temporal if isinstance(temporal, int) else 1, spatial=patch * merge)
        return OWN_SIZE

    def process(self, text: str, clip: VideoClip | None) -> PromptInputs:
        """Run the processor on a chat that is written out already.

        Raises:
            UserError: it returns something that is no tensor.
        """
        settings: dict[str, Any] = {}
        if clip is not None:
            settings = {
                "videos": [clip.frames],
                "video_metadata": [self.family.metadata(clip)],
                "do_sample_frames": False,
            }
            if self.grid is not OWN_SIZE:
                settings["do_resize"] = False
        start = self.tokenizer.bos_token
        if start and text.startswith(start):
            settings["add_special_tokens"] = False  # or there would be two
        encoded = self.processor(text=[text], return_tensors="pt", **settings)
        return {
            name: self._tensor(name, value)
            for name, value in encoded.items()
            if name != "video_metadata"  # what the processor was told, handed back
        }

    def _tensor(self, name: str, value: Any) -> torch.Tensor:
        try:
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{type(self.processor).__name__} returned {name} that is no tensor: family "
                f"{self.family.name} needs an adapter of its own in vcr1/policy/families"
            ) from error

    def cleaned(self, text: str) -> str:
        """Return text from outside without any of the tokenizer's special tokens."""
        for token in self._special.values():
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        return super().cleaned(text)
