"""The studio over a workspace: a page a tab, on loopback, with nothing fetched from elsewhere."""

from __future__ import annotations

import os
import socket

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr

from hourglass.errors import InputError
from hourglass.studio import atlas, concepts, correlations, differences, look, overview, reading, search
from hourglass.studio.session import Session, Ways
from hourglass.uses.explore import Workspace

FIRST_PORT, LAST_PORT = 7860, 7879


def build(workspace: Workspace) -> gr.Blocks:
    """The app; what a page shows is made when it is first asked for, the overview at once."""
    session = Session(workspace)
    with gr.Blocks(title=f"{workspace.folder.name} · Hourglass", analytics_enabled=False, fill_width=True) as app:
        concept, document = gr.State(None), gr.State(None)
        with gr.Tabs() as tabs:
            ways = Ways(tabs, concept, document)
            for id, title, page in (
                ("overview", "Overview", overview.build),
                ("concepts", "Concepts", concepts.build),
                ("document", "Document", reading.build_document),
                ("differences", "Differences", differences.build),
                ("correlations", "Correlations", correlations.build),
                ("map", "Map", atlas.build),
                ("find", "Find", search.build),
                ("live", "Live", reading.build_live),
            ):
                with gr.Tab(title, id=id):
                    page(session, ways)
        app.load(None, js=atlas.LASSO)
    return app


def serve(
    workspace: Workspace, *, host: str = "127.0.0.1", port: int | None = None, block: bool = True, browser: bool = False
) -> str:
    """Serve the studio and return its address; with `block`, only once it is stopped.

    port  None takes the first free one from 7860 on

    Raises InputError for a port that is in use.
    """
    chosen = _port(host, port)
    _, address, _ = build(workspace).launch(
        server_name=host,
        server_port=chosen,
        share=False,
        inbrowser=browser,
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        footer_links=[],
        enable_monitoring=False,
        allowed_paths=[],
        theme=look.theme(),
        css=look.CSS,
    )
    return address


def _port(host: str, port: int | None) -> int:
    """A port that nobody listens on."""
    for candidate in [port] if port is not None else range(FIRST_PORT, LAST_PORT + 1):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((host, candidate))
            except OSError:
                continue
            return candidate
    if port is not None:
        raise InputError(f"port {port} of {host} is in use or not allowed; name another with --port")
    raise InputError(f"ports {FIRST_PORT} to {LAST_PORT} of {host} are all in use; name another with --port")
