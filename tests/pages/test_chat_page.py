"""The page to ask a model about a video, used in Chromium as people do; and the server from outside."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from vcr1.video import ClipSpec, ShapeEvent, write_clip, write_mp4

PATIENCE = 120_000
"""Milliseconds; an answer of the tiny model takes a few hundred on a machine that has nothing else to do."""
HOSTILE = "<img src=x onerror='window.hacked=1'>"


@dataclass
class Server:
    """A running page, its videos, and the folder where it keeps uploads."""

    process: subprocess.Popen[str]
    port: int
    videos: Path
    scratch: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def started(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": "", "GRADIO_SHARE": "True"}
    command = [sys.executable, "-m", "vcr1.chat", "model=tiny", "loader=tiny", "threads=1", *overrides]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_port: int) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("chat")
    videos = tmp_path_factory.mktemp("videos")
    square = ShapeEvent("red", "square", 2.0, 5.0, x=40, y=60, vx=9, vy=5, radius=20)
    write_clip(ClipSpec(8.0, (30, 30, 30), 0, (square,)), videos / "good.mp4")
    whole = (videos / "good.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / "text.mp4").write_text("the download failed\n" * 40)
    noise = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8)
    write_mp4(videos / "single.mp4", noise[:1], fps=4)
    write_mp4(videos / "ten_hours.mp4", noise, fps=4, times=[0, 12000, 24000, 36000])
    (videos / "large.mp4").write_bytes(whole[:4096] + bytes(2 * 2**20))
    settings = [f"port={free_port}", f"videos={videos}", "upload_mb=1", "rollout.max_new_tokens=96"]
    process = started(folder, *settings)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:  # ends where the process does
        said += line
        if line.startswith("Open http"):
            break
    assert f"Open http://127.0.0.1:{free_port} (Ctrl-C ends it)" in said, said[-2000:]
    (scratch,) = folder.glob("vcr1-chat-*")
    yield Server(process, free_port, videos, scratch)
    process.send_signal(signal.SIGINT)  # Ctrl-C
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0, rest[-2000:]
    assert rest.count("Traceback") == rest.count("InvalidPathError: ")  # Gradio's word for a forged path
    assert list(folder.glob("vcr1-*")) == []  # uploads and pictures are gone


@pytest.fixture
def visit(server: Server, look: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Opens the page; in the end it has asked nobody else, and no script has failed."""
    seen = []

    def visit_it(width: int = 1000) -> Any:
        watched = look(server.address, width=width)
        watched.page.set_default_timeout(PATIENCE)
        seen.append(watched)
        watched.page.wait_for_selector("#ask")
        return watched

    yield visit_it
    for watched in seen:
        hosts = {re.sub(r"^\w+:(//[^/]*)?.*", r"\1", url) for url in watched.requests}
        assert hosts - {""} == {f"//127.0.0.1:{server.port}"}
        assert watched.errors == []


def load(page: Page, video: Path) -> None:
    """Upload a video; again where the page has missed it, which it has done once in about fifteen runs."""
    for patience in (PATIENCE / 8, PATIENCE / 4, PATIENCE):
        page.set_input_files("#upload input[type=file]", str(video))
        try:
            # The link comes with the end of the upload, the name before.
            expect(page.locator("#upload a")).to_have_count(1, timeout=patience)
        except AssertionError:
            if patience == PATIENCE:
                raise
        else:
            return


def choose(page: Page, task: str) -> None:
    page.click("#task input")
    page.get_by_role("option", name=task, exact=True).click()


def ask(page: Page, query: str) -> None:
    page.fill("#query textarea", query)
    page.click("#ask")


def value(page: Page, field: str) -> str:
    return page.input_value(f"#{field} textarea, #{field} input")


def picture_of(page: Page) -> Sequence[int]:
    """Width and height of the answer's picture, once it has loaded."""
    image = page.locator("#picture img")
    image.wait_for(timeout=PATIENCE)
    page.wait_for_function("document.querySelector('#picture img').naturalWidth > 0")
    size: list[int] = image.evaluate("one => [one.naturalWidth, one.naturalHeight]")
    return size


