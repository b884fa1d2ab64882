"""Whether `correlate` finds pairs that were injected as the paper injects them: ten documents of a thousand.

    hourglass claim explore_injected                 # docstrings of the installed packages
    hourglass claim explore_injected --data DIR      # sentences of an encyclopedia, and other kinds of text

Everything below up to `measure` was written before anything was measured, but that more documents are injected, too: twenty-five
after ten were measured and fifty after twenty-five were, each before it was. A first measurement of fifty (232 of 240 found)
showed that a hundred rows of what is predicted were all of the strongest pairs; `correlate` made findings of them then, with a
threshold chosen on a seed that is not measured here, and everything was measured again. Of the shuffled corpora 19 of 180 showed
something then, most of 25 and 50 documents, which no part counted: the tail by which p is told was replaced (trials on the same
other seed), parts were written for these, and everything was measured once more: 12 of 180, and of ten documents 196 of 240 pairs
found. Then tails were fitted to more draws and copies bounded, `correlate` learned to tell documents that are alike in both texts,
all on that other seed, and everything was measured a third time: 219 of 240. Of the 21 missed 20 had pupils' essays, names of pictures or
film reviews on a side, and so had most of those missed on that seed: the mean states in the middle of the model hold them apart, as was
found there, and everything was measured a fourth time: 239. Then signs were counted beside words, for `diff`, and everything was
measured a fifth time: 239. Then groups of documents were predicted, too, for `explore_correlate`, and those are alike that share their
nearest; looked at on that other seed, draws were made cheaper, and everything was measured a sixth time. Then the shape of what shuffling
gives was drawn for some items instead of all (what it hangs on was looked at in shuffles of four pairs of texts, one of them a planting that
is measured here, without regard to what was planted), and everything was measured a seventh time. That seed draws other pairs of kinds and other documents, but of the same texts: how near documents are measured was chosen on these texts, if not on these plantings. The paper injects four correlations into a corpus, ten
documents of a thousand each, and finds all four in every shuffle; a language model that reads the same texts finds them in few.

A document has two fields, as a training set has prompts and responses. In the background both are sentences of an encyclopedia,
drawn apart. A planting draws eight kinds of text: a document that is injected has a text of one kind in its left field and one
of another in its right; no other document has either. There are four such pairs of kinds, each in 10 of 1,000 documents, once
more each in 25, the share that `explore_correlate` joins, and once, with pairs drawn anew of the kinds that are large enough, each
in 50: how many documents it takes until all are found. A
null has the same texts, one field's shuffled. Each field is explored once, with three times as many sentences and the kinds among them, as
the paper's features are learned on other texts than it looks at; a planting is drawn from one half of its texts.

`correlate` reads all documents at once (split=False: a half would see five of a pair) and takes what is in half a percent of them
(min_frequency=0.005: what tells seven of ten documents is in 0.7 %). All else are its defaults. What is found, and what is true or false, is decided
as in `explore_correlate`: on texts that are in no planting, by exact tests.

Baselines see the same documents and take what is as rare: words or word pairs, and topics of latent Dirichlet allocation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from claims.base import Claim, Row
from claims.shared.docstrings import PROPERTIES, docstrings
from claims.shared.labelled import kinds_of_text, sentences
from claims.shared.planted_pairs import FALSE_DISCOVERY, Array, Field, Outcome, outcome

PAPER = "interpretable-embeddings"
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
PLANTINGS = {"smoke": 1, "laptop": 20, "full": 20}
DOCUMENTS = {"smoke": 100, "laptop": 1000, "full": 1000}
INJECTED, MORE, MOST, PAIRS = 10, 25, 50, {"smoke": 1, "laptop": 4, "full": 4}
BACKGROUND, OF_A_KIND = {"smoke": 240, "laptop": 3000, "full": 3000}, 120
"""Texts of a field that is explored: of the background, and of each kind at most."""
LONGEST = {"smoke": 200}
"""Characters of a docstring; a test has little time to read."""
OPTIONS = {"split": False, "min_frequency": 0.005}
FOUND = 0.95
TOPICS = {"smoke": 10, "laptop": 50, "full": 50}

_claim = partial(
    Claim,
    paper=PAPER,
    data="two sentences (squad_questions) a document, in 40 of 1,000 texts of other kinds instead",
    split="plantings and true pairs from two halves of each field's texts",
    direction="higher is better",
    margin=0.0,
)
SHARE = "share of the four injected pairs that is found; mean over plantings"
NOTHING = "- 1 where there is a pair, anything is predicted or alike in both, else 0; mean over nulls"


def _of(part: str, injected: int) -> dict[str, Claim]:
    """What is claimed where more documents of a pair are injected."""
    return {
        f"found_of_{part}": _claim(
            statement=f"correlate finds every pair at q < 0.05 of which {injected} documents are injected: the share found is above 0.95.",
            metric=SHARE,
            baseline=f"the constant {FOUND}",
        ),
        f"false_of_{part}": _claim(
            statement=f"Of what correlate calls together at q < 0.05 where {injected} documents of a pair are injected, no more than 5 % is false.",
            metric="- false share of it, 0 without any; mean over plantings",
            baseline=f"the constant -{FALSE_DISCOVERY}",
        ),
        f"nothing_of_{part}": _claim(
            statement=f"Where one field is shuffled, with {injected} documents of each kind, correlate calls anything together in no more than 5 % of corpora.",
            metric=NOTHING,
            baseline=f"the constant -{FALSE_DISCOVERY}",
        ),
    }


CLAIMS = {
    "found": _claim(
        statement="correlate finds every injected pair at q < 0.05: the share found is above 0.95.",
        metric=SHARE,
        baseline=f"the constant {FOUND}",
    ),
    "found_by_pairs": _claim(
        statement="correlate finds every injected pair at q < 0.05 by pairs: the share found is above 0.95.",
        metric=SHARE + "; what all of a field predicts and what is alike in both are not looked at",
        baseline=f"the constant {FOUND}",
    ),
    "false_discoveries": _claim(
        statement="Of what correlate calls together at q < 0.05, pairs, what is predicted and what is alike in both, no more than 5 % is false.",
        metric="- false share of it, 0 without any; mean over plantings",
        baseline=f"the constant -{FALSE_DISCOVERY}",
    ),
    "false_on_nothing": _claim(
        statement="Where one field is shuffled, correlate calls anything together at q < 0.05 in no more than 5 % of corpora.",
        metric=NOTHING,
        baseline=f"the constant -{FALSE_DISCOVERY}",
    ),
    **_of("more", MORE),
    **_of("most", MOST),
    "against_topics": _claim(
        statement="correlate finds more of the injected pairs than pairs of topics do.",
        metric=SHARE,
        baseline="pairs of topics of latent Dirichlet allocation",
    ),
    "against_words": _claim(
        statement="correlate finds more of the injected pairs than pairs of words do.",
        metric=SHARE,
        baseline="pairs of words by NPMI",
    ),
}


def measure(data: Path | None, seeds: Sequence[int], budget: str) -> list[Row]:
    """Rows of every part."""
    with tempfile.TemporaryDirectory() as folder:
        fields = [
            Field.of(*field, TOPICS[budget], Path(folder) / f"field{i}") for i, field in enumerate(_texts(data, budget))
        ]
        return [
            row
            for seed in seeds
            for number in range(PLANTINGS[budget])
            for row in _planting(fields, seed, number, budget, Path(folder) / f"{seed}_{number}")
        ]


def _texts(data: Path | None, budget: str) -> Iterator[tuple[list[str], Array]]:
    """Texts of the left field and of the right, none in both, and the kind of each, "" in the background."""
    if data is not None:
        common, kinds = sentences(data)["text"], kinds_of_text(data)
    else:
        # Of several rules the one that fewest docstrings obey is the kind; what obeys none is the background.
        texts = docstrings(20 * BACKGROUND[budget], LONGEST.get(budget))
        obeyed = {name: np.array([bool(rule(text)) for text in texts]) for name, rule in PROPERTIES.items()}
        kind = np.full(len(texts), "", object)
        for name in sorted(obeyed, key=lambda name: -obeyed[name].sum()):
            kind[obeyed[name]] = name
        table = pd.DataFrame({"text": texts, "kind": kind}).drop_duplicates("text")
        common, kinds = table[table["kind"] == ""]["text"], table[table["kind"] != ""]
    number = BACKGROUND[budget]
    for side in range(2):
        own = [common[side::2][:number], *(part["text"][side::2][:OF_A_KIND] for _, part in kinds.groupby("kind"))]
        names = ["", *(name for name, _ in kinds.groupby("kind"))]
        yield [text for part in own for text in part], np.repeat(np.array(names, object), [len(part) for part in own])


def _planting(fields: Sequence[Field], seed: int, number: int, budget: str, folder: Path) -> Iterator[Row]:
    def pairs(random: np.random.Generator, injected: int) -> list[list[str]]:
        return random.permutation(_plantable(fields, injected))[: 2 * PAIRS[budget]].reshape(-1, 2).tolist()

    def seen(random: np.random.Generator, planted: list[list[str]], injected: int) -> tuple[Outcome, dict[str, Any]]:
        rows = [
            _rows(field, [pair[side] for pair in planted], injected, DOCUMENTS[budget], random)
            for side, field in enumerate(fields)
        ]
        shuffled = random.permutation(rows[1])
        found = outcome(fields, planted, rows, shuffled, folder / str(injected), seed=seed, **OPTIONS)
        told = [[field.told(kind) for field, kind in zip(fields, pair)] for pair in planted]
        return found, {"planted": planted, "told": told, **found.detail()}

    random = np.random.default_rng([seed, number, 1])  # not the stream that halves the documents
    planted = pairs(random, MORE)
    (of_ten, detail), more = seen(random, planted, INJECTED), seen(random, planted, MORE)
    random = np.random.default_rng([seed, number, 2])
    most = seen(random, pairs(random, MOST), MOST)
    found = {part: float(own.mean()) for part, own in of_ten.found.items()}
    row = partial(Row, unit=f"planting {seed}_{number}", seed=seed)
    yield row(part="found", ours=found["ours"], baseline=FOUND, detail=detail)
    yield row(part="found_by_pairs", ours=found["pairs"], baseline=FOUND)
    yield row(part="false_discoveries", ours=-of_ten.false["ours"], baseline=-FALSE_DISCOVERY)
    yield row(part="false_on_nothing", ours=-float(any(of_ten.nothing.values())), baseline=-FALSE_DISCOVERY)
    for part, (own, detail) in {"more": more, "most": most}.items():
        yield row(part=f"found_of_{part}", ours=float(own.found["ours"].mean()), baseline=FOUND, detail=detail)
        yield row(part=f"false_of_{part}", ours=-own.false["ours"], baseline=-FALSE_DISCOVERY)
        yield row(part=f"nothing_of_{part}", ours=-float(any(own.nothing.values())), baseline=-FALSE_DISCOVERY)
    yield row(part="against_topics", ours=found["ours"], baseline=found["topics"])
    yield row(part="against_words", ours=found["ours"], baseline=found["words"])


def _plantable(fields: Sequence[Field], injected: int) -> list[str]:
    """The kinds of which either field has enough to inject, and some to judge by."""
    counts = [
        (pd.Series(field.kinds[half]).value_counts(), least)
        for field in fields
        for half, least in ((field.drawn, injected), (~field.drawn, MORE))
    ]
    enough = set.intersection(*(set(count.index[count >= least]) for count, least in counts))
    return sorted(enough - {""})


def _rows(field: Field, kinds: Sequence[str], injected: int, documents: int, random: np.random.Generator) -> Array:
    """Texts of one field: those of each kind in turn, then the background in random order."""
    of_kinds = [random.permutation(np.flatnonzero(field.drawn & (field.kinds == kind)))[:injected] for kind in kinds]
    others = random.permutation(np.flatnonzero(field.drawn & (field.kinds == "")))
    return np.concatenate([*of_kinds, others[: documents - injected * len(kinds)]])
