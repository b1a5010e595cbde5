"""Several visitors of one page: each waits for its turn, and whoever leaves stops the model."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
import pytest
import torch
from playwright.sync_api import expect

from vcr1.chat import own_folder
from vcr1.inference import Answer, Asker, CluePlan, Question
from vcr1.records import VideoClip
from vcr1.video import write_mp4
from vcr1.webpage import Files, Rules

PATIENCE = 60_000


class Slow:
    """Says its question again and again, until nobody listens any more."""

    decoder = "auto"

    def __init__(self) -> None:
        self.alone = Lock()
        self.running: list[str] = []
        self.ended: list[str] = []
        self.most = 0

    def ask(self, questions: list[Question], watch: Callable[[str], None]) -> list[Answer]:
        query, text = questions[0].query, ""
        self.running.append(query)
        self.most = max(self.most, len(self.running))
        try:
            for _ in range(1000):
                text += f"{query} "
                watch(text)
                time.sleep(0.05)
        finally:
            self.running.remove(query)
            self.ended.append(query)
        return [Answer(questions[0], text, text, VideoClip(torch.empty(0), (0,), (0.0,), 1.0, 1), 1, False)]


@pytest.fixture
def page_of(tmp_path: Path, free_port: int) -> Iterator[Callable[[Any], str]]:
    """Serves the page of an asker, and gives its address."""
    write_mp4(tmp_path / "a.mp4", np.zeros((8, 64, 64, 3), np.uint8), fps=4)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
            patch.setenv(name, "x")  # so that they are as before in the end
        uploads = stack.enter_context(own_folder())
        from vcr1.webpage.page import Place, build_page, open_page

        opened = []

        def serve(asker: Any) -> str:
            rules = Rules(Files(uploads, tmp_path), {}, 100)
            page = build_page(cast(Asker, asker), CluePlan(), rules, "slow")
            open_page(page, Place("127.0.0.1", free_port, upload_mb=1, waiting=4))
            opened.append(page)
            return f"http://127.0.0.1:{free_port}"

        yield serve
        for page in opened:
            page.close(verbose=False)


def repeated(word: str) -> re.Pattern[str]:
    return re.compile(f"^({word} )+$")


def test_visitors_take_turns(page_of: Callable[[Any], str], look: Callable[..., Any]) -> None:
    slow = Slow()
    address = page_of(slow)
    visitors = {name: look(address).page for name in ("first", "second", "third")}
    for name, page in visitors.items():
        page.set_default_timeout(PATIENCE)
        page.fill("#path textarea, #path input", "a.mp4")
        page.fill("#query textarea", name)
    first, second, third = visitors.values()
    first.click("#ask")
    expect(first.locator("#answer textarea")).to_have_value(repeated("first"), timeout=PATIENCE)
    second.click("#ask")
    second.wait_for_timeout(500)
    assert slow.running == ["first"]  # the second waits
    first.click("#stop")
    expect(second.locator("#answer textarea")).to_have_value(repeated("second"), timeout=PATIENCE)
    assert slow.ended == ["first"]
    second.close()  # the window
    third.click("#ask")
    expect(third.locator("#answer textarea")).to_have_value(repeated("third"), timeout=PATIENCE)
    assert slow.ended == ["first", "second"]
    third.click("#stop")
    assert slow.most == 1
