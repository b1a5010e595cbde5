"""The page, with Gradio: a form on top, the answer below it. The only module that knows Gradio."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import gradio as gr
from PIL import Image, ImageDraw

from vcr1.errors import UserError
from vcr1.inference import (
    Answer,
    Asker,
    CluePlan,
    draw_answer,
    first_frame,
    remarks,
    stream_answer,
)
from vcr1.readers.videos import ENDINGS
from vcr1.tasks import FREE
from vcr1.webpage.form import Form, Rules, box_text, question_of, source_of
from vcr1.webpage.guard import LOOPBACK, Guard, is_loopback

log = logging.getLogger(__name__)

STYLE = """
.gradio-container{max-width:60rem!important;margin:0 auto!important}
#trouble textarea{color:#b3261e}
#video video{width:100%;max-height:16rem;background:#000}
"""
COLOR = "#2667c9"
KEPT = 3600
"""Seconds that uploads and pictures are kept; Gradio looks for older ones every minute."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the page is served, and how much it takes in.

    Attributes:
        host: address to listen on.
        port: to listen on.
        upload_mb: largest upload, in MiB.
        waiting: most questions that wait.
    """

    host: str
    port: int
    upload_mb: int
    waiting: int


def open_page(page: gr.Blocks, place: Place) -> None:
    """Serve a page, from threads of its own, until it is closed. Nothing but the config decides how."""
    names = {*LOOPBACK, place.host} if is_loopback(place.host) else None
    page.queue(max_size=place.waiting, default_concurrency_limit=1)
    page.launch(
        server_name=place.host,
        server_port=place.port,
        max_file_size=place.upload_mb * 2**20,
        theme=gr.themes.Default(font=["sans-serif"], font_mono=["monospace"]),
        css=STYLE,
        app_kwargs={"middleware": [(Guard, (), {"hosts": names})]},
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        run_history=False,
        footer_links=[],
    )


def _components(rules: Rules, model: str) -> SimpleNamespace:
    """Lay out the page inside of its blocks; return its components by name."""
    parts = SimpleNamespace()
    gr.HTML(f"<h1>Ask about a video</h1><p>{escape(model)}</p>")
    with gr.Row():
        with gr.Column():
            # Not the video component: it would fetch an editor from elsewhere, and convert with FFmpeg.
            parts.upload = gr.File(label="Video", file_types=list(ENDINGS), height=120, elem_id="upload")
            parts.player = gr.HTML(visible=False, elem_id="video")
            parts.path = gr.Textbox(
                label="Or its path in the server's folder",
                visible=rules.files.videos is not None,
                elem_id="path",
            )
        with gr.Column():
            parts.task = gr.Dropdown([FREE.name, *rules.tasks], value=FREE.name, label="Task", elem_id="task")
            parts.query = gr.Textbox(label="Question", lines=2, elem_id="query")
            parts.options = gr.Textbox(
                label="Options, one in each line", lines=4, visible=False, elem_id="options"
            )
            parts.box = gr.Textbox(
                label="Box of the object in the first frame: left, top, right, bottom as fractions",
                placeholder="0.1, 0.2, 0.4, 0.6",
                visible=False,
                elem_id="box",
            )
            with gr.Accordion("Only a part of the video", open=False), gr.Row():
                parts.start = gr.Number(label="From second", value=None, minimum=0, elem_id="start")
                parts.end = gr.Number(label="To second", value=None, minimum=0, elem_id="end")
            with gr.Row():
                parts.ask = gr.Button("Ask", variant="primary", elem_id="ask")
                parts.stop = gr.Button("Stop", elem_id="stop")
    parts.frame = gr.Image(
        label="First frame: click two opposite corners of the object",
        visible=False,
        interactive=False,
        type="pil",
        format="png",
        height=400,
        buttons=[],
        elem_id="frame",
    )
    parts.trouble = gr.Textbox(label="This cannot be answered", visible=False, elem_id="trouble")
    parts.answer = gr.Textbox(label="Answer", lines=2, interactive=False, elem_id="answer")
    parts.read = gr.Textbox(label="What is read in it", interactive=False, visible=False, elem_id="read")
    parts.picture = gr.Image(
        show_label=False,
        visible=False,
        interactive=False,
        type="pil",
        format="png",
        buttons=["fullscreen", "download"],
        alt_text="The answer in the video",
        elem_id="picture",
    )
    return parts


def build_page(asker: Asker, plan: CluePlan, rules: Rules, model: str) -> gr.Blocks:
    """Return the page.

    Args:
        asker: the model.
        plan: of further looks, for the tasks that name times.
        rules: what may be asked.
        model: its name, as the page shows it.
    """
    with gr.Blocks(title="vcr1", analytics_enabled=False, delete_cache=(60, KEPT)) as page:
        parts = _components(rules, model)
        first, corners = gr.State(None), gr.State([])
        fields = [parts.upload, parts.path, parts.task, parts.query]
        fields += [parts.options, parts.box, parts.start, parts.end]
        shown = [parts.trouble, parts.answer, parts.read, parts.picture]
        hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        asking = gr.on(
            [parts.ask.click, parts.query.submit],
            _answering(asker, plan, rules),
            fields,
            shown,
            api_visibility="private",
            show_progress="minimal",
            show_progress_on=parts.answer,
            trigger_mode="once",
            concurrency_limit=1,
            concurrency_id="model",
        )
        parts.stop.click(None, cancels=[asking], api_visibility="private")
        parts.upload.change(_player_of(rules), parts.upload, parts.player, **hidden)
        parts.task.change(_wanted(rules), parts.task, [parts.options, parts.box], **hidden)
        picking = [parts.frame, first, corners]
        for event in (parts.task.change, parts.upload.change, parts.path.submit, parts.start.change):
            event(_frame_of(asker, rules), fields, picking, **hidden)
        parts.frame.select(_picked, [first, corners], [parts.frame, corners, parts.box], **hidden)
    return page


def _answering(asker: Asker, plan: CluePlan, rules: Rules) -> Callable[..., Iterator[Any]]:
    """Yield what the button does: the answer's text as it grows, then what is read in it and a picture."""

    def answer(*fields: Any) -> Iterator[Any]:
        silent, nothing = gr.update(visible=False), gr.update(value=None, visible=False)
        yield silent, "", nothing, nothing
        try:
            question = question_of(_form(fields), rules)
            for news in stream_answer(asker, question, plan if question.task.names_times else CluePlan()):
                if isinstance(news, Answer):
                    yield silent, news.text, _shown("\n".join(remarks(news))), _shown(_drawn(news, asker))
                else:
                    yield silent, news, nothing, nothing
        except UserError as error:
            yield _shown(_sentence(error, rules)), "", nothing, nothing
        except Exception:
            log.exception("a question of the page was not answered")
            said = "something went wrong in the server; its terminal says more"
            yield _shown(said), "", nothing, nothing

    return answer


