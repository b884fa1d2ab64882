"""Find documents by a property, with what the question turned into in the open: weights are changed by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from hourglass.errors import InputError
from hourglass.studio.corpus import Corpus
from hourglass.studio.shell import EACH, LATEST, Shell, told
from hourglass.studio.views import view
from hourglass.uses.explore import Found

TOP, SUGGESTIONS, CARRIED = 20, 8, 3
RANKINGS = {"features": "concepts", "dense": "meaning", "words": "words"}

Question = dict[str, Any]
"""query, weights {feature: weight} set by hand, without [feature]."""


def build(shell: Shell, tab: gr.Tab) -> None:
    corpus = shell.corpus
    gr.HTML(
        view(
            "head",
            "Find texts that have a property",
            "The question becomes concepts with weights. Change them, leave some out, add others: the ranking says where each document stood before.",
        )
    )
    with gr.Row(elem_classes=["bar-of-controls"]):
        query = gr.Textbox(
            "",
            placeholder="What the documents should have, in words",
            show_label=False,
            scale=6,
            min_width=240,
            elem_id="find-query",
        )
        ask = gr.Button("Find", variant="primary", min_width=100, scale=0, elem_id="find-go")
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            weights = shell.html(elem_id="find-weights")
            more = gr.Textbox("", placeholder="Add a concept: search its name", show_label=False, elem_id="find-add")
            suggested = shell.html(elem_id="find-suggestions")
        with gr.Column(scale=7, min_width=320):
            ranking = shell.html(elem_id="find-ranking")
    question = gr.State(None)

    @told(3)
    def asked(query: str) -> tuple[Any, ...]:
        new: Question = {"query": query or "", "weights": {}, "without": []}
        return *answered(corpus, new), new

    @told(3)
    def edited(question: Question | None, event: gr.EventData) -> tuple[Any, ...]:
        if question is None:
            raise InputError("ask something first; then its concepts can be changed")
        changed = edit(corpus, question, event._data)
        return *answered(corpus, changed), changed

    outputs = [ranking, weights, question]
    gr.on([ask.click, query.submit], asked, query, outputs, **LATEST)
    for place in (weights, suggested):
        place.click(edited, question, outputs, show_progress="minimal", **EACH)
    more.change(lambda text: suggestions(corpus, text), more, suggested, show_progress="hidden", **LATEST)


def edit(corpus: Corpus, question: Question, sent: dict[str, Any]) -> Question:
    """The question after one click: a weight set, a concept added or left out, or all edits undone."""
    if "reset" in sent:
        return {**question, "weights": {}, "without": []}
    weights, without = dict(question["weights"]), list(question["without"])
    if "weight" in sent:
        feature, weight = corpus.check(sent["weight"][0]), float(sent["weight"][1])
        weights[feature] = weight
    elif "add" in sent:
        feature = corpus.check(sent["add"])
        weights[feature] = 1.0
    else:
        feature = corpus.check(sent["drop"])
        weights.pop(feature, None)
        return {**question, "weights": weights, "without": [*without, feature]}
    return {**question, "weights": weights, "without": [f for f in without if f != feature]}


def answered(corpus: Corpus, question: Question) -> tuple[str, str]:
    """The ranking and the weights, as HTML."""
    found = corpus.find(question["query"], features=question["weights"], without=question["without"], top=TOP)
    return ranked(corpus, found), weighed(corpus, found)


def ranked(corpus: Corpus, found: Found) -> str:
    rows = found.documents
    documents = corpus.documents(rows["position"].tolist())
    moves = [None] * len(rows) if found.overlap is None else (rows["rank_before"] - range(1, len(rows) + 1)).tolist()
    given = [
        SimpleNamespace(
            document=d,
            move=move,
            carried=[(corpus.label(c["feature"]), c["contribution"]) for c in carried[:CARRIED]],
        )
        for d, move, carried in zip(documents, moves, rows["carried"])
    ]
    return view("ranking", given)


def weighed(corpus: Corpus, found: Found) -> str:
    edited = found.overlap is not None
    rows = [
        SimpleNamespace(
            feature=int(r.feature),
            label=corpus.label(int(r.feature)),
            weight=float(r.weight),
            changed=edited and r.weight != r.weight_before,
        )
        for r in found.features.itertuples()
        if r.weight or edited
    ]
    votes = [(RANKINGS[name], vote) for name, vote in found.votes.items()]
    return view("weights", rows, edited, found.overlap, votes)


def suggestions(corpus: Corpus, text: str) -> str:
    if not (text or "").strip():
        return ""
    table = corpus.named(text).head(SUGGESTIONS)
    return view("suggestions", [(int(f), str(label)) for f, label in table["label"].items()])
