"""Ask about videos in the browser: ``python -m vcr1.chat checkpoint=...``, then open http://127.0.0.1:7860.

Load a video, choose a task, ask, and see the answer as it grows, with its times or boxes in the video. Needs
``pip install 'vcr1[app]'``. Ctrl-C ends it. Exit status: 0 when it is ended, 2 where it cannot start.
"""

from __future__ import annotations

from vcr1.usage import show_usage

if __name__ == "__main__":  # before anything heavy is loaded
    show_usage("chat", __doc__)

import os

# Before torch starts its threads: idle ones sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import importlib.util
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import torch
import transformers
from omegaconf import DictConfig

from vcr1.config.building import build
from vcr1.config.entry import command_line, exit_on_user_error
from vcr1.config.sources import build_task
from vcr1.errors import UserError
from vcr1.inference import CluePlan, Limits, as_text, build_asker, check_model
from vcr1.webpage import Files, Rules, is_loopback


def chat(cfg: DictConfig) -> None:
    """Serve the page until the process is asked to end.

    Raises:
        UserError: a setting that cannot be used, or Gradio is missing.
    """
    limits: Limits = build(cfg.limits)
    plan: CluePlan = build(cfg.clues)
    check_page(cfg)
    device = check_model(cfg)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    asker = build_asker(cfg, device, limits)
    with own_folder() as uploads:
        # Gradio reads its surroundings when it is imported.
        from vcr1.webpage.page import Place, build_page, open_page

        files = Files(uploads, None if cfg.videos is None else Path(cfg.videos))
        tasks = {str(name): build_task(cfg, str(name)) for name in cfg.get("tasks") or {}}
        rules = Rules(files, tasks, limits.query)
        page = build_page(asker, plan, rules, "/".join(Path(cfg.model.path).parts[-2:]))
        open_page(page, Place(cfg.host, cfg.port, cfg.upload_mb, cfg.waiting))
        try:
            announce(cfg)
            wait()
        finally:
            page.close(verbose=False)


def check_page(cfg: DictConfig) -> None:
    """See that the page can be served, before anything heavy starts.

    Raises:
        UserError: Gradio is missing, there is no such folder, or the address or port cannot be had.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs Gradio, which is not installed: pip install 'vcr1[app]'")
    if cfg.videos is not None and not Path(cfg.videos).is_dir():
        raise UserError(f"videos={cfg.videos}: there is no such folder")
    for name, least in (("port", 1), ("upload_mb", 1), ("waiting", 1)):
        if not isinstance(cfg[name], int) or not least <= cfg[name] < 65536:
            raise UserError(f"{name}={cfg[name]} must be a whole number from {least} to 65535")
    host = str(cfg.host)
    if ":" in host:
        raise UserError(
            f"host={host}: must be a name or an IPv4 address, which is all that Gradio can serve at"
        )
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, cfg.port))
    except OSError as error:
        raise UserError(
            f"host={host} port={cfg.port}: cannot be listened on ({error.strerror or error}); choose another"
        ) from error


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for uploads and pictures, which goes with the page; and no settings of Gradio's but ours."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    with TemporaryDirectory(prefix="vcr1-chat-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        yield Path(folder)


def announce(cfg: DictConfig) -> None:
    """Say where the page is, and who can reach it."""
    print(f"Open http://{cfg.host}:{cfg.port} (Ctrl-C ends it)", flush=True)
    if not is_loopback(cfg.host):
        print(
            f"host={cfg.host}: whoever can reach this machine can ask, and there is no password",
            file=sys.stderr,
            flush=True,
        )


def wait() -> None:
    """Sleep until Ctrl-C or SIGTERM."""
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    ended.wait()


def run_job(cfg: DictConfig) -> None:
    """Serve, as a Hydra job."""
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks itself whether it is there
    with suppress(KeyboardInterrupt), exit_on_user_error():  # Ctrl-C while the model is loaded
        chat(cfg)


_main = command_line(run_job, "chat")


def main() -> None:
    """The command line; paths may be written without Hydra's quotes."""
    sys.argv[1:] = as_text(sys.argv[1:])
    _main()


if __name__ == "__main__":
    main()
