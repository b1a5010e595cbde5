"""How the tiny model gets its eyes: dense labels at the video tokens.

Answers alone taught the tiny model only how long events usually are. With labels at every video token
(what is visible there, which second it is) it learns to see. The stage stands in for pretraining;
a real model brings its perception along.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vcr1.policy import VideoPolicy
from vcr1.policy.prompts import lay_out
from vcr1.records import Batch, VideoClip
from vcr1.video.synthetic import ClipSpec


class DenseVideoLabels:
    """Auxiliary loss of ``SFTModule``: cross-entropy at the video tokens of synthetic clips.

    Half of it asks for the colours visible during the token's span of time (a word for each, equally
    likely; a full stop for none), half for the digit of the second at which the span begins.
    """

    def __call__(self, policy: VideoPolicy, batch: Batch, features: list[Tensor | None]) -> Tensor:
        """Mean loss over the video tokens of the batch, a scalar."""
        layout = lay_out(policy.model, batch.inputs, features)
        hidden = policy.model.model(
            inputs_embeds=layout.embeds,
            attention_mask=layout.attention_mask,
            position_ids=layout.position_ids,
            use_cache=False,
        ).last_hidden_state
        rows, colors, seconds = [], [], []
        for row, inputs, sample, clip in zip(hidden, batch.inputs, batch.samples, batch.clips, strict=True):
            is_video = inputs["input_ids"][0] == policy.model.config.video_token_id
            rows.append(row[-len(is_video) :][is_video])
            tokens = int(is_video.sum())
            if clip.duration > 10:
                raise ValueError(
                    f"{sample.id}: seconds are labelled with one digit, but it lasts {clip.duration} s"
                )
            spans = token_spans(clip, policy.encoder.grid.temporal, tokens)
            colors += [self._colors(policy, sample.extra["spec"], *span) for span in spans]
            seconds += [policy.encoder.tokenizer.convert_tokens_to_ids(str(int(start))) for start, _ in spans]
        logs = policy.model.lm_head(torch.cat(rows)).float().log_softmax(-1)
        color_loss = -torch.stack(
            [
                log[torch.tensor(visible, device=log.device)].mean()
                for log, visible in zip(logs, colors, strict=True)
            ]
        ).mean()
        second_loss = -logs.gather(-1, torch.tensor(seconds, device=logs.device)[:, None]).mean()
        return (color_loss + second_loss) / 2

    @staticmethod
    def _colors(policy: VideoPolicy, spec: ClipSpec, start: float, end: float) -> list[int]:
        """Ids of the words for the colours that are visible between two times."""
        tokenizer = policy.encoder.tokenizer
        visible = [event.color for event in spec.events if event.start < end and event.end > start]
        words = [tokenizer(f" {color}", add_special_tokens=False)["input_ids"][0] for color in visible]
        return words or [tokenizer.convert_tokens_to_ids(".")]


def token_spans(clip: VideoClip, temporal_patch: int, tokens: int) -> list[tuple[float, float]]:
    """(start, end) in seconds of the time that each of a clip's video tokens stands for."""
    steps = len(clip.indices) // temporal_patch
    length = clip.duration / steps
    return [(step * length, (step + 1) * length) for step in range(steps) for _ in range(tokens // steps)]
