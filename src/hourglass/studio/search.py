"""Search an index: what pipelines find, side by side, with the passage that answers best and why each document is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import gradio as gr

from hourglass.errors import InputError
from hourglass.studio.corpus import SHOWN, Corpus
from hourglass.studio.library import SEVERAL, Column, Library
from hourglass.studio.shell import EACH, LATEST, told
from hourglass.studio.views import menu_script, view
from hourglass.uses.search.explain import Explanation, Near
from hourglass.uses.search.results import Hit, Results

LETTERS = "ABC"
TERMS, CONCEPTS = 8, 5


def build(library: Library, corpus: Corpus | None, html: Callable[..., gr.HTML]) -> None:
    """html makes a view; with a corpus its links lead to the pages of the workspace."""
    gr.HTML(
        view(
            "head",
            "Search",
            "Ask in words. Each result shows its best passage, and under “why” its rank at every stage and what carried it. Two or three pipelines stand side by side.",
        )
    )
    with gr.Row(elem_classes=["bar-of-controls"]):
        query = gr.Textbox(
            "", placeholder="What to search for", show_label=False, scale=6, min_width=240, elem_id="search-query"
        )
        ask = gr.Button("Search", variant="primary", min_width=110, scale=0, elem_id="search-go")
    begin = [*library.pipelines, *[""] * SEVERAL][:SEVERAL]
    with gr.Row(elem_id="search-controls"):
        pipelines = [
            gr.Textbox(
                spec,
                label=("Pipeline", "Beside it", "And beside that")[place],
                placeholder=library.pipelines[0] if place == 0 else "none",
                min_width=150,
                scale=3,
                elem_id=f"search-pipeline-{place + 1}",
            )
            for place, spec in enumerate(begin)
        ]
        where = gr.Textbox(
            "",
            label="Only where",
            placeholder=condition(library.index.columns),
            min_width=150,
            scale=3,
            elem_id="search-where",
        )
        top = gr.Dropdown(
            [5, 10, 20, 50], value=10, label="Results", filterable=False, min_width=80, scale=1, elem_id="search-top"
        )
    gr.HTML(
        view("menu", "search-pipeline", library.menu),
        js_on_load=menu_script(),
        elem_classes=["view"],
        elem_id="search-menu",
    )
    changed = html(elem_id="search-changed")
    found = html(view("message", "Nothing asked yet.", "empty"), elem_id="search-found")
    reader = html(elem_id="search-reader")
    columns = gr.State(None)

    @told(3)
    def asked(
        query: str | None, a: str | None, b: str | None, c: str | None, where: str | None, top: int
    ) -> tuple[Any, ...]:
        specs = [(a or "").strip() or library.pipelines[0], *(spec for spec in (b, c) if spec and spec.strip())]
        made = library.search(query or "", specs, (where or "").strip(), top)
        return page(library, corpus, made), made, view("changed") if library.changed else ""

    def clicked(columns: list[Column] | None, event: gr.EventData) -> str:
        sent = event._data
        return told()(partial(document, library, corpus))(columns, sent["read"]) if "read" in sent else ""

    def again() -> tuple[str, str]:
        library.open_newest()
        return "", view("message", f"The index as it is now: {len(library):,} documents. Search again.")

    gr.on(
        [ask.click, *(box.submit for box in (query, where, *pipelines))],
        asked,
        [query, *pipelines, where, top],
        [found, columns, changed],
        **LATEST,
    )
    found.click(clicked, columns, reader, show_progress="hidden", **EACH)
    reader.click(lambda: "", None, reader, show_progress="hidden", **EACH)
    changed.click(told(2)(again), None, [changed, found], **EACH)


def condition(columns: Sequence[str]) -> str:
    """An example of a filter on a column that there is."""
    return f"{columns[0]} = '…'" if columns else "_id = '…'"


# Results ------------------------------------------------------------------------------------------------


def page(library: Library, corpus: Corpus | None, columns: Sequence[Column]) -> str:
    """All columns. A document that is in several has a colour of its own in all of them."""
    shown = [{int(row): rank for rank, row in enumerate(rows_of(column), 1)} for column in columns]
    shared = [row for row in dict.fromkeys(row for ranks in shown for row in ranks) if sum(row in r for r in shown) > 1]
    colours = {row: place for place, row in enumerate(shared)}
    first = columns[0].results
    both = fired(corpus, [hit for column in columns if column.results is not None for hit in column.results.hits])
    made = []
    for at, column in enumerate(columns):
        cards = []
        for place, row in enumerate(rows_of(column)):
            assert column.results is not None
            hit = column.results[place]
            title, fields = library.titled(hit)
            cards.append(
                SimpleNamespace(
                    at=[at, place],
                    row=row,
                    rank=place + 1,
                    title=title,
                    id=hit.id if hit.id != title else "",
                    score=hit.score,
                    fields=fields,
                    parts=parts(hit.passage.text, hit.marks),
                    begins=not hit.text[: hit.passage.start].strip(),
                    ends=not hit.text[hit.passage.stop :].strip(),
                    colour=colours.get(row),
                    compared=at > 0 and first is not None,
                    before_rank=rank_in(first, row) if first is not None else None,
                    elsewhere=[
                        (LETTERS[other], rank_in(each.results, row))
                        for other, each in enumerate(columns)
                        if other != at and each.results is not None
                    ],
                    why=column.results.explain(place, near=False),
                    position=both.get(hit.id, (None, []))[0],
                    concepts=both.get(hit.id, (None, []))[1][:CONCEPTS],
                )
            )
        made.append(SimpleNamespace(letter=LETTERS[at], column=column, cards=cards))
    return view("found", made, common(shown), TERMS)


def rows_of(column: Column) -> list[int]:
    """Rows of the index that are shown."""
    return [] if column.results is None else column.results.ranking.rows[: len(column.results)].tolist()


def rank_in(results: Results, row: int) -> int | None:
    """The rank of a document in all that a pipeline ranked, shown or not."""
    found = (results.ranking.rows == row).nonzero()[0]
    return int(found[0]) + 1 if len(found) else None


def common(shown: Sequence[dict[int, int]]) -> list[tuple[str, str, int, int]]:
    """(one, another, documents that both show, of how many) of each two columns that show something."""
    return [
        (LETTERS[a], LETTERS[b], len(shown[a].keys() & shown[b].keys()), max(len(shown[a]), len(shown[b])))
        for a in range(len(shown))
        for b in range(a + 1, len(shown))
        if shown[a] and shown[b]
    ]


def fired(corpus: Corpus | None, hits: Sequence[Hit]) -> dict[str, tuple[int, list[tuple[int, str, float]]]]:
    """(position in the workspace, the concepts that it has) by id, of the documents that are in both."""
    if corpus is None or not hits:
        return {}
    texts = {hit.id: hit.text for hit in hits}
    positions = dict(zip(texts, corpus.positions_of(list(texts), list(texts.values()))))
    there = {id: position for id, position in positions.items() if position is not None}
    concepts = corpus.concepts(list(there.values()))
    return {id: (position, concepts[position]) for id, position in there.items()}


def parts(text: str, marks: Sequence[tuple[int, int]]) -> list[tuple[str, bool]]:
    """(piece, whether it is marked) of a text, in order."""
    made, at = [], 0
    for start, stop in marks:
        made += [(text[at:start], False), (text[start:stop], True)]
        at = stop
    return [(piece, marked) for piece, marked in [*made, (text[at:], False)] if piece]


# One document -------------------------------------------------------------------------------------------


def document(library: Library, corpus: Corpus | None, columns: list[Column] | None, at: Any) -> str:
    """The text of a result, with the query's words and the sentences nearest to it marked."""
    results, place = chosen(columns, at)
    hit, why = results[place], library.explain(results, place)
    title, fields = library.titled(hit)
    position, concepts = fired(corpus, [hit]).get(hit.id, (None, []))
    return view(
        "reader",
        SimpleNamespace(
            title=title,
            id=hit.id if hit.id != title else "",
            fields=fields,
            pieces=read(library, results.query, hit, why),
            left_out=max(0, len(hit.text) - SHOWN),
            near=why.near,
            position=position,
            concepts=concepts[: 3 * CONCEPTS],
        ),
    )


