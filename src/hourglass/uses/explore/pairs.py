"""Pairs that go together, checked by a judge who reads documents: NPMI of what the labels say (the paper's verified NPMI).

The judge says of each label by itself, and of each of some documents that did not select the pairs, whether it holds. It
does not see the pairs. A rare label holds in few of a small sample: read verified_joint beside verified_npmi.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from hourglass.adapters.chat_endpoint import ChatEndpoint, Prices
from hourglass.errors import ConfigError
from hourglass.uses.explore.correlate import Correlations, items_in, verified
from hourglass.uses.explore.hypotheses import Hypothesis, description_of, statement_of
from hourglass.uses.explore.judges import ChatJudge, FunctionJudge, Judge, RuleJudge, ask, endpoint_of, is_address
from hourglass.uses.progress import Progress, Report

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

SAMPLE = {"model": 300, "other": 1_000}
"""Documents that are judged, by a language model and by what costs nothing, where nobody says how many (the paper: 1,000)."""


@dataclass(frozen=True, kw_only=True)
class JudgedPairsOptions:
    """pairs: how many are judged, the strongest that stand for themselves; sample: documents, drawn at random (None: 1,000,
    with a language model 300); model, budget, prices: as in `VerifyOptions`.
    """

    pairs: int = 10
    sample: int | None = None
    model: str | None = None
    budget: float | None = None
    prices: Prices | tuple[float, float] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("pairs", self.pairs), ("sample", self.sample)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: expected 1 or more")


def judged_pairs(
    workspace: Workspace,
    other: Workspace | None,
    found: Correlations,
    judge: str | ChatEndpoint | Judge | Callable[[str, str], Any],
    options: JudgedPairsOptions,
    progress: bool | Report,
) -> Correlations:
    """The pairs with columns verified_documents, verified_joint and verified_npmi, NaN where they were not judged."""
    who = judge_of(workspace, judge, options)
    size = options.sample or SAMPLE["model" if isinstance(who, ChatJudge) else "other"]
    drawn = np.sort(np.random.default_rng(options.seed).permutation(found.documents)[:size])
    named = found.table["label_a"].notna() & found.table["label_b"].notna()
    chosen = found.table[named & found.table["same_as"].isna()].head(options.pairs)
    a, b = items_in(chosen, "a"), items_in(chosen, "b")
    fields = [(workspace, found.rows[drawn], a), (other or workspace, found.other_rows[drawn], b)]
    if other is None:
        fields = [(workspace, found.rows[drawn], a + b)]
    labels = [list(dict.fromkeys(items)) for _, _, items in fields]
    claims = [[_claim(ws.features, item) for item in own] for (ws, _, _), own in zip(fields, labels)]
    texts = [ws.rows(rows.tolist(), [ws.text_column]).column(0).to_pylist() for ws, rows, _ in fields]
    places = [(d, t, h) for d in range(len(drawn)) for t, own in enumerate(claims) for h in range(len(own))]
    verdicts = [np.full((len(drawn), len(own)), np.nan) for own in labels]
    notes = list(found.notes)
    unclear = 0
    with Progress(progress) as bar:
        said, usage = ask(who, [(claims[t][h], texts[t][d]) for d, t, h in places], bar, notes)
    for answer in said:
        d, t, h = places[answer.number]
        if answer.says in ("yes", "no"):
            verdicts[t][d, h] = answer.says == "yes"
        else:
            unclear += 1
    if unclear:
        notes.append(f"{unclear:,} questions got no clear answer; they count neither as yes nor as no.")
    tables = [pd.DataFrame(table, columns=own) for table, own in zip(verdicts, labels)]
    columns = ["verified_documents", "verified_joint", "verified_npmi"]
    table = found.table.join(verified(chosen, tables[0], tables[-1])[columns])
    return replace(found, table=table, notes=notes, judge=who.name, usage=usage)


def judge_of(workspace: Workspace, judge: Any, options: JudgedPairsOptions) -> Judge:
    """Who judges; ConfigError for a name that is none, and for settings of an endpoint without one."""
    if is_address(judge):
        judge = endpoint_of(workspace, judge, options.model, options.budget, options.prices)
    if isinstance(judge, ChatEndpoint):
        return ChatJudge(judge)
    for name in ("model", "budget", "prices"):
        if getattr(options, name) is not None:
            raise ConfigError(f"{name} belongs to a chat endpoint; the judge is {judge!r}")
    if isinstance(judge, str):
        if judge != "rule":
            raise ConfigError(f"no judge {judge!r} of pairs; expected rule, or the address of a chat endpoint")
        return RuleJudge()
    return cast(Judge, judge) if hasattr(judge, "answers") else FunctionJudge(judge)


def _claim(features: pd.DataFrame, item: int | str) -> Hypothesis:
    """What a feature's name, or a word, says of a document."""
    if isinstance(item, str):
        return Hypothesis(statement_of(item), labels=(item,), terms=(item,))
    told, label = description_of(features, item), str(features["label"].iloc[item])
    terms: Sequence[str] = features["terms"].iloc[item]
    statement = told if isinstance(told, str) else statement_of(label)
    return Hypothesis(statement, features=(item,), labels=(label,), terms=tuple(terms))
