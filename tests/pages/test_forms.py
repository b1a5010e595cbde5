"""What the page takes from its form and from files; no browser, no model."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vcr1.errors import UserError
from vcr1.records import Box
from vcr1.tasks import CaptioningTask, QATask, Task, TrackingTask
from vcr1.video import write_mp4
from vcr1.webpage import Files, Form, Guard, Rules, is_loopback, question_of
from vcr1.webpage.files import is_video
from vcr1.webpage.form import box_text, source_of

TASKS: dict[str, Task] = {"tracking": TrackingTask(), "qa": QATask(), "captioning": CaptioningTask()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with uploads, with videos, and with what is not to be read."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("uploads/1/a.mp4", "videos/b.mp4", "secret.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_mp4(folder / name, np.zeros((4, 64, 64, 3), np.uint8), fps=4)
    (folder / "videos" / "link.mp4").symlink_to(folder / "secret.mp4")
    (folder / "videos" / "notes.txt").write_text("none of yours")
    (folder / "uploads" / "list.mp4").write_text("#EXTM3U\n#EXTINF:4,\n../secret.mp4\n")
    (folder / "uploads" / "ask.jsonl").write_text('{"video": "../secret.mp4", "query": "What?"}\n')
    return folder


@pytest.fixture(scope="module")
def rules(place: Path) -> Rules:
    return Rules(Files(place / "uploads", place / "videos"), TASKS, 100)


def test_a_form_is_a_question(place: Path, rules: Rules) -> None:
    form = Form(
        str(place / "uploads/1/a.mp4"), task="tracking", query="it", box=" [0.1,0.2, 0.4,0.6] ", end=1
    )
    question = question_of(form, rules)
    assert question.source.path == str(place / "uploads/1/a.mp4")
    assert (question.source.start, question.source.end) == (0, 1)
    assert question.box == Box(0.1, 0.2, 0.4, 0.6)
    chosen = question_of(Form(path="b.mp4", task="qa", query="which?", options="red\n\n blue \n"), rules)
    assert chosen.options == ("red", "blue")
    assert chosen.source.path == str(place / "videos/b.mp4")
    assert question_of(Form(path="b.mp4", task="captioning"), rules).query  # asks by itself
    # What a task does not want is left in the form, and passed over.
    assert question_of(Form(path="b.mp4", query="What?", options="x", box="y"), rules).options == ()


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (Form(query="x"), "there is no such video"),
        (Form(path="b.mp4", query=" "), "nothing is asked: type a question"),
        (Form(path="b.mp4", query="x" * 101), "query has 101 characters, more than limits.query=100"),
        (Form(path="b.mp4", task="tracking", query="x"), "tracking needs the object's first box"),
        (Form(path="b.mp4", task="tracking", query="x", box="a, b"), "box=a, b must be"),
        (Form(path="b.mp4", task="tracking", query="x", box="nan, 0, 1, 1"), "must be"),
        (Form(path="b.mp4", task="qa", query="x", options="one"), "qa takes 2 to 26 options, found 1"),
        (Form(path="b.mp4", task="sorting", query="x"), "task sorting is not among those of this run"),
        (Form(path="b.mp4", query="x", start=3, end=1), "ends at 1"),
        (Form(path="b.mp4", query="x", start=-1), "the form: "),
    ],
)
def test_what_does_not_fit_is_one_sentence(form: Form, reason: str, rules: Rules) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*$") as error:
        question_of(form, rules)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.mp4",
        "link.mp4",
        "notes.txt",
        "gone.mp4",
        "",
        "/etc/passwd",
        "a\0b.mp4",
        "x" * 5000 + ".mp4",
    ],
)
def test_only_videos_below_the_folder_can_be_named(path: str, rules: Rules) -> None:
    with pytest.raises(UserError, match="there is no such video below"):
        source_of(Form(path=path), rules.files)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("videos/b.mp4", "was not uploaded"),
        ("secret.mp4", "was not uploaded"),
        ("uploads/list.mp4", "list.mp4: not a readable video"),  # a playlist, which names other files
        ("uploads/ask.jsonl", "ask.jsonl: its name must end in one of"),
        ("uploads/gone.mp4", "gone.mp4: is no longer there"),
    ],
)
def test_an_upload_is_a_video_that_was_uploaded(name: str, reason: str, place: Path, rules: Rules) -> None:
    with pytest.raises(UserError, match=reason):
        source_of(Form(upload=str(place / name)), rules.files)


def test_paths_are_refused_without_a_folder(place: Path) -> None:
    with pytest.raises(UserError, match="needs the server's videos=FOLDER"):
        source_of(Form(path="b.mp4"), Files(place / "uploads"))


@pytest.mark.parametrize(
    ("head", "is_one"),
    [
        (b"\0\0\0\x20ftypisom", True),
        (b"\x1aE\xdf\xa3\x01", True),
        (b"RIFF\0\0\0\0AVI ", True),
        ((b"G" + b"\0" * 187) * 3, True),  # packets of an MPEG transport stream
        (b"#EXTM3U\n" + b"\0" * 500, False),
        (b"ffconcat version 1.0\n", False),
        (b"GGGG is how this text begins", False),
    ],
)
def test_playlists_are_no_videos(head: bytes, is_one: bool) -> None:
    assert is_video(head) == is_one


def test_two_corners_are_a_box() -> None:
    assert box_text([(30, 80), (10, 20)], 100, 200) == "0.100, 0.100, 0.300, 0.400"


def asked(hosts: tuple[str, ...] | None, path: str = "/", **headers: str) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of the guard's answer."""
    sent: list[Any] = []

    async def page(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]}
        )

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(Guard(page, hosts)({"type": "http", "path": path, "headers": given}, send, send))  # type: ignore[arg-type]
    return sent[0]["status"], dict(sent[0]["headers"])


def test_the_guard_answers_to_its_own_names_only() -> None:
    ours = ("localhost", "127.0.0.1", "[::1]")
    for host in ("localhost:7860", "127.0.0.1", "[::1]:7860", "LOCALHOST:1"):
        assert asked(ours, host=host)[0] == 200
    for host in ("evil.example:7860", "", "127.0.0.1.evil.example", "[::1].evil.example:80"):
        assert asked(ours, host=host)[0] == 421
    assert asked(None, host="gpu-box:7860")[0] == 200  # whoever binds elsewhere says so
    for hosts in (ours, None):
        assert asked(hosts, host="localhost:7860", origin="http://localhost:7860")[0] == 200
        assert asked(hosts, host="localhost:7860", origin="http://evil.example")[0] == 421
        assert asked(hosts, host="localhost:7860", origin="null")[0] == 421
    for path in (
        "/process_recording",
        "/gradio_api/process_recording",
        "/gradio_api/proxy=http://x",
        "/docs",
    ):
        assert asked(ours, path, host="localhost")[0] == 404
    assert asked(ours, "/gradio_api/file=a.png", host="localhost")[0] == 200
    policy = asked(ours, host="localhost")[1][b"content-security-policy"]
    assert policy.startswith(b"default-src 'self';")


def test_what_is_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org")] == [False] * 4
