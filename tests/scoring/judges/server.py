"""A chat endpoint on the loopback interface that misbehaves on demand."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """How one request is answered.

    Attributes:
        status: of the response.
        content: the model's message; None for what an honest model would say.
        body: the whole body instead.
        headers: further headers.
        delay: seconds before the response.
        drip: seconds before each byte of the body.
        reset: cut the connection instead.
    """

    status: int = 200
    content: str | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    reset: bool = False


@dataclass(frozen=True)
class Asked:
    """One request as it came: path, headers, the whole payload, and the data of its question."""

    path: str
    headers: Mapping[str, str]
    payload: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.payload["messages"][-1]["content"])
        return found


Script = Callable[[int, Asked], Reply]
"""(number of the request from 0, request) -> how to answer it."""


def honest(asked: Asked) -> str:
    """Takes sentences for events, and an event for entailed where the caption holds it word for word."""
    caption = asked.data["caption"]
    if "events" not in asked.data:
        return json.dumps([part.strip() for part in caption.split(".") if part.strip()])
    return json.dumps([event.lower() in caption.lower() for event in asked.data["events"]])


class JudgeServer(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.requests: list[Asked] = []
        self.running = 0
        self.peak = 0
        self.changed = threading.Condition()
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what the tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: JudgeServer

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = Asked(self.path, dict(self.headers), payload)
        with self.server.changed:
            number = len(self.server.requests)
            self.server.requests.append(asked)
            self.server.running += 1
            self.server.peak = max(self.server.peak, self.server.running)
            self.server.changed.notify_all()
        reply = self.server.script(number, asked)
        self.server.stopping.wait(reply.delay)
        with self.server.changed:  # before the answer goes out: the client may then ask again at once
            self.server.running -= 1
        if reply.reset:
            # Linger for no time: the kernel answers with a reset instead of an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        else:
            self.send(asked, reply)

    def send(self, asked: Asked, reply: Reply) -> None:
        body = reply.body
        if body is None:
            content = honest(asked) if reply.content is None else reply.content
            body = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not reply.drip:
            self.wfile.write(body)
            return
        for byte in body:
            if self.server.stopping.wait(reply.drip):
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """The test's output is not the place."""


@contextmanager
def serving(script: Script) -> Iterator[JudgeServer]:
    """A server that runs while the block does."""
    server = JudgeServer(script)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


def always(reply: Reply) -> Script:
    return lambda number, asked: reply


def first(reply: Reply, times: int = 1) -> Script:
    """``reply`` to the first requests, then an honest answer."""
    return lambda number, asked: reply if number < times else Reply()
