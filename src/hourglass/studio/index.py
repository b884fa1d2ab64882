"""What an index is: how many documents, with what to search them, what it takes on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gradio as gr

from hourglass.studio.library import Library
from hourglass.studio.views import view
from hourglass.uses.search.layout import OWN

DOCUMENTS = 6


def build(library: Library, html: Callable[..., gr.HTML], tab: gr.Tab) -> None:
    shown = html(page(library), elem_id="index-overview")
    tab.select(lambda: page(library), None, shown, show_progress="hidden", api_visibility="private")


def page(library: Library) -> str:
    """As the index was when it was opened."""
    index, sizes = library.index, library.sizes()
    manifest, number = index.manifest, max(1, len(index))
    bm25 = manifest["bm25"]
    languages = f"stems {bm25['stem'] or 'none'}, stop words {bm25['stop_words'] or 'none'}"
    facts = [("Words", f"BM25, k1 {bm25['k1']:g}, b {bm25['b']:g}; {languages}")]
    if manifest["vectors"]:
        vectors, encoder = manifest["vectors"], manifest["encoder"]
        by = "given with the source, by no encoder that it knows" if encoder is None else f"by {encoder['id']}"
        facts.append(("Vectors", f"{vectors['width']:,} numbers, {vectors['dtype']}, {vectors['similarity']}, {by}"))
    if manifest["sparse"]:
        facts.append(("Weights of words", f"by {manifest['sparse']['id']}"))
    if manifest["code"]:
        facts.append(("Binary codes", f"{manifest['code']['id']}"))
    facts.append(("Default pipeline", library.pipelines[0]))
    facts.append(("Version", f"{index.version:,}"))
    columns = [(field.name, str(field.type)) for field in index.table.schema if field.name not in OWN]
    largest = max([1, *sizes.values()])
    on_disk = [(name, size, size / largest, size / number) for name, size in sizes.items()]
    return view(
        "index",
        Path(index.folder).resolve().name,
        len(index),
        sum(sizes.values()),
        facts,
        columns,
        on_disk,
        library.first(DOCUMENTS),
    )
