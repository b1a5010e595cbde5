"""Small real clips and prompts, and Hugging Face's own answers to compare with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from published import placed
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from vcr1.policy import PromptEncoder, Sampling, VideoPolicy
from vcr1.records import Interval, Prompt, PromptInputs, RolloutGroups, Sample, VideoClip
from vcr1.tasks.grounding import GroundingTask
from vcr1.video import ClipSpec, FrameBudget, PatchGrid, ShapeEvent, read_clip, write_clip

TASK = GroundingTask()
SHORT = Prompt("When does the red square appear?")


def make_clip(folder: Path, seconds: float, fps: float = 2.0) -> VideoClip:
    """A red square on grey, at one vision token per two frames."""
    path = folder / f"{seconds}.mp4"
    if not path.exists():
        square = ShapeEvent("red", "square", 1.0, 2.5, x=40, y=60, vx=9, vy=5, radius=20)
        write_clip(ClipSpec(seconds, (30, 30, 30), 0, (square,)), path)
    return read_clip(path, FrameBudget(fps=fps, min_pixels=784, total_pixels=784), PatchGrid())


def question(query: str = "the red square appears") -> Prompt:
    """What the embedded model was trained to answer."""
    return TASK.prompt(Sample("s", "v.mp4", query, Interval(1.0, 2.5)))


def roll(policy: VideoPolicy, inputs: list[PromptInputs], count: int, **sampling: Any) -> RolloutGroups:
    with torch.no_grad():
        features = policy.vision(inputs)
    return policy.rollout(inputs, features, count, Sampling(**sampling))


# ---------------------------------------------------------------------------- Hugging Face, left to itself


def left_padded(encoder: PromptEncoder, inputs: list[PromptInputs]) -> PromptInputs:
    """Several prompts as the batch that a processor with ``padding_side="left"`` makes of them."""
    longest = max(item["input_ids"].shape[1] for item in inputs)
    padding = {"input_ids": encoder.padding, "attention_mask": 0, "mm_token_type_ids": 0}
    batch = {}
    for name in inputs[0]:
        parts = [item[name] for item in inputs]
        if name in padding:
            pads = [longest - part.shape[1] for part in parts]
            parts = [
                torch.nn.functional.pad(part, (pad, 0), value=padding[name])
                for part, pad in zip(parts, pads, strict=True)
            ]
        batch[name] = torch.cat(parts)
    return batch


class RunningSums(LogitsProcessor):
    """Leaves ``generate`` one token to draw: the first whose running sum exceeds a random number.

    The random numbers are those of a rollout whose seeds come from the global randomness.
    """

    def __init__(self, sampling: Sampling, prompts: int, count: int) -> None:
        self.sampling = sampling
        seeds = torch.randint(2**62, (prompts,)).tolist()
        shape = (count, sampling.max_new_tokens)
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.chance = torch.cat([torch.rand(shape, dtype=torch.float64, generator=one) for one in sources])
        self.column = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        column = min(self.column, self.chance.shape[1] - 1)
        processed = self.sampling.processors([], scores.device)(input_ids, scores.float())  # type: ignore[arg-type]
        upto = processed.double().softmax(-1).cumsum(-1)
        drawn = (upto <= self.chance[:, column, None]).sum(-1)
        self.column += 1
        return torch.full_like(scores, -torch.inf).scatter(1, drawn[:, None], 0.0)  # type: ignore[return-value]


def generate(policy: VideoPolicy, inputs: PromptInputs, count: int, **sampling: Any) -> Tensor:
    """Completions ``[P·G, C]`` of ``generate`` on the processor's whole dict, at the published positions."""
    settings = Sampling(**sampling)
    drawn: dict[str, Any] = {"do_sample": False}
    if settings.temperature > 0:
        own = RunningSums(settings, len(inputs["input_ids"]), count)
        drawn = {
            "do_sample": True,
            "num_return_sequences": count,
            "logits_processor": LogitsProcessorList([own]),
            **{"temperature": 1.0, "top_k": 0, "top_p": 1.0},
        }
    config = policy.model.config
    if config.model_type == "glm4v":  # transformers 5.23 looks for tokens that no prompt has, and fails
        config.video_token_id = config.image_token_id
    ids = policy.model.generate(
        **placed(policy.model, inputs),
        max_new_tokens=settings.max_new_tokens,
        suppress_tokens=policy.never_sampled,
        eos_token_id=list(policy.encoder.stops),
        pad_token_id=policy.encoder.padding,
        **drawn,
    )
    ids = ids[:, inputs["input_ids"].shape[1] :]
    # generate() refuses several greedy completions of one prompt, since they are all the same.
    return ids if settings.temperature > 0 else ids.repeat_interleave(count, 0)