def trouble(page: Page) -> str:
    page.wait_for_selector("#trouble textarea", timeout=PATIENCE)
    assert page.locator("#picture img").count() == 0
    return value(page, "trouble")


# --------------------------------------------------------------------------------------------- answers


def test_a_question_about_a_video(visit: Callable[..., Any], server: Server) -> None:
    watched = visit()
    page = watched.page
    load(page, server.videos / "good.mp4")
    page.wait_for_selector("#video video")
    choose(page, "grounding")
    page.evaluate(
        """() => {
            window.grown = [];
            const field = document.querySelector("#answer textarea");
            setInterval(() => field.value && window.grown.push(field.value), 2);
        }"""
    )
    ask(page, "the red square appears")
    assert picture_of(page)[0] == 990  # the timeline
    text = value(page, "answer")
    assert text.startswith("<think>red")
    assert value(page, "read").startswith(("[", "cannot be read"))
    grown = page.evaluate("[...new Set(window.grown)]")
    assert len(grown) > 1  # streamed
    assert all(text.startswith(part) for part in grown)
    assert page.locator("#trouble textarea").count() == 0
    page.evaluate(
        """new Promise(done => {
            const video = document.querySelector("#video video");
            video.onseeked = () => setTimeout(done, 500);
            video.currentTime = 3;
        })"""
    )
    watched.show("chat", height=960)


def test_tracking_from_a_box_that_is_clicked(visit: Callable[..., Any], server: Server) -> None:
    page = visit().page
    load(page, server.videos / "good.mp4")
    choose(page, "tracking")
    ask(page, "the red square")
    assert "tracking needs the object's first box" in trouble(page)
    frame = page.locator("#frame img")
    frame.wait_for()
    size = frame.bounding_box()
    corners = [{"x": size["width"] * share, "y": size["height"] * share} for share in (0.25, 0.5)]
    before = frame.get_attribute("src")
    frame.click(position=corners[0])
    expect(frame).not_to_have_attribute("src", before, timeout=PATIENCE)  # a cross is drawn
    written = page.locator("#box textarea, #box input")
    for patience in (PATIENCE / 8, PATIENCE / 8, PATIENCE):  # the picture is replaced: a click may miss it
        frame.click(position=corners[1])
        with suppress(AssertionError):
            expect(written).not_to_have_value("", timeout=patience)
            break
    edges = [float(edge) for edge in value(page, "box").split(",")]
    assert edges == pytest.approx([0.25, 0.25, 0.5, 0.5], abs=0.02)
    page.click("#ask")
    width, height = picture_of(page)
    assert (width, height) == (528, pytest.approx(352, abs=3))  # two rows of four frames
    assert value(page, "read").count("[") == 1 + 8


def test_options_and_a_video_of_the_folder(visit: Callable[..., Any]) -> None:
    watched = visit(width=400)
    page = watched.page
    page.fill("#path textarea, #path input", "good.mp4")
    choose(page, "qa")
    page.fill("#options textarea", f"red\n{HOSTILE}")
    ask(page, HOSTILE)
    assert picture_of(page)[0] == 990  # frames without a timeline
    assert value(page, "answer")
    assert page.evaluate("window.hacked") is None
    assert watched.sideways() <= 0


# ---------------------------------------------------------------------------------------------- trouble