def _form(fields: Sequence[Any]) -> Form:
    """Return the form; a field that was never on the screen has no value."""
    upload, path, task, query, options, box, start, end = fields
    return Form(upload, path or "", task, query or "", options or "", box or "", start, end)


def _player_of(rules: Rules) -> Callable[[str | None], Any]:
    """Plays an uploaded video; what is wrong with it is said when it is asked about."""

    def play(upload: str | None) -> Any:
        try:
            path = rules.files.uploaded(upload) if upload else None
        except UserError:
            path = None
        return _shown(path and f'<video controls muted src="gradio_api/file={quote(path)}"></video>')

    return play


def _frame_of(asker: Asker, rules: Rules) -> Callable[..., Any]:
    """Shows the first frame where a box is wanted; what is wrong with the video is said when it is asked."""

    def show(*fields: Any) -> Any:
        form = _form(fields)
        if rules.task(form.task).needs.box and (form.upload or form.path.strip()):
            try:
                first = Image.fromarray(first_frame(source_of(form, rules.files), asker.reader))
            except UserError:
                pass
            else:
                return _shown(first), first, []
        return _shown(None), None, []

    return show


def _picked(first: Image.Image | None, corners: list[tuple[int, int]], event: gr.SelectData) -> Any:
    """Return a click into the first frame: every second one ends a box that the one before began."""
    if first is None:
        return None, [], ""
    picture = first.copy()
    corners = [*corners, (int(event.index[0]), int(event.index[1]))]
    pen = ImageDraw.Draw(picture)
    if len(corners) < 2:
        (x, y), arm = corners[0], max(picture.width // 60, 3)
        pen.line((x - arm, y, x + arm, y), fill=COLOR, width=2)
        pen.line((x, y - arm, x, y + arm), fill=COLOR, width=2)
        return picture, corners, ""
    across, down = (sorted(values) for values in zip(*corners, strict=True))
    pen.rectangle((across[0], down[0], across[1], down[1]), outline=COLOR, width=2)
    return picture, [], box_text(corners, *picture.size)


def _wanted(rules: Rules) -> Callable[[str], Any]:
    """Return what shows the fields that a task needs."""

    def show(task: str) -> Any:
        needs = rules.task(task).needs
        return gr.update(visible=needs.options > 0), gr.update(visible=needs.box)

    return show


def _drawn(answer: Answer, asker: Asker) -> Image.Image:
    with TemporaryDirectory(prefix="vcr1-") as folder:
        draw_answer(answer, Path(folder) / "answer.png", asker.reader)
        with Image.open(Path(folder) / "answer.png") as picture:
            return picture.convert("RGB")


def _shown(value: Any) -> Any:
    return gr.update(value=value, visible=value is not None and value != "")


def _sentence(error: UserError, rules: Rules) -> str:
    """Return what is wrong, with the names of videos but not of the server's folders."""
    text = re.sub(re.escape(f"{rules.files.uploads.resolve()}/") + r"[^/\s]+/", "", str(error))
    return text if rules.files.videos is None else text.replace(f"{rules.files.videos.resolve()}/", "")
