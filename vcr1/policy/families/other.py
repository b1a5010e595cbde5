"""Families without a module here: what transformers' models and processors have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from vcr1.errors import UserError
from vcr1.policy.families.base import PROJECTIONS, Family
from vcr1.records import VideoClip

MERGERS = ("multi_modal_projector", "connector", "merger", "projector", "aligner", "embed_vision")
"""Names in transformers of the module between the vision tower and the language model."""


@dataclass(frozen=True)
class OtherFamily(Family):
    """Pass on whatever the processor returns, and leave positions and features to the model's own forward.

    Prompts are not shared; see :mod:`vcr1.policy.plain`.
    """

    inputs: tuple[str, ...] = ()
    lora_targets: str = rf".*(language_model|text_model).*\.({'|'.join(PROJECTIONS)})"

    def metadata(self, clip: VideoClip) -> dict[str, Any]:
        """Return what any processor may ask for."""
        return super().metadata(clip) | {
            "total_num_frames": round(1000 * clip.duration),
            "duration": clip.duration,
            "height": clip.frames.shape[-2],
            "width": clip.frames.shape[-1],
        }

    def tower(self, model: Any) -> nn.Module:
        """Return what transformers names as the encoder of videos."""
        tower: nn.Module = model.get_encoder(modality="video")
        return tower

    def parts(self, model: Any, name: str) -> list[nn.Module]:
        """Return what transformers finds of that name; ``vision`` is the tower alone, without the merger.

        Raises:
            UserError: it finds none.
        """
        body = model.base_model
        mergers = [
            getattr(body, merger) for merger in MERGERS if isinstance(getattr(body, merger, None), nn.Module)
        ]
        part = {
            "vision": lambda: self.tower(model),
            "merger": lambda: mergers[0] if mergers else None,
            "language": model.get_decoder,
            "head": model.get_output_embeddings,
        }[name]()
        if not isinstance(part, nn.Module) or part is model or part is body:
            raise UserError(
                f"model.freeze names {name}, which transformers does not tell apart in a {self.name}: "
                f"leave it out, or write a module for the family in vcr1/policy/families"
            )
        return [part]
