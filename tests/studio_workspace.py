"""A small workspace whose documents would like to be pages, and a stand-in for its model."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from encoders import make_pair
from hourglass.bottlenecks.sparse import SparseCodes
from hourglass.uses.explore import Workspace
from hourglass.waist import TokenStates
from workspaces import DIM, make_workspace

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> ${alert(3)} {{alert(4)}} \"q\" & 'so'"


class Reader:
    """Words for tokens; the state of a word says by its length which feature it fires."""

    width = 4

    def read(self, texts):
        words = [word for text in texts for word in text.split()]
        spans, at = [], 0
        for word in words:
            start = texts[0].index(word, at)
            at = start + len(word)
            spans.append((start, at))
        states = torch.tensor([[len(word), 1.0, 0.0, 0.0] for word in words]).reshape(-1, 4)
        return TokenStates(states, torch.tensor([0, len(words)]), torch.tensor(spans, dtype=torch.int32).reshape(-1, 2))


class Coder:
    reader = Reader()

    def codes(self, states):
        features = (states[:, :1].long() % 7) + 1
        return SparseCodes.from_topk(features, torch.full(features.shape, 2.0), 8)


def workspace_in(folder: Path):
    """80 documents in two teams; feature 1 in all of `a`, features 2 and 3 together; hostile text, ids, groups and names."""
    random = np.random.default_rng(0)
    n = 80
    team = np.array([f"a {HOSTILE}" if i % 2 else "b" for i in range(n)])
    maxima = (random.random((n, 8)) < 0.3) * random.uniform(1, 3, (n, 8))
    maxima[:, 1] = np.where(np.arange(n) % 2, 2.0, 0.0)
    maxima[:, 2] = maxima[:, 3] = np.where(np.arange(n) % 4 < 2, 2.0, 0.0)
    texts = [f"document {i} {HOSTILE} says refund please" for i in range(n)]
    names = [None, f"refund, {HOSTILE}", "invoice", "parcel", "topic: late, delay", "thanks", "printer", "the"]
    ids = [f"id{i} {HOSTILE}" if i == 0 else f"id{i}" for i in range(n)]
    coder = Coder()
    workspace = make_workspace(
        folder, texts, {"team": list(team), "single": ["x"] * n}, maxima, ids=ids, names=names, coder=coder
    )
    workspace.manifest["settings"].update(by="team", threshold=0.0)
    workspace.manifest["learning"] = {"l0": 1.0}
    workspace.manifest["sources"] = [{"name": f"made {HOSTILE}", "trouble": [HOSTILE]}]
    workspace.commit()
    pieces = [("reads ", 0.0), (HOSTILE, 0.9), (" and ends", 0.0)]
    pd.DataFrame(
        [
            {
                "feature": f,
                "rank": 0,
                "document": "id1",
                "value": 1.0,
                "pieces": [p for p, _ in pieces],
                "strengths": [s for _, s in pieces],
            }
            for f in range(1, 8)
        ]
    ).to_parquet(folder / "examples.parquet")
    places = {"position": np.arange(n), "x": random.normal(size=n), "y": random.normal(size=n)}
    pd.DataFrame(places).to_parquet(folder / "map.parquet")
    return workspace


def other_in(folder: Path):
    """Another text of the same 80 documents: features 2 and 3 in those that have these in the first."""
    n, random = 80, np.random.default_rng(1)
    maxima = (random.random((n, 8)) < 0.3) * random.uniform(1, 3, (n, 8))
    maxima[:, 2] = maxima[:, 3] = np.where(np.arange(n) % 4 < 2, 2.0, 0.0)
    names = [None, "paid", f"answer {HOSTILE}", "sorry", "delay", "thanks", "link", "the"]
    ids = [f"id{i} {HOSTILE}" if i == 0 else f"id{i}" for i in range(n)]
    texts, dense = [f"reply {i} {HOSTILE}" for i in range(n)], random.normal(size=(n, DIM))
    return make_workspace(folder, texts, {}, maxima, dense=dense, ids=ids, names=names, coder=Coder())


def index_in(folder: Path, workspace: Workspace):
    """A search index of the same documents, of which the last has another text, and a title that would like to be a page."""
    import hourglass as hg

    for part in make_pair():
        part.save_pretrained(folder / "encoder")
    table = workspace.documents
    rows = [
        {"id": id, "text": text, "title": f"Title of {id} {HOSTILE}", "team": team, "year": 2000 + i}
        for i, (id, text, team) in enumerate(zip(*(table[c].to_pylist() for c in ("_id", "text", "team"))))
    ]
    rows[-1]["text"] = "refund of another text"
    encoder = str(folder / "encoder")
    return hg.index(rows, out=folder / "index", encoder=encoder, text="text", id="id", progress=False)


def main(folder: Path, *beside: Path) -> None:
    """A studio over a workspace, with another text or an index or alone, or over an index, in a process of its own; prints where it is."""
    from unittest import mock

    from hourglass import api
    from hourglass.studio.app import Studio
    from hourglass.uses.explore.workspace import is_workspace

    other, index = (next((b for b in beside if is_workspace(b) == of), None) for of in (True, False))
    with mock.patch.object(api, "open", lambda folder: Workspace.open(folder, lambda path: Coder())):
        studio = Studio(folder, other=other, index=index, port=0)
    print(studio.address, flush=True)
    studio.run()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