def chosen(columns: list[Column] | None, at: Any) -> tuple[Results, int]:
    """The result that a browser means. InputError where there is none such."""
    try:
        column, place = (int(number) for number in at)
        results = (columns or [])[column].results
        if results is None or min(column, place) < 0:
            raise IndexError
        results[place]
    except (TypeError, ValueError, IndexError):
        raise InputError(f"no result {at!r}; search again") from None
    return results, place


def read(library: Library, query: str, hit: Hit, why: Explanation) -> list[tuple[str, bool, bool]]:
    """(piece, whether it is a word of the query, whether it is in a near sentence) of the beginning of a text."""
    text = hit.text[:SHOWN]
    terms = set(library.index.words(query))
    words = [(start, stop) for start, stop, term in library.index.words.spans(text) if term in terms]
    borders = sorted({0, len(text), *(min(at, len(text)) for span in [*words, *map(span_of, why.near)] for at in span)})
    word_at = {at for start, stop in words for at in borders_in(borders, start, stop)}
    near_at = {at for near in why.near for at in borders_in(borders, near.start, near.stop)}
    return [(text[a:b], a in word_at, a in near_at) for a, b in pairwise(borders)]


def span_of(near: Near) -> tuple[int, int]:
    return near.start, near.stop


def borders_in(borders: list[int], start: int, stop: int) -> list[int]:
    return [at for at in borders if start <= at < stop]
