from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from server import JudgeServer, Script, serving


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VCR1_JUDGE_KEY", "VCR1_JUDGE_URL", "VCR1_JUDGE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve() -> Iterator[Callable[[Script], JudgeServer]]:
    """Starts servers that stop with the test."""
    with ExitStack() as running:
        yield lambda script: running.enter_context(serving(script))
