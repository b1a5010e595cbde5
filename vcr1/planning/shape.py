"""The sizes of a model that its memory and its work follow from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vcr1.policy.families import family_named


@dataclass(frozen=True, slots=True)
class Tower:
    """One stack of transformer blocks.

    Attributes:
        layers: blocks.
        hidden: width of the residual stream.
        intermediate: width inside the MLP.
        heads: attention heads.
        kv_heads: heads of keys and values.
        head_dim: width of a head.
        gated: the MLP has a gate beside its way up (SwiGLU).
        rms: RMSNorm, written out in several operations; otherwise LayerNorm, which is one.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    gated: bool = True
    rms: bool = True

    @property
    def queries(self) -> int:
        """Return width of all queries."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Return width of all keys, and of all values."""
        return self.kv_heads * self.head_dim

    @property
    def block_parameters(self) -> int:
        """Return parameters of one block's matrices; what else it has is small."""
        attention = 2 * self.hidden * self.queries + 2 * self.hidden * self.keys
        return attention + (3 if self.gated else 2) * self.hidden * self.intermediate


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A video language model of one of the known families.

    Attributes:
        text: the language model.
        vision: the vision tower.
        vocabulary: rows of the LM head.
        tied: the LM head is the embedding table.
        patch_values: numbers in a patch of pixels.
        merge: patches on a side that make one token.
        temporal: frames in a patch.
        spatial: pixels on a side of a token.
        window: patches that a patch attends to in most vision blocks; None where all are full.
        full_blocks: vision blocks that attend to a whole frame.
        mergers: projections into the language model: one, and one for each layer of deepstack.
        merger_parameters: of all mergers.
        stamped: times stand in the text between the frames.
        text_after_video: rule for the position of the text behind a video, see
            :data:`~vcr1.policy.families.TEXT_AFTER_VIDEO`.
    """

    text: Tower
    vision: Tower
    vocabulary: int
    tied: bool
    patch_values: int
    merge: int
    temporal: int
    spatial: int
    window: int | None
    full_blocks: int
    mergers: int
    merger_parameters: int
    stamped: bool
    text_after_video: str = "largest"


def shape_of(config: Any) -> ModelShape:
    """Return the sizes in a Hugging Face configuration of one of the known families."""
    text, vision = config.get_text_config(), config.vision_config
    family = family_named(config.model_type)
    width, full_blocks = family.vision_width(vision), getattr(vision, "fullatt_block_indexes", None)
    side = vision.patch_size * vision.spatial_merge_size
    language = Tower(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
    )
    tower = Tower(
        layers=vision.depth,
        hidden=width,
        intermediate=family.vision_intermediate(vision),
        heads=vision.num_heads,
        kv_heads=vision.num_heads,
        head_dim=width // vision.num_heads,
        gated=family.gated_vision,
        rms=family.gated_vision,
    )
    return ModelShape(
        text=language,
        vision=tower,
        vocabulary=text.vocab_size,
        tied=bool(config.tie_word_embeddings),
        patch_values=getattr(vision, "in_channels", 3) * vision.temporal_patch_size * vision.patch_size**2,
        merge=vision.spatial_merge_size,
        temporal=vision.temporal_patch_size,
        spatial=side,
        window=None if full_blocks is None else (vision.window_size // vision.patch_size) ** 2,
        full_blocks=vision.depth if full_blocks is None else len(full_blocks),
        mergers=1 + len(getattr(vision, "deepstack_visual_indexes", None) or []),
        merger_parameters=family.merger_parameters(config),
        stamped=family.frames_are_grids,
        text_after_video=family.text_after_video(config),
    )
