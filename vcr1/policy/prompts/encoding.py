"""From a prompt and a clip to the model's inputs, through the model's own processor."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import ProcessorMixin

from vcr1.errors import UserError
from vcr1.policy.families import FAMILIES, Family
from vcr1.records import Prompt, PromptInputs, VideoClip
from vcr1.video import PatchGrid


class _Once:
    """A video processor that works on the first call and hands out the same from then on.

    Args:
        processor: the video processor; all calls must be about the same clip.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._found: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._found is None:
            self._found = self._processor(*args, **kwargs)
        return copy.copy(self._found)  # whose entries a processor may take out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)


class PromptEncoder:
    """Turns a prompt and its clip into ``PromptInputs`` and completions into ids and back.

    Picklable, and holds no weights: DataLoader workers use it.

    Args:
        processor: a Hugging Face processor with a tokenizer, a video processor and a chat template.
        family: the family of the processor's model.
        stops: ids at which the model's generation config stops; a completion ends at any of them.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        family: Family = FAMILIES["qwen2_5_vl"],
        stops: Sequence[int] = (),
    ) -> None:
        self.processor: Any = processor
        self.family = family
        self.tokenizer = self.processor.tokenizer
        self._stops = tuple(stops)

    @property
    def grid(self) -> PatchGrid:
        """Return frames and pixels per vision token, as the model merges them."""
        video = self.processor.video_processor
        return PatchGrid(temporal=video.temporal_patch_size, spatial=video.patch_size * video.merge_size)

    @property
    def end_of_turn(self) -> int:
        """Return id of the token that ends a taught answer."""
        own = self.tokenizer.get_added_vocab().get(self.family.end_token)
        return int(self.tokenizer.eos_token_id if own is None else own)

    @property
    def stops(self) -> tuple[int, ...]:
        """Return ids that end a completion: the end of turn, and those of the model's generation config."""
        return (self.end_of_turn, *(id_ for id_ in self._stops if id_ != self.end_of_turn))

    def ends(self, ids: Tensor) -> Tensor:
        """Return where ids of completions are stops; bool of their shape."""
        return torch.isin(ids, torch.tensor(self.stops, device=ids.device))

    @property
    def padding(self) -> int:
        """Return id of the padding token."""
        return int(self.tokenizer.pad_token_id)

    def __call__(self, prompt: Prompt, clip: VideoClip | None) -> PromptInputs:
        """Encode one prompt.

        Args:
            prompt: the question; the clip, if any, stands before its text.
            clip: frames that are already sampled and resized; they are used as they are.

        Returns:
            The processor's whole dict, batch of one: ``input_ids`` ``[1, L]`` and so on.

        Raises:
            UserError: the processor gives other times than the clip has, or leaves an input out.
        """
        turns = [] if prompt.system is None else [("system", prompt.system)]
        return self.turns([*turns, ("user", prompt.text)], clip)

    def turns(self, messages: Sequence[tuple[str, str]], clip: VideoClip | None = None) -> PromptInputs:
        """Encode a conversation up to an answer that is to come; otherwise as the call itself.

        Args:
            messages: role and text of each, in the order in which they are said.
            clip: stands before the text of the last one.
        """
        chat: list[dict[str, Any]] = [
            {"role": role, "content": [{"type": "text", "text": self.cleaned(text)}]}
            for role, text in messages
        ]
        if clip is not None:
            chat[-1]["content"].insert(0, {"type": "video"})
        text = self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        return self.process(text, clip)

    def about(self, prompts: Sequence[Prompt], clip: VideoClip | None) -> list[PromptInputs]:
        """Encode prompts about one clip, whose pixels go through the processor once.

        Args:
            prompts: P questions.
            clip: what they are about, as in the call.

        Returns:
            What the call returns for each; they share the tensor of pixels.

        Raises:
            UserError: as the call does.
        """
        sharing = copy.copy(self)
        sharing.processor = copy.copy(self.processor)
        sharing.processor.video_processor = _Once(self.processor.video_processor)
        return [sharing(prompt, clip) for prompt in prompts]

    def process(self, text: str, clip: VideoClip | None) -> PromptInputs:
        """Run the processor on a chat that is written out already; otherwise as the call itself."""
        if clip is None:
            return dict(self.processor(text=[text], return_tensors="pt"))
        encoded = self.processor(
            text=[text],
            videos=[clip.frames],
            # The processor must not sample or resize again: both were done with the clip's own budget.
            video_metadata=[self.family.metadata(clip)],
            do_sample_frames=False,
            do_resize=False,
            return_tensors="pt",
        )
        inputs = {name: torch.as_tensor(encoded[name]) for name in self.family.inputs if name in encoded}
        self._check(inputs, clip)
        return inputs

    def smallest(self, video: bool = True) -> PromptInputs:
        """Return the smallest prompt there is, about a black clip or about nothing."""
        frames, side = self.grid.temporal, self.grid.spatial
        times = tuple(float(frame) for frame in range(frames))
        black = torch.zeros(frames, 3, side, side, dtype=torch.uint8)
        clip = VideoClip(black, tuple(range(frames)), times, float(frames), float(frames))
        return self(Prompt("-"), clip if video else None)

    def _check(self, inputs: PromptInputs, clip: VideoClip) -> None:
        missing = [name for name in self.family.inputs if name not in inputs]
        if missing:
            raise UserError(
                f"{type(self.processor).__name__} returned no {', '.join(missing)}: "
                f"this model family is not supported"
            )
        if "second_per_grid_ts" not in inputs:
            return  # a family that counts steps, or writes the times into the text
        expected = clip.seconds_per_grid(self.grid.temporal)
        found = float(inputs["second_per_grid_ts"][0])
        if abs(found - expected) > 1e-3 * expected:
            raise UserError(
                f"{type(self.processor).__name__} places the frames {found:.4f} s apart per grid step, "
                f"but they are {expected:.4f} s apart"
            )

    def completion_ids(self, text: str) -> list[int]:
        """Return ids of a completion, end-of-turn included."""
        return [*self.tokenizer(self.cleaned(text), add_special_tokens=False)["input_ids"], self.end_of_turn]

    def cleaned(self, text: str) -> str:
        """Text from outside without control tokens: ``<|video_pad|>`` in a query would claim a video."""
        return text.replace("<|", "< |")

    def decode(self, ids: list[int]) -> str:
        """Return text of a completion, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def never_sampled(self, vocabulary: int) -> list[int]:
        """Return ids that a rollout must not produce, out of ``vocabulary`` logits.

        All special tokens but the stops: a sampled ``<|video_pad|>`` would claim vision features that
        do not exist and crash the next forward. And the rows that pad the embedding table: they have no text.
        """
        special = {int(id_) for id_, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        special |= {int(id_) for id_ in self.tokenizer.all_special_ids}
        special |= set(range(len(self.tokenizer), vocabulary))
        return sorted(special - set(self.stops))

    def save(self, folder: str) -> None:
        """Write the processor and the tokenizer as Hugging Face files."""
        self.processor.save_pretrained(folder)
