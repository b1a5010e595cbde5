"""What the tests of lmms-eval know of one another."""

from pathlib import Path
from types import ModuleType

from vcr1.data import VideoDataset
from vcr1.policy import VideoPolicy
from vcr1.records import PromptInputs
from vcr1.video import FrameBudget

TASKS = Path(__file__).resolve().parents[2] / "docs" / "lmms_eval"
"""What `--include_path` names."""

SIDE, FPS = 28, 2
"""Pixels on a side and frames a second of the clips. As many are shown: nothing is resized or left out."""


def vcr1_inputs(policy: VideoPolicy, questions: ModuleType) -> list[PromptInputs]:
    """The questions as vcr1 itself puts them to a model."""
    samples, grid = list(questions.samples().values()), policy.encoder.grid
    budget = FrameBudget(fps=FPS, min_pixels=SIDE**2, total_pixels=SIDE**2)
    data = VideoDataset(samples, questions.TASK, policy.encoder, budget, grid)
    return [data[place][2] for place in range(len(samples))]  # type: ignore[index]
