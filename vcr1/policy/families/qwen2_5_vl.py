"""Qwen2.5-VL: a video is one run of tokens, and its positions count half seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vcr1.policy.families.base import Family, VideoClock
from vcr1.records import PromptInputs, VideoClip


@dataclass(frozen=True)
class Qwen25VL(Family):
    """Real seconds reach the model as ``second_per_grid_ts``: where it is missing, they are lost silently."""

    name: str = "qwen2_5_vl"
    inputs: tuple[str, ...] = (*Family.inputs, "second_per_grid_ts")
    gated_vision: bool = True

    def metadata(self, clip: VideoClip) -> dict[str, Any]:
        """Return the source's own frames and rate."""
        return {
            "total_num_frames": clip.total_frames,
            "fps": clip.source_fps,
            "frames_indices": list(clip.indices),
        }

    def clock(self, config: Any, inputs: PromptInputs) -> VideoClock:
        """Return seconds of a step times ``tokens_per_second`` (arXiv 2502.13923, section 2.1.2)."""
        return VideoClock(
            inputs["video_grid_thw"],
            inputs["second_per_grid_ts"],
            config.vision_config.tokens_per_second,
            self.text_after_video(config),
        )


FAMILY = Qwen25VL()
