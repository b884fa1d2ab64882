"""The documents that a judge reads: of the half that did not select, or given by the user; never a copy of one that did."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hourglass.data import open_texts
from hourglass.errors import InputError
from hourglass.uses.explore.diff import REST, Selected

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Fresh:
    """The documents that are judged: ids, texts, side [n], group [n], and unit [n], the pair of each or a number of its own."""

    ids: list[str]
    texts: list[str]
    side: Array
    group: list[str]
    unit: Array
    paired: bool


def fresh_documents(
    workspace: Workspace,
    by: str,
    a: str,
    b: str | None,
    selected: Selected,
    given: Any,
    *,
    pair: str | None,
    whole: bool,
    sample: int | None,
    seed: int,
    notes: list[str],
) -> Fresh:
    """The documents to judge, in an order in which any beginning holds about as many of one side as of the other.

    given   a source of documents, or None; pair: the column that pairs documents; sample: most of each side (of the pairs)
    whole   no document selected, so that all are fresh
    notes   gets a line where copies are left out
    """
    random = np.random.default_rng(seed)
    selecting = (selected.side >= 0) & ~selected.fresh if not whole else np.zeros(len(selected.side), bool)
    if given is not None:
        table = _given(workspace, by, a, b, given, pair)
        side, pairs = table["side"].to_numpy(), table["pair"].to_numpy()
    else:
        side = np.where(selecting, -1, selected.side)
        pairs = selected.pair if selected.pair is not None else np.full(len(side), -1)
        table = None
    texts = workspace.texts() if table is None else iter([table["text"].tolist()])
    known = _known(workspace, selecting)
    copies = np.concatenate([[_digest(text) in known for text in some] for some in texts]).astype(bool) & (side >= 0)
    if copies.any():
        notes.append(f"{copies.sum():,} documents have the text of one that selected and are not judged.")
    side = np.where(copies, -1, side)
    paired = pair is not None
    order = _paired_order(side, pairs, sample, random) if paired else _order(side, sample, random)
    for s, name in ((0, a), (1, b or REST)):
        if (side[order] == s).sum() < 1:
            raise InputError(f"{workspace.folder}: no fresh document of {name!r} is left to judge")
    if table is None:
        rows = workspace.rows(order.tolist(), ["_id", workspace.text_column, by])
        ids, found, groups = (rows.column(i).to_pylist() for i in range(3))
    else:
        ids, found, groups = (table[name].iloc[order].tolist() for name in ("id", "text", "group"))
    unit = pairs[order] if paired else np.arange(len(order))
    return Fresh(ids, found, side[order], [str(group) for group in groups], unit, paired)


def _known(workspace: Workspace, selecting: Array) -> set[bytes]:
    """Digests of the texts that selected."""
    known: set[bytes] = set()
    start = 0
    for texts in workspace.texts() if selecting.any() else ():
        known.update(_digest(text) for text, is_one in zip(texts, selecting[start : start + len(texts)]) if is_one)
        start += len(texts)
    return known


def _digest(text: str) -> bytes:
    return blake2b(" ".join(text.split()).encode("utf-8", "replace"), digest_size=12).digest()


def _order(side: Array, sample: int | None, random: np.random.Generator) -> Array:
    """Positions of random documents, the sides in turn."""
    drawn = [random.permutation(np.flatnonzero(side == s))[:sample] for s in (0, 1)]
    place = np.concatenate([(np.arange(len(rows)) + 0.5) / max(len(rows), 1) for rows in drawn])
    return np.asarray(np.concatenate(drawn)[np.argsort(place, kind="stable")])


def _paired_order(side: Array, pair: Array, sample: int | None, random: np.random.Generator) -> Array:
    """Positions of the documents of random pairs, pair after pair."""
    both = np.intersect1d(pair[(side == 0) & (pair >= 0)], pair[(side == 1) & (pair >= 0)])
    drawn = random.permutation(both)[:sample]
    rank = dict(zip(drawn.tolist(), range(len(drawn))))
    inside = np.flatnonzero((side >= 0) & np.isin(pair, drawn))
    return inside[np.argsort([rank[p] for p in pair[inside].tolist()], kind="stable")]


def _given(workspace: Workspace, by: str, a: str, b: str | None, source: Any, pair: str | None) -> pd.DataFrame:
    """The documents of a source that was given: id, text, group, side, pair (a number, -1 for none)."""
    texts = open_texts(
        source,
        text=workspace.settings["text"],
        id=workspace.settings["id"],
        require=[by, *([pair] if pair else [])],
    )
    rows: list[dict[str, Any]] = []
    for batch in texts.batches():
        columns = {"id": "_id", "text": texts.text_column, "group": by, **({"pair": pair} if pair else {})}
        rows += pd.DataFrame({k: batch.column(name).to_pylist() for k, name in columns.items()}).to_dict("records")
    table = pd.DataFrame(rows)
    table["group"] = [None if value is None else str(value) for value in table["group"]]
    table["side"] = [-1 if g is None else 0 if g == a else 1 if b is None or g == b else -1 for g in table["group"]]
    table["pair"] = pd.factorize(table["pair"].astype("string"))[0] if pair else -1
    return table