def test_a_bad_video_is_one_sentence_and_the_page_goes_on(visit: Callable[..., Any], server: Server) -> None:
    page = visit().page
    expected = {
        "text.mp4": "text.mp4: not a readable video",
        "cut.mp4": "cut.mp4: cut short, ",
        "single.mp4": "single.mp4: there is one frame to be shown",
        "ten_hours.mp4": "ten_hours.mp4: lasts 36000 s, more than limits.seconds=14400",
    }
    for name, sentence in expected.items():
        load(page, server.videos / name)
        ask(page, f"What is in {name}?")
        expect(page.locator("#trouble textarea")).to_have_value(
            re.compile(re.escape(sentence)), timeout=PATIENCE
        )
        assert "\n" not in value(page, "trouble")
        assert str(server.scratch) not in value(page, "trouble")
        page.locator("#upload button[aria-label=Clear], #upload button[aria-label*=emove]").first.click()
        page.locator("#upload input[type=file]").wait_for(state="attached")
    ask(page, "x" * 100_000)
    sentence = re.compile("no video is loaded|there is no such video")
    expect(page.locator("#trouble textarea")).to_have_value(sentence, timeout=PATIENCE)
    page.fill("#path textarea, #path input", "good.mp4")
    page.click("#ask")
    sentence = re.compile("query has 100000 characters, more than limits.query=8192")
    expect(page.locator("#trouble textarea")).to_have_value(sentence, timeout=PATIENCE)
    page.fill("#path textarea, #path input", "../../etc/passwd.mp4")
    ask(page, "What?")
    sentence = re.compile("there is no such video below the server's folder")
    expect(page.locator("#trouble textarea")).to_have_value(sentence, timeout=PATIENCE)
    page.fill("#path textarea, #path input", "good.mp4")
    page.click("#ask")
    assert picture_of(page)


def test_a_large_upload_is_refused(visit: Callable[..., Any], server: Server) -> None:
    watched = visit()
    watched.page.set_input_files("#upload input[type=file]", str(server.videos / "large.mp4"))
    expect(watched.page.locator("body")).to_contain_text(re.compile("maximum|exceed", re.IGNORECASE))
    assert [
        path for path in server.scratch.rglob("*") if path.is_file() and path.stat().st_size > 2**20
    ] == []
    watched.errors.clear()  # the browser notes the refusal


# --------------------------------------------------------------------------------------- from elsewhere


def listening(port: int) -> set[str]:
    """Local addresses, in hexadecimal as Linux writes them, that listen on a port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows = Path(table).read_text().splitlines()[1:] if Path(table).exists() else []
        for row in rows:
            address, state = row.split()[1], row.split()[3]
            if address.endswith(f":{port:04X}") and state == "0A":
                found.add(address.split(":")[0])
    return found


def test_it_listens_on_loopback_only(server: Server) -> None:
    assert listening(server.port) == {"0100007F"}


def test_no_other_file_and_no_other_site_is_served(server: Server) -> None:
    with httpx.Client(base_url=server.address, trust_env=False) as client:
        page = client.get("/")
        assert page.status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert not re.search(r"<(script|link)[^>]+(src|href)=.https?://", page.text)
        for path in ("/etc/passwd", str(server.videos / "good.mp4"), f"{server.scratch}/../../x"):
            assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
        upload = {"files": ("a.mp4", b"x")}
        evil = {"Origin": "http://evil.example"}
        assert client.post("/gradio_api/upload", files=upload, headers=evil).status_code == 421
        assert client.get("/gradio_api/info").json()["named_endpoints"] == {}
        recording = {"video": ("a.mp4", b"#EXTM3U\n")}
        assert client.post("/gradio_api/process_recording", files=recording).status_code == 404
        config = client.get("/config").json()
        assert config["analytics_enabled"] is False
        forged = {"path": str(server.videos / "good.mp4"), "meta": {"_type": "gradio.FileData"}}
        events = [event for event in config["dependencies"] if len(event["inputs"]) == 8]
        assert len(events) >= 2  # the answer, and the first frame
        for event in events:  # a path that was not uploaded, said to have been
            data = [forged, "", "tracking", "What?", "", "0, 0, 1, 1", None, None]
            name = {"session_hash": f"forged{event['id']}"}
            client.post("/gradio_api/queue/join", json={"data": data, "fn_index": event["id"], **name})
            with client.stream("GET", "/gradio_api/queue/data", params=name) as news:
                said = "".join(news.iter_text())
            assert '"success":false' in said
            assert "image" not in said
