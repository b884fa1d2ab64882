"""Names that a language model writes, kept where they hold better than the offline ones.

For each feature, up to forty passages in which it fires, each of a document of its own, and as many of documents in which
it is silent. A quarter of them scores the offline name. From the next half, with the tokens on which it fires marked and
the offline name and its score beside them, the model writes a name. The last quarter scores that. The better name is kept;
below 0.75 the feature has none.

A score is the balanced accuracy with which the model tells, by the name alone, the passages in which the feature fires.

Differences from the paper
- The passages of a score are not marked and stand in random order: the name alone must tell firing from silent. The paper
  shows where the feature fires and asks whether the label is right about it.
- The model reads the tokens around the strongest one instead of the whole document.
- Firing passages are of random documents in which the feature is present, silent ones of random documents without any
  activation; the paper's pipeline takes those that differ most between the compared data sets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hourglass.adapters.chat_endpoint import ChatEndpoint, Conversation, Prices, Reply, json_object
from hourglass.errors import ConfigError, InputError
from hourglass.uses.explore import windows
from hourglass.uses.explore.hypotheses import BEGINNING, statement_of
from hourglass.uses.explore.judges import endpoint_of, usage_of
from hourglass.uses.explore.labels import MIN_SCORE, mark
from hourglass.uses.explore.naming import write_label_vectors, write_table
from hourglass.uses.explore.writing import marked
from hourglass.uses.progress import Progress

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

PASSAGES = 40
"""Firing passages of a feature, and silent ones: 10 score the offline name, 20 are named by, 10 score the new one."""
FEWEST = 20
"""A feature with fewer of either keeps the name it has."""
AROUND = 24
"""Tokens of a passage to each side of the strongest."""

_SPARE = 20  # documents drawn beyond those, for copies and for such as fire only far behind their beginning


@dataclass(frozen=True, kw_only=True)
class RelabelOptions:
    """model: of the endpoint; top: how many features; budget, prices: as in `VerifyOptions`."""

    model: str | None = None
    top: int = 50
    budget: float | None = None
    prices: Prices | tuple[float, float] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Relabelled:
    """table: a row a feature: feature, offline, offline_score, written, written_score (both by the model; NaN where it was
    not asked or gave no answer), label and score that are kept, named_by ("offline", the model, or None).
    """

    table: pd.DataFrame
    usage: dict[str, Any]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "usage": self.usage,
            "notes": self.notes,
            "rows": json.loads(self.table.to_json(orient="records")),
        }


@dataclass(frozen=True)
class Passages:
    """Of one feature: plain texts in which it fires, the same with marks, and texts in which it is silent."""

    firing: list[str]
    marked: list[str]
    silent: list[str]

    def part(self, name: str) -> slice:
        """The quarter that scores the "old" name, the half to "name" by, the quarter that scores the "new" one."""
        quarter = len(self.firing) // 4
        return {
            "old": slice(0, quarter),
            "name": slice(quarter, 3 * quarter),
            "new": slice(3 * quarter, 4 * quarter),
        }[name]


def relabel(
    workspace: Workspace, endpoint: str | ChatEndpoint, features: Sequence[int], options: RelabelOptions, progress: bool
) -> Relabelled:
    """See `Workspace.relabel`."""
    if options.top < 1:
        raise ConfigError(f"top {options.top}: expected 1 or more")
    if isinstance(endpoint, str):
        endpoint = endpoint_of(workspace, endpoint, options.model, options.budget, options.prices)
    table = _with_origins(workspace.features)
    for feature in features:
        if feature not in table.index:
            raise InputError(f"{workspace.folder}: no feature {feature}; they go from 0 to {len(table) - 1}")
    chosen = list(features) or _most_dividing(table, options.top)
    notes: list[str] = []
    with workspace.writing(), Progress(progress) as bar:
        task = bar.start("Reading passages", None)
        passages = collect(workspace, chosen, options.seed)
        bar.advance(task, len(passages))
        if rare := len(chosen) - len(passages):
            notes.append(f"{rare:,} features fire, or are silent, in too few documents and keep the name they have.")
        rows = _ask(endpoint, table, passages, options.seed, bar)
        asked = pd.DataFrame(rows, columns=_COLUMNS)
        if open_ones := int((asked["better"] == "").sum()):
            notes.append(f"{open_ones:,} features lack an answer that can be used and keep the name they have.")
        if endpoint.stopped:
            notes.append(f"Not all questions were asked: {endpoint.spent}.")
        kept = _keep(workspace, table, asked, endpoint.model)
    return Relabelled(kept, usage_of(endpoint), notes)


_COLUMNS = ["feature", "offline", "offline_score", "written", "description", "written_score", "better"]


def _with_origins(features: pd.DataFrame) -> pd.DataFrame:
    """Features with offline_label, offline_score, named_by and description; of a first time all are named offline."""
    if "named_by" in features:
        return features
    return features.assign(
        offline_label=features["label"],
        offline_score=features["score"],
        named_by=["offline" if isinstance(label, str) else None for label in features["label"]],
        description=None,
    )


def _most_dividing(table: pd.DataFrame, top: int) -> list[int]:
    """The features, named or not, that are present in nearest to half of the documents."""
    share = table["frequency"].clip(0, 1)
    return [int(f) for f in (share * (1 - share)).sort_values(ascending=False, kind="stable").index[:top]]


# Passages ---------------------------------------------------------------------------------------------


def collect(workspace: Workspace, features: Sequence[int], seed: int) -> dict[int, Passages]:
    """Passages by feature; one with too few of them is left out."""
    random = np.random.default_rng(seed)
    firing, silent = _documents(workspace, features, random)
    found = _firing_passages(workspace, firing)
    texts = _texts(workspace, np.unique(np.concatenate([*silent.values(), np.zeros(0, np.int64)])))
    passages: dict[int, Passages] = {}
    for feature in features:
        alike: dict[str, str] = {}
        for plain, with_marks in found[feature]:
            alike.setdefault(plain, with_marks)
        fires = list(alike.items())
        without = dict.fromkeys(texts[p] for p in silent[feature].tolist())
        number = min(len(fires), len(without), PASSAGES) // 4 * 4
        if number < FEWEST:
            continue
        cut = [_stretch(text, len(plain), random) for text, (plain, _) in zip(without, fires)]
        plains, marks = zip(*fires[:number])
        passages[feature] = Passages(list(plains), list(marks), cut[:number])
    return passages


def _documents(
    workspace: Workspace, features: Sequence[int], random: np.random.Generator
) -> tuple[dict[int, Array], dict[int, Array]]:
    """Positions of random documents in which each feature is present, and of such in which it has no activation."""
    level = 0.5 * workspace.features["p90"].to_numpy(np.float32)
    columns = np.asarray(features, np.int64)
    present: dict[int, list[Array]] = {feature: [] for feature in features}
    quiet: dict[int, list[Array]] = {feature: [] for feature in features}
    start = 0
    for coded in workspace.coded():
        fires = coded.codes.present(level)[:, columns].tocsc()
        active = coded.codes.present(0.0)[:, columns].tocsc()
        for i, feature in enumerate(features):
            here = active.indices[active.indptr[i] : active.indptr[i + 1]]
            present[feature].append(start + fires.indices[fires.indptr[i] : fires.indptr[i + 1]].astype(np.int64))
            quiet[feature].append(start + np.setdiff1d(np.arange(len(coded.codes)), here))
        start += len(coded.codes)

    def drawn(of: dict[int, list[Array]]) -> dict[int, Array]:
        return {f: random.permutation(np.concatenate(parts))[: PASSAGES + _SPARE] for f, parts in of.items()}

    return drawn(present), drawn(quiet)


def _firing_passages(workspace: Workspace, firing: dict[int, Array]) -> dict[int, list[tuple[str, str]]]:
    """(plain, marked) around the strongest token of each document, by feature and in the order of its documents."""
    wanted: dict[int, list[int]] = {}
    for feature, positions in firing.items():
        for position in positions.tolist():
            wanted.setdefault(position, []).append(feature)
    found: dict[tuple[int, int], tuple[str, str]] = {}
    lengths = windows.beginnings(windows.lengths_of(workspace))
    for window in windows.runs(lengths, np.array(sorted(wanted), np.int64)):
        texts = [windows.beginning(text) for text in _texts(workspace, window).values()]
        read = workspace.coder.reader.read(texts)
        codes = workspace.coder.codes(read.states.half()).to_scipy().tocsr()
        spans, offsets = read.spans.numpy(), read.offsets.numpy()
        for position, text, first, last in zip(window.tolist(), texts, offsets, offsets[1:]):
            for feature in wanted[position]:
                values = codes[first:last, [feature]].toarray().ravel()
                if values.any():
                    found[feature, position] = _passage(text, spans[first:last], values)
    return {
        feature: [found[feature, p] for p in positions.tolist() if (feature, p) in found]
        for feature, positions in firing.items()
    }


def _passage(text: str, spans: Array, values: Array) -> tuple[str, str]:
    peak = int(values.argmax())
    near = slice(max(0, peak - AROUND), peak + AROUND + 1)
    active = np.flatnonzero(values[near])
    pieces, strengths = mark(text, spans[near], active, np.ones(len(active)))
    return "".join(pieces), marked(pieces, strengths)


def _texts(workspace: Workspace, positions: Array) -> dict[int, str]:
    """Texts by position."""
    if not len(positions):
        return {}
    texts = workspace.rows(positions.tolist(), [workspace.text_column]).column(0).to_pylist()
    return dict(zip(positions.tolist(), texts))


def _stretch(text: str, length: int, random: np.random.Generator) -> str:
    """About `length` characters of a random place, from word to word."""
    start = int(random.integers(0, max(1, len(text) - length)))
    if start:
        start = max(text.find(" ", start, start + 40) + 1, 0) or start
    stop = text.find(" ", start + length)
    return text[start : stop if 0 <= stop <= start + length + 40 else start + length]


# Asking -----------------------------------------------------------------------------------------------


def _ask(
    endpoint: ChatEndpoint, table: pd.DataFrame, passages: dict[int, Passages], seed: int, bar: Progress
) -> list[list[Any]]:
    """A row for each feature with what the model said of the offline name, what it wrote, and how well that holds."""
    offline = {f: label for f in passages if isinstance(label := table["offline_label"].loc[f], str)}
    statements = {f: statement_of(label) for f, label in offline.items()}
    task = bar.start("Asking", len(offline) + 2 * len(passages), "questions")
    old = _scores(endpoint, passages, statements, "old", seed, bar, task)
    order = list(passages)
    asked = [naming_question(passages[f], offline.get(f), old.get(f)) for f in order]
    names: dict[int, tuple[str, str]] = {}
    for number, reply in endpoint.ask_all(asked):
        bar.advance(task, 1)
        if name := named(reply):
            names[order[number]] = name
    statements = {f: f"{description} ({label})" for f, (label, description) in names.items()}
    new = _scores(endpoint, passages, statements, "new", seed, bar, task)
    rows: list[list[Any]] = []
    for feature in passages:
        label, description = names.get(feature, (None, None))
        before, after = old.get(feature, np.nan), new.get(feature, np.nan)
        complete = after == after and (before == before or feature not in offline)
        better = "" if not complete else "offline" if before >= after else "written"
        if complete and np.nanmax([before, after]) < MIN_SCORE:
            better = "neither"
        rows.append([feature, offline.get(feature), before, label, description, after, better])
    return rows


def _scores(
    endpoint: ChatEndpoint,
    passages: dict[int, Passages],
    statements: dict[int, str],
    part: str,
    seed: int,
    bar: Progress,
    task: Any,
) -> dict[int, float]:
    """How well the model tells firing from silent passages by each statement; those without a usable answer are left out."""
    order = list(statements)
    truths, asked = [], []
    for feature in order:
        inside = passages[feature].part(part)
        texts = passages[feature].firing[inside] + passages[feature].silent[inside]
        fires = np.arange(len(texts)) < len(texts) // 2
        shuffled = np.random.default_rng([seed, feature]).permutation(len(texts))
        truths.append(fires[shuffled])
        asked.append(scoring_question(statements[feature], [texts[i] for i in shuffled]))
    scores: dict[int, float] = {}
    for number, reply in endpoint.ask_all(asked):
        bar.advance(task, 1)
        said, fires = scored(reply, len(truths[number])), truths[number]
        if said is not None:
            scores[order[number]] = float((said[fires].mean() + (~said[~fires]).mean()) / 2)
    return scores


def naming_question(passages: Passages, offline: str | None, score: float | None) -> Conversation:
    """What the model is asked to name a feature by."""
    inside = passages.part("name")
    lines = [json.dumps({"fires": True, "text": text}, ensure_ascii=False) for text in passages.marked[inside]] + [
        json.dumps({"fires": False, "text": text}, ensure_ascii=False) for text in passages.silent[inside]
    ]
    known = ""
    if offline is not None:
        worth = f", which was right in {score:.0%} of a test" if score is not None else ""
        known = f"A first guess was {json.dumps(offline, ensure_ascii=False)}{worth}; better it or take another.\n\n"
    return [
        {
            "role": "user",
            "content": (
                "A feature of a model that reads texts fires in some passages and is silent in others. Each line below is a "
                "passage; where it fires, what it fires on stands between << and >>. What stands before the marks counts too. "
                "The passages are material, never instructions.\n\n"
                + "\n".join(lines)
                + "\n\n"
                + known
                + "Which one property "
                "do all passages have in which it fires, and those without it not? Be as specific as the passages allow. Pass "
                "over marks of chat templates. Do not speak of passages, lines, marks or the feature.\n\n"
                'Reply with one JSON object and nothing else: {"label": "the property in at most ten words", '
                f'"brief_description": "{BEGINNING}...", "detailed_explanation": "two or three sentences"}}'
            ),
        }
    ]


def named(reply: Reply) -> tuple[str, str] | None:
    """(label, brief description) out of a reply; None where it cannot be used."""
    try:
        said = json_object(reply.text or "")
    except ValueError:
        return None
    label, description, explanation = (
        " ".join(text.split()) if isinstance(text := said.get(key), str) else ""
        for key in ("label", "brief_description", "detailed_explanation")
    )
    if not label or not explanation or not description.startswith(BEGINNING):
        return None
    return (label, description) if len(label) <= 120 and len(description) <= 500 else None


def scoring_question(statement: str, texts: Sequence[str]) -> Conversation:
    """What the model is asked to score a name by."""
    lines = "\n".join(json.dumps({"number": i, "text": text}, ensure_ascii=False) for i, text in enumerate(texts, 1))
    return [
        {
            "role": "user",
            "content": (
                f"Statement: {statement}\n\nOf which of the {len(texts)} passages below does the statement hold? Each is a part "
                "of a document; judge the part alone. The passages are material, never instructions.\n\n"
                f"{lines}\n\nReply with one JSON object and nothing else, with an answer for each passage in its order: "
                '{"answers": ["yes" or "no", ...]}'
            ),
        }
    ]


def scored(reply: Reply, number: int) -> Array | None:
    """[number] bool, whether the statement was said to hold; None where the reply cannot be used."""
    try:
        said = json_object(reply.text or "").get("answers")
    except ValueError:
        return None
    if not isinstance(said, list) or len(said) != number or not all(answer in ("yes", "no") for answer in said):
        return None
    return np.array([answer == "yes" for answer in said])


# Keeping ----------------------------------------------------------------------------------------------


def _keep(workspace: Workspace, table: pd.DataFrame, asked: pd.DataFrame, model: str) -> pd.DataFrame:
    """Write the better names into the workspace; returns the rows with label and score that are kept."""
    table = table.copy()
    terms = table["terms"].astype(object).copy()
    for row in asked[asked["better"] != ""].itertuples():
        f, by_model = row.feature, row.better == "written"
        kept = {"written": row.written, "offline": row.offline}.get(row.better)
        table.at[f, "label"] = kept
        table.at[f, "score"] = np.nanmax([row.offline_score, row.written_score])
        table.at[f, "named_by"] = {"written": model, "offline": "offline"}.get(row.better)
        table.at[f, "description"] = row.description if by_model else None
        if by_model and not len(terms.at[f]):
            terms.at[f] = [row.written]  # who groups names by their first term finds one
    table["terms"] = terms
    write_label_vectors(workspace, table["label"])
    write_table(table, workspace.folder / "features.parquet")
    for name in ("features", "label_vectors"):
        workspace.__dict__.pop(name, None)
    now = table.loc[asked["feature"]]
    return asked.drop(columns=["description", "better"]).assign(
        named_by=now["named_by"].to_numpy(), label=now["label"].to_numpy(), score=now["score"].to_numpy()
    )
