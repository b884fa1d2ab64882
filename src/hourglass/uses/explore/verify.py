"""Whether a difference between groups survives a judge who reads documents that did not select it.

    verified = workspace.verify("label", "good", "bad", judge="http://localhost:11434/v1", model="llama3.1")
    verified.table, verified.rate, verified.notes

1. One half of the documents selects what differs, and at most ten distinct hypotheses are made of it.
2. The judge says for each hypothesis and each fresh document whether it holds: documents of the other half, or ones that
   were given, without those whose text also stands in a selecting document.
3. The verified difference is the share of yes among yes and no on the side of which the hypothesis was said, minus that on
   the other, with its interval (Newcombe; Agresti and Min for pairs).

Differences from the paper
- Fresh documents judge: the paper judges those that selected.
- What a judge refuses or what cannot be read is counted apart; the released code takes it for a no.
- A hypothesis carries an interval; the paper's rate (difference above 1 %) stands beside the share whose interval is above 0.
- One against several others: the difference is to all of them together; `nearest` is the paper's, the highest single share.
- Coverage without pairs is told for documents: the share in which a hypothesis of their side holds, and in how many of the
  other side it does. With `pair` it is the paper's.
- The strength of a written hypothesis is computed from its rows, not asked for; rows are read 50 at a time, not 200.
- No near misses are asked for.
Features and their names were learned on all documents, without a look at the groups.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from hourglass.adapters.chat_endpoint import ChatEndpoint, Prices
from hourglass.errors import ConfigError, InputError
from hourglass.metrics.proportions import difference_interval, paired_interval
from hourglass.uses.explore import hypotheses as making
from hourglass.uses.explore import writing
from hourglass.uses.explore.diff import REST, SMALLEST, SMALLEST_SPLIT, DiffOptions, Selected, select
from hourglass.uses.explore.fresh import Fresh, fresh_documents
from hourglass.uses.explore.hypotheses import Hypothesis
from hourglass.uses.explore.judges import (
    READ_CHARACTERS,
    ChatJudge,
    FunctionJudge,
    Judge,
    LocalJudge,
    RuleJudge,
    ask,
    compiled,
    endpoint_of,
    is_address,
)
from hourglass.uses.explore.labels import MIN_SCORE
from hourglass.uses.progress import Progress

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

VERIFIED = 0.01
"""A hypothesis counts as verified above this difference (the paper's 1 %)."""
SAMPLE = {"model": 100, "other": 1_000}
"""Documents of each side that are judged, by a language model and by what costs nothing, where nobody says how many."""


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What is judged, and by which model.

    number  most hypotheses
    sample  fresh documents of each side, drawn at random (pairs, when paired); None: 1,000, with a
            language model 100
    model   of the endpoint; writer: model that writes the hypotheses (None: the same; "names": they are made of names)
    budget  most tokens; with `prices` (of a million prompt and completion tokens) most money
    diff    how the hypotheses are selected
    """

    number: int = making.MOST
    sample: int | None = None
    model: str | None = None
    writer: str | None = None
    budget: float | None = None
    prices: Prices | tuple[float, float] | None = None
    diff: DiffOptions = field(default_factory=DiffOptions)

    def __post_init__(self) -> None:
        for name, value in (("number", self.number), ("sample", self.sample)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: expected 1 or more")


@dataclass(frozen=True)
class Verified:
    """What the judge said.

    table      a row a hypothesis: statement, group (of which it is said), strength (difference on the selecting documents;
               NaN where a person made the statement), difference (verified: its group minus the other), low, high, nearest
               (largest share in a single other group), features, labels, quality (of a local judge), and for each side
               frequency_a, yes_a, no_a, refused_a, unparsable_a
    answers    a row a question that was answered: hypothesis (row of the table), document, side, group, answer, why
    documents  fresh documents of a and b
    coverage   for each side: group, own (share of its documents in which a hypothesis of it holds), other (the same on the
               other side), only (paired: share of pairs where one holds in its document and none in the other)
    usage      of a language model: questions asked, answers found on disk, tokens, cost; None for another judge
    """

    by: str
    a: str
    b: str
    judge: str
    table: pd.DataFrame
    answers: pd.DataFrame
    documents: tuple[int, int]
    coverage: list[dict[str, Any]]
    usage: dict[str, Any] | None
    notes: list[str]

    @property
    def judged(self) -> pd.DataFrame:
        """The hypotheses with a yes or no on either side."""
        return self.table[self.table["difference"].notna()]

    @property
    def mean(self) -> float | None:
        """Average verified difference of a hypothesis."""
        return float(self.judged["difference"].mean()) if len(self.judged) else None

    @property
    def rate(self) -> float | None:
        """Share of the judged hypotheses whose difference is above 1 %, as in the paper."""
        return float((self.judged["difference"] > VERIFIED).mean()) if len(self.judged) else None

    @property
    def sure(self) -> float | None:
        """Share of the judged hypotheses whose interval is above 0."""
        return float((self.judged["low"] > 0).mean()) if len(self.judged) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them; the single answers are in `answers` only."""
        return {
            "by": self.by,
            "a": self.a,
            "b": self.b,
            "judge": self.judge,
            "documents_a": self.documents[0],
            "documents_b": self.documents[1],
            "mean": self.mean,
            "rate": self.rate,
            "sure": self.sure,
            "coverage": self.coverage,
            "usage": self.usage,
            "notes": self.notes,
            "hypotheses": json.loads(self.table.to_json(orient="records")),
        }


def verify(
    workspace: Workspace,
    by: str,
    a: str | None,
    b: str | None,
    *,
    judge: str | ChatEndpoint | Judge | Callable[[str, str], Any],
    hypotheses: Sequence[str],
    documents: Any,
    options: VerifyOptions,
    progress: bool,
) -> Verified:
    """See `Workspace.verify`."""
    a, b = _groups(workspace, by, a, b)
    endpoint, pattern, options = _endpoint(workspace, judge, options)
    if hypotheses and pattern is not None:
        raise ConfigError("verify: a rule of one's own is the hypothesis; leave out the others")
    claimed = [Hypothesis(statement) for statement in hypotheses]
    if pattern is not None:
        compiled(pattern)
        claimed = [Hypothesis(f"matches {pattern}", pattern=pattern)]
    if judge in ("rule", "local") and claimed:
        raise ConfigError(
            f"judge {judge!r} knows only hypotheses that come from differences; for one of your own take 'rule:REGEX' "
            "or the address of a chat endpoint"
        )
    notes: list[str] = []
    with Progress(progress) as bar:
        diff = replace(options.diff, split=documents is None and not claimed)
        selected = select(workspace, by, a, b, diff)
        notes += selected.notes
        if diff.split and not selected.fresh.any():
            raise InputError(
                f"{workspace.folder}: fewer than {SMALLEST_SPLIT} documents on a side leave none to judge that did not select; "
                "give fresh ones (--documents)"
            )
        seen = None if claimed else making.evidence(workspace, selected, diff)
        fresh = fresh_documents(
            workspace,
            by,
            a,
            b,
            selected,
            documents,
            pair=diff.pair,
            whole=seen is None,
            sample=options.sample,
            seed=diff.seed,
            notes=notes,
        )
        if seen is not None:
            claimed = _make(workspace, selected, seen, endpoint, options, bar)
        if not claimed:
            notes.append(f"Nothing differs by more than {diff.threshold:g} for sure: there is no hypothesis to verify.")
        judging = _judge(workspace, judge, endpoint, claimed, seen)
        answers, usage = _ask(judging, claimed, fresh, notes, bar)
    table = _table(claimed, answers, fresh, (a, b or REST), judging)
    notes += _remarks(table, fresh, endpoint, options, len(claimed))
    coverage = [_coverage(claimed, answers, fresh, side, (a, b or REST)[side]) for side in (0, 1)]
    sizes = (int((fresh.side == 0).sum()), int((fresh.side == 1).sum()))
    return Verified(by, a, b or REST, judging.name, table, answers, sizes, coverage, usage, notes)


# Who judges what --------------------------------------------------------------------------------------


def _groups(workspace: Workspace, by: str, a: str | None, b: str | None) -> tuple[str, str | None]:
    """Two groups, or one and the rest; of a column with two groups none need be named."""
    if a is not None:
        return a, b
    if b is not None:
        raise InputError("verify: group b is given without group a")
    names = [str(name) for name in pd.Series(workspace.column(by)).dropna().value_counts().index]
    if len(names) != 2:
        raise InputError(
            f"{workspace.folder}: column {by!r} has {len(names)} groups ({', '.join(names[:5])}{' ...' if names[5:] else ''}); "
            "name the one to verify (--a)"
        )
    return names[0], names[1]


def _endpoint(
    workspace: Workspace, judge: Any, options: VerifyOptions
) -> tuple[ChatEndpoint | None, str | None, VerifyOptions]:
    """The endpoint that `judge` means, or its regular expression; and the options with a sample of the right size."""
    if is_address(judge):
        judge = endpoint_of(workspace, judge, options.model, options.budget, options.prices)
    if isinstance(judge, ChatEndpoint):
        return judge, None, replace(options, sample=options.sample or SAMPLE["model"])
    for name in ("model", "writer", "budget", "prices"):
        if getattr(options, name) is not None:
            raise ConfigError(f"{name} belongs to a chat endpoint; the judge is {judge!r}")
    options = replace(options, sample=options.sample or SAMPLE["other"])
    if not isinstance(judge, str):
        return None, None, options
    kind, _, pattern = judge.partition(":")
    if judge not in ("rule", "local") and not (kind == "rule" and pattern):
        raise ConfigError(f"no judge {judge!r}; expected rule, rule:REGEX, local, or the address of a chat endpoint")
    return None, pattern or None, options


def _make(
    workspace: Workspace,
    selected: Selected,
    seen: making.Evidence,
    endpoint: ChatEndpoint | None,
    options: VerifyOptions,
    bar: Progress,
) -> list[Hypothesis]:
    if endpoint is None or options.writer == "names" or not len(selected.table):
        return making.from_names(workspace.features, selected, seen, options.number)
    task = bar.start("Writing hypotheses", None)
    writer = endpoint.with_model(options.writer) if options.writer else endpoint
    made = writing.written(writer, selected.table, writing.items_of(workspace, selected, seen), options.number)
    bar.advance(task, len(made))
    return made


def _judge(
    workspace: Workspace,
    judge: Any,
    endpoint: ChatEndpoint | None,
    claimed: list[Hypothesis],
    seen: making.Evidence | None,
) -> Judge:
    if endpoint is not None:
        return ChatJudge(endpoint)
    if judge == "local" and seen is not None:
        return LocalJudge(workspace.coder.reader, claimed, seen, workspace.dense[seen.positions])
    if isinstance(judge, str):
        return RuleJudge()
    return cast(Judge, judge) if hasattr(judge, "answers") else FunctionJudge(judge)


# Asking and counting ----------------------------------------------------------------------------------


def _ask(
    judge: Judge, claimed: list[Hypothesis], fresh: Fresh, notes: list[str], bar: Progress
) -> tuple[pd.DataFrame, dict[str, Any] | None]:
    """The answers, document after document, so that a budget that ends early leaves all hypotheses with equal shares."""
    places = [(h, d) for d in range(len(fresh.texts)) for h in range(len(claimed))]
    said, usage = ask(judge, [(claimed[h], fresh.texts[d]) for h, d in places], bar, notes)
    rows = []
    for answer in said:
        h, d = places[answer.number]
        side = int(fresh.side[d])
        rows.append((h, fresh.ids[d], side, fresh.group[d], int(fresh.unit[d]), answer.says, answer.why))
    columns = ["hypothesis", "document", "side", "group", "unit", "answer", "why"]
    return pd.DataFrame(rows, columns=columns), usage


def _table(
    claimed: list[Hypothesis], answers: pd.DataFrame, fresh: Fresh, names: tuple[str, str], judge: Judge
) -> pd.DataFrame:
    rows = []
    quality = judge.quality if isinstance(judge, LocalJudge) else {}
    for number, hypothesis in enumerate(claimed):
        said = answers[answers["hypothesis"] == number]
        row: dict[str, Any] = {
            "statement": hypothesis.statement,
            "group": names[hypothesis.side],
            "strength": hypothesis.strength,
            **_difference(said, fresh.paired, hypothesis.side),
            "nearest": _nearest(said, hypothesis.side),
            "features": list(hypothesis.features),
            "labels": list(hypothesis.labels),
            "quality": quality.get(hypothesis),
        }
        for side, letter in ((0, "a"), (1, "b")):
            counts = said.loc[said["side"] == side, "answer"].value_counts()
            yes, no = int(counts.get("yes", 0)), int(counts.get("no", 0))
            row[f"frequency_{letter}"] = yes / (yes + no) if yes + no else None
            row.update({f"yes_{letter}": yes, f"no_{letter}": no})
            row.update({f"{says}_{letter}": int(counts.get(says, 0)) for says in ("refused", "unparsable")})
        rows.append(row)
    table = pd.DataFrame(rows, columns=_COLUMNS)
    numbers = ["strength", "difference", "low", "high", "nearest", "quality", "frequency_a", "frequency_b"]
    return table.astype(dict.fromkeys(numbers, "float64"))


_COLUMNS = [
    *("statement", "group", "strength", "difference", "low", "high", "nearest", "features", "labels", "quality"),
    *(f"{name}_{letter}" for letter in "ab" for name in ("frequency", "yes", "no", "refused", "unparsable")),
]


def _difference(said: pd.DataFrame, paired: bool, side: int) -> dict[str, float | None]:
    """The share of yes on a side minus that on the other, with its interval; nothing where a side has no answer."""
    nothing = dict.fromkeys(("difference", "low", "high"))
    if paired:
        of = _by_pair(said)
        if not len(of):
            return nothing
        only_own, only_other = int((of[side] & ~of[1 - side]).sum()), int((of[1 - side] & ~of[side]).sum())
        low, high = paired_interval(np.array(only_own), np.array(only_other), len(of))
        return {"difference": (only_own - only_other) / len(of), "low": float(low), "high": float(high)}
    yes = [int(((said["side"] == s) & (said["answer"] == "yes")).sum()) for s in (side, 1 - side)]
    total = [int(((said["side"] == s) & said["answer"].isin(["yes", "no"])).sum()) for s in (side, 1 - side)]
    if 0 in total:
        return nothing
    low, high = difference_interval(np.array(yes[0]), total[0], np.array(yes[1]), total[1])
    return {"difference": yes[0] / total[0] - yes[1] / total[1], "low": float(low), "high": float(high)}


def _by_pair(said: pd.DataFrame) -> pd.DataFrame:
    """[pairs, 2] whether each side of a pair has a yes; pairs of which a side has no clear answer are left out.

    A side has a yes when any of its documents has one, and is clear when it has one or all of its documents have a no.
    """
    if said.empty:
        return pd.DataFrame(columns=[0, 1])
    marks = said["answer"].map({"yes": 1.0, "no": 0.0})
    grouped = marks.groupby([said["unit"], said["side"]])
    clear = (grouped.max() == 1) | (grouped.count() == grouped.size())
    sides = grouped.max().where(clear).unstack("side").reindex(columns=[0, 1]).dropna()
    return sides.astype(bool)


def _nearest(said: pd.DataFrame, side: int) -> float | None:
    """Highest share of yes in a single group of the other side, among groups of at least five answered documents."""
    other = said[(said["side"] != side) & said["answer"].isin(["yes", "no"])]
    shares = (other["answer"] == "yes").groupby(other["group"]).agg(["mean", "size"])
    shares = shares[shares["size"] >= SMALLEST]
    return float(shares["mean"].max()) if len(shares) else None


def _coverage(claimed: list[Hypothesis], answers: pd.DataFrame, fresh: Fresh, side: int, name: str) -> dict[str, Any]:
    """In how many documents of a side, and of the other, a hypothesis of that side holds."""
    mine = [number for number, hypothesis in enumerate(claimed) if hypothesis.side == side]
    said = answers[answers["hypothesis"].isin(mine) & answers["answer"].isin(["yes", "no"])]
    holds = (said["answer"] == "yes").groupby([said["side"], said["unit"]]).any()
    shares = holds.groupby("side").mean()
    only = None
    if fresh.paired and len(holds):
        both = holds.unstack("side").reindex(columns=[0, 1]).dropna().astype(bool)
        only = float((both[side] & ~both[1 - side]).mean()) if len(both) else None
    return {
        "group": name,
        "own": float(shares[side]) if side in shares else None,
        "other": float(shares[1 - side]) if 1 - side in shares else None,
        "only": only,
    }


def _remarks(
    table: pd.DataFrame, fresh: Fresh, endpoint: ChatEndpoint | None, options: VerifyOptions, number: int
) -> list[str]:
    """What a reader has to know before believing the table."""
    notes = []
    for says, what in (("refused", "were refused"), ("unparsable", "got an answer that nobody can read")):
        count = int(table[[f"{says}_a", f"{says}_b"]].sum().sum())
        if count:
            notes.append(f"{count:,} questions {what}; they count neither as yes nor as no.")
    weak = table.loc[table["quality"].notna() & ~(table["quality"] >= MIN_SCORE), "statement"]
    if len(weak):
        notes.append(
            f"The local judge cannot tell {len(weak)} of {number} hypotheses (balanced accuracy below {MIN_SCORE}) and declines them."
        )
    if endpoint is not None:
        long = sum(len(text) > READ_CHARACTERS for text in fresh.texts)
        if long:
            notes.append(f"Of {long:,} documents the judge saw the first {READ_CHARACTERS:,} characters only.")
        if options.writer in (None, endpoint.model) and number and table["strength"].notna().any():
            notes.append("One model wrote the hypotheses and judged them, which flatters: --writer names another.")
    return notes
