"""The first page: what the corpus is and which concepts tell most of it apart."""

from __future__ import annotations

import gradio as gr
import numpy as np
import pandas as pd

from hourglass.studio.corpus import Corpus
from hourglass.studio.shell import Shell
from hourglass.studio.views import view
from hourglass.uses.explore.overview import concepts, strongest, title
from hourglass.uses.explore.report import Corpus as Summary
from hourglass.uses.explore.report import Group

CARDS = 12


def build(shell: Shell, tab: gr.Tab) -> None:
    shell.html(page(shell.corpus))


def page(corpus: Corpus) -> str:
    """Made once, when the studio starts."""
    workspace, by = corpus.workspace, corpus.by
    tokens = np.concatenate([arrays["tokens"] for arrays in workspace.stored("tokens")])
    groups = corpus.column(by) if by else np.full(len(corpus), None, object)
    sizes = pd.Series(groups).value_counts()
    names = [str(name) for name in sizes.index]
    best = strongest(workspace.features).head(CARDS)
    summary = Summary(
        documents=len(corpus),
        tokens=int(tokens.sum()),
        median_tokens=float(np.median(tokens)),
        skipped=[line for source in workspace.manifest["sources"] for line in source["trouble"]],
        columns=[],
        group_column=by,
        groups=[Group(name, int(sizes[name]), float(np.median(tokens[groups == name]))) for name in names[:200]],
    )
    named = int(workspace.features["label"].notna().sum())
    return view("overview", title(workspace), summary, named, concepts(workspace, best, groups, names[:16]))
