from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from policy_cases import make_clip, question

from vcr1.policy import VideoPolicy, load_policy
from vcr1.records import Prompt, PromptInputs


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors are so small that a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the clips lie."""
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def policy() -> VideoPolicy:
    """The embedded model, as a training run gets it but in evaluation mode."""
    return load_policy("builtin:tiny", dtype="float32").eval()


@pytest.fixture
def three(policy: VideoPolicy, clips: Path) -> list[PromptInputs]:
    """Three prompts of different lengths about clips of different lengths."""
    cases = [(4.0, "the red square appears"), (8.0, "a blue circle is seen, and then it goes"), (6.0, "?")]
    return [policy.encoder(question(query), make_clip(clips, seconds)) for seconds, query in cases]


@pytest.fixture
def text_only(policy: VideoPolicy) -> PromptInputs:
    """A prompt without a video."""
    return policy.encoder(Prompt("When does the red square appear?"), None)