def followed_by(inputs: PromptInputs, completion: Tensor) -> PromptInputs:
    """The processor's dict of one prompt, with a completion ``[C]`` after it."""
    longer = dict(inputs)
    for name, tail in (
        ("input_ids", completion),
        ("attention_mask", torch.ones_like(completion)),
        ("mm_token_type_ids", torch.zeros_like(completion)),
    ):
        if name in inputs:
            longer[name] = torch.cat([inputs[name], tail[None].to(inputs[name])], 1)
    return longer


def plain_logits(model: Any, inputs: PromptInputs, completion: Tensor) -> Tensor:
    """Logits ``[C, V]`` of a completion's tokens by one plain forward at the published positions."""
    logits: Tensor = model(**placed(model, followed_by(inputs, completion))).logits
    return logits[0, -len(completion) - 1 : -1]


def plain_scores(
    model: Any, inputs: PromptInputs, completion: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies ``[C]`` by one plain forward of prompt and completion, nothing padded."""
    logits = plain_logits(model, inputs, completion)
    logs = (logits / temperature).log_softmax(-1)
    return logs.gather(-1, completion[:, None])[:, 0], -(logs.exp() * logs).sum(-1)


def plain_groups(
    model: Any, groups: RolloutGroups, temperature: float = 1.0
) -> Iterator[tuple[tuple[int, int], Tensor, Tensor]]:
    """Place, log-probs and entropies of every completion, one plain forward each."""
    for row, inputs in enumerate(groups.inputs):
        for column in range(groups.completion_ids.shape[1]):
            kept = groups.completion_ids[row, column][groups.completion_mask[row, column]]
            yield (row, column), *plain_scores(model, inputs, kept, temperature)


# ----------------------------------------------------------------------------------------------- watching


@contextmanager
def watched(model: Any) -> Iterator[list[Tensor]]:
    """Collects the ``[3, B, L]`` positions that the language model computes with, forward by forward."""
    seen: list[Tensor] = []
    rotary = model.model.language_model.rotary_emb  # where positions become angles
    handle = rotary.register_forward_pre_hook(lambda _module, args: seen.append(args[1].clone()))
    try:
        yield seen
    finally:
        handle.remove()


def unpacked(positions: Tensor, prompt: int, completions: int) -> Tensor:
    """``[3, P, L + G·C]`` positions of packed groups as ``[3, P, G, L + C]``: each completion's own row."""
    heads = positions[..., :prompt].unsqueeze(2).expand(-1, -1, completions, -1)
    return torch.cat([heads, positions[..., prompt:].unflatten(-1, (completions, -1))], -1)


@contextmanager
def calls_of(module: torch.nn.Module) -> Iterator[list[torch.Size]]:
    """Collects the shape of every first argument that a module is called with."""
    seen: list[torch.Size] = []
    handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0].shape))
    try:
        yield seen
    finally:
        handle.remove()


def gradients(model: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The loss's gradients by parameter; the model is left without."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def largest_relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Over all parameters, ``|found - expected| / |expected|`` in the Euclidean norm."""
    assert found.keys() == expected.keys()
    return max(float((found[n] - expected[n]).norm() / expected[n].norm()) for n in expected)
