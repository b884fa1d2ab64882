"""The server of the studio: loopback only unless told otherwise, no file of this machine, nothing from another.

What gradio brings for sharing, uploading and serving files is switched off or refused; a policy in every answer keeps the
browser itself from asking any other machine.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hourglass.errors import ConfigError

if TYPE_CHECKING:
    import gradio as gr

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
"""Plotly draws in workers made of blobs, gradio makes functions of the templates that we give it."""
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
REFUSED = (
    "/gradio_api/file",
    "/gradio_api/upload",
    "/gradio_api/proxy",
    "/gradio_api/stream",
    "/file",
    "/proxy",
    "/upload",
)
"""Doors of gradio to files and other machines, for which the studio has no use."""
EVENTS, ANSWERS = "/gradio_api/queue/join", "/gradio_api/queue/data"
"""Where a page sends what was done in it, and the stream in which it gets the answers."""
LAST = b'"msg":"close_stream"'
"""How gradio tells a page that nothing more will come in a stream. In a text that is sent, the quotes would be escaped."""
PATIENCE = 5.0
"""Seconds that a page gets to hang up after that."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. ConfigError, in one line, where there can be none."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"port {port}: expected 0 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise ConfigError(f"host {host!r}: no such address; use 127.0.0.1 for this machine alone") from None
    listening = socket.socket(family, socket.SOCK_STREAM)
    # Without this a port would stay taken for a minute after a studio has ended.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} of {host} is in use; choose another with --port, or --port 0 for any that is free"
            ) from None
        raise ConfigError(f"cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}") from None
    return listening


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine comes to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Guard:
    """Refuses what reaches for files, says in every answer what the browser may load, and lets no answer get lost.

    It passes messages on one by one: gradio's answers come as a stream, of which a middleware of requests and responses
    would lose some.

    Gradio ends that stream whenever nothing is left to answer. A page whose next event is acknowledged before it has read
    of the end takes the stream for open: it opens no other, and the answer reaches nobody. So events that arrive in between
    are acknowledged only when the page has hung up.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._ending: set[asyncio.Event] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.datastructures import MutableHeaders
        from starlette.responses import PlainTextResponse

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                if scope["path"] == EVENTS:
                    for ending in list(self._ending):
                        await ending.wait()
            await send(message)

        if scope["type"] == "http" and scope["path"].startswith(REFUSED):
            await PlainTextResponse("the studio serves no files", status_code=403)(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == ANSWERS:
            await self._answers(scope, receive, sent)
        else:
            await self._app(scope, receive, sent)

    async def _answers(self, scope: Any, receive: Any, send: Any) -> None:
        """The stream of answers, left open after its last message until the page has read that and hangs up.

        It says that it must not be stored: all streams of a page have one address, and a browser that stores what it gets
        may ask for the next one twice, of which it reads one, and half of the answers go to the other.
        """
        from starlette.datastructures import MutableHeaders

        ending, end = asyncio.Event(), None

        async def sent(message: Any) -> None:
            nonlocal end
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["cache-control"] = "no-store"
            if LAST in message.get("body", b""):
                self._ending.add(ending)
            if ending in self._ending and not message.get("more_body"):
                end = message
            else:
                await send(message)

        try:
            await self._app(scope, receive, sent)
            if end:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE):
                        while (await receive())["type"] != "http.disconnect":
                            pass
                await send(end)
        finally:
            self._ending.discard(ending)
            ending.set()


def application(blocks: gr.Blocks, host: str, **look: Any) -> Any:
    """The web application around the pages; `look` are gradio's theme, css and head."""
    import fastapi
    import gradio as gr
    import plotly
    from fastapi.responses import FileResponse
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    script = Path(str(files(plotly).joinpath("package_data", "plotly.min.js")))

    @app.get("/plotly.js")
    def plotly_script() -> FileResponse:
        return FileResponse(script, media_type="text/javascript", headers={"cache-control": "max-age=86400"})

    app.add_middleware(_Guard)
    if is_loopback(host):  # a page elsewhere cannot reach in by a name that it has pointed here
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", host, "[::1]"])
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        allowed_paths=[],
        show_error=True,
        **look,
    )


def address(listening: socket.socket) -> str:
    """What to type into a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
