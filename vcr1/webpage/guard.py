"""What stands before the page: it answers to its own names only, and lets the browser ask nobody else."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

_PAGE = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json")
_API = ("upload", "upload_progress", "queue/join", "queue/data", "cancel", "startup-events", "info")
BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/file=", "/gradio_api/heartbeat/")
ROUTES = (*_PAGE, *(f"/gradio_api/{name}" for name in _API))
"""What the page asks of its server. Gradio has more, such as one that hands any upload to FFmpeg."""

LOOPBACK = ("localhost", "127.0.0.1")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'self'; "
    "form-action 'self'"
)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server on an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """ASGI middleware: refuses what the page itself would not ask, and adds a content security policy.

    So it refuses requests for other hosts and from other sites: any web site could have its own name point to
    this machine, and read the page as its own; or send a form to it.

    Args:
        app: what it guards.
        hosts: names that the page answers to; None answers to all.
    """

    def __init__(self, app: App, hosts: Collection[str] | None = None) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":  # the page opens no websocket
                await self.app(scope, receive, send)
            return
        ours, known = self._is_ours(scope), scope["path"] in ROUTES or scope["path"].startswith(BELOW)
        if not (ours and known):
            head = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 404 if ours else 421, "headers": head})
            await send({"type": "http.response.body", "body": b"This page answers to itself only.\n"})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        await self.app(scope, receive, send_guarded)

    def _is_ours(self, scope: Message) -> bool:
        headers = {name: value.decode("latin-1").lower() for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        origin = headers.get(b"origin")
        if origin is not None and origin.partition("://")[2] != host:
            return False
        name, _, port = host.rpartition(":")
        return self.hosts is None or (name if name and port.isdigit() else host) in self.hosts
