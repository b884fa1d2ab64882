"""The studio as a whole: a page for each thing that a workspace answers, in one application of gradio.

hg.Studio("reviews").run()
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hourglass import api
from hourglass.errors import ConfigError, MissingExtra
from hourglass.studio import server
from hourglass.studio.views import head, style
from hourglass.uses.search.homes import home_of

if TYPE_CHECKING:
    import gradio as gr

    from hourglass.studio.library import Library
    from hourglass.uses.explore import Workspace

SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
"""As in look.css: fonts of the system, so that none is fetched."""


class Studio:
    """A finished workspace, a search index, or both in the browser.

    folder     of a workspace or of an index, which may have a URL
    other      of a workspace of another text of the same documents, matched by id: what goes together in the two has a page
    index      of an index, beside a workspace: the concepts of a document that is in both, by its id and its text, are shown
    pipelines  three at most with which the search page begins, by default that of the index; of the models that a stage may name,
               only the index's own and those named here are opened
    host       where it listens: this machine alone, unless told otherwise
    port       0 takes one that is free

    Raises FolderError where there is neither, ConfigError for a port in use or a pipeline that cannot be read, MissingExtra without
    gradio.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        other: str | Path | None = None,
        index: str | Path | None = None,
        pipelines: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 7860,
    ) -> None:
        workspace, searched = _opened(folder, index, bool(pipelines))
        if other is not None and workspace is None:
            raise ConfigError(f"{folder}: is an index; another text of the same documents stands beside a workspace")
        second = None if other is None else api.open(other)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read where gradio is imported
        try:
            import gradio
            import plotly
            import uvicorn
        except ImportError:
            raise MissingExtra("the studio", "studio") from None
        del gradio, plotly  # the pages import what they use
        self._socket = server.listen(host, port)
        self.address = server.address(self._socket)
        try:
            app = server.application(
                pages(workspace, second, _library(searched, pipelines)), host, theme=_theme(), css=style(), head=head()
            )
        except BaseException:
            self._socket.close()
            raise
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))

    def run(self) -> None:
        """Answer until stopped, by Ctrl-C or from another thread."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Let `run` end."""
        self._server.should_exit = True


def _opened(
    folder: str | Path, index: str | Path | None, searching: bool
) -> tuple[Workspace | None, str | Path | None]:
    """(the workspace, the folder of the index) that there are."""
    if not home_of(folder).is_index():
        if searching and index is None:
            raise ConfigError("pipelines are of an index; name one beside the workspace")
        return api.open(folder), index
    if index is not None:
        raise ConfigError(f"{folder}: is an index itself; another can only stand beside a workspace")
    return None, folder


def _library(folder: str | Path | None, pipelines: Sequence[str]) -> Library | None:
    from hourglass.studio.library import Library  # who looks at a workspace does not wait for what searches

    return None if folder is None else Library(folder, pipelines)


def pages(workspace: Workspace | None, second: Workspace | None, library: Library | None) -> gr.Blocks:
    """All pages of a workspace, of this and another text of the same documents, and of an index, each under its tab. The first is
    made here, the others when they are first opened."""
    import gradio as gr

    from hourglass.studio import across, concepts, differences, documents, find, live, map, overview, together
    from hourglass.studio.corpus import Corpus
    from hourglass.studio.shell import Shell, html

    tabs: list[tuple[str, str, Any]] = [
        ("overview", "Overview", overview),
        ("concepts", "Concepts", concepts),
        ("documents", "Documents", documents),
        ("differences", "Differences", differences),
        ("together", "Together", together),
        *([("across", "Two texts", across)] if second is not None else []),
        ("map", "Map", map),
        ("find", "Find", find),
        ("live", "Live", live),
    ]
    opened = workspace if workspace is not None or library is None else library.index
    assert opened is not None
    name = Path(opened.folder).resolve().name
    with gr.Blocks(title=f"Hourglass · {name}", analytics_enabled=False) as blocks:
        document, concept = gr.State(None), gr.State(None)
        with gr.Tabs(elem_id="pages") as all_tabs:
            other = None if second is None else Corpus(second)
            shell = None if workspace is None else Shell(Corpus(workspace), other, all_tabs, document, concept)
            for id, title, page in tabs if shell is not None else ():
                with gr.Tab(title, id=id, elem_id=f"page-{id}") as tab:
                    page.build(shell, tab)
            if library is not None:
                from hourglass.studio import index, search

                corpus, made = (None, html) if shell is None else (shell.corpus, shell.html)
                with gr.Tab("Search", id="search", elem_id="page-search"):
                    search.build(library, corpus, made)
                with gr.Tab("Index", id="index", elem_id="page-index") as tab:
                    index.build(library, made, tab)
    return blocks


def _theme() -> Any:
    """Gradio's plainest theme in the colours of look.css, which know light and dark by themselves."""
    import gradio as gr

    theme = gr.themes.Base(font=SANS, font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"], radius_size="md")
    colours = {
        "body_background_fill": "var(--paper)",
        "body_text_color": "var(--ink)",
        "body_text_color_subdued": "var(--soft)",
        "background_fill_primary": "var(--card)",
        "background_fill_secondary": "var(--paper)",
        "block_background_fill": "var(--card)",
        "block_border_color": "var(--line)",
        "block_label_text_color": "var(--soft)",
        "block_title_text_color": "var(--soft)",
        "border_color_primary": "var(--line)",
        "border_color_accent": "var(--accent)",
        "color_accent_soft": "var(--track)",
        "input_background_fill": "var(--card)",
        "input_background_fill_focus": "var(--card)",
        "input_border_color": "var(--line)",
        "input_border_color_focus": "var(--accent)",
        "input_placeholder_color": "var(--faint)",
        "button_primary_background_fill": "var(--accent)",
        "button_primary_background_fill_hover": "color-mix(in srgb, var(--accent) 86%, var(--ink))",
        "button_primary_text_color": "var(--paper)",
        "button_secondary_background_fill": "var(--card)",
        "button_secondary_background_fill_hover": "var(--track)",
        "button_secondary_text_color": "var(--ink)",
        "button_secondary_border_color": "var(--line)",
        "slider_color": "var(--accent)",
        "checkbox_background_color_selected": "var(--accent)",
        "checkbox_border_color": "var(--faint)",
        "checkbox_label_background_fill": "transparent",
        "checkbox_label_text_color": "var(--soft)",
    }
    both = {**colours, **{f"{name}_dark": value for name, value in colours.items()}}
    return theme.set(color_accent="var(--accent)", block_shadow="none", **both)
