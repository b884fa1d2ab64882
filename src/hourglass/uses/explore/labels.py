"""Names for features, made offline and tested.

For each feature, contexts in which it fires are set against matched contexts in which it is silent, and three kinds
of name are tried in turn, the plainest first:
1. words: the word fired on, a phrase around it, telling words nearby. The silent contexts are half from other
   documents, a quarter from the same documents, a quarter on the very words that it fires on elsewhere.
2. a topic: words anywhere in the document, against documents of like length in which it is silent.
3. a shape or place: "a number", "the first word".
Terms are chosen on one half of the documents. On the other half the name is scored: the balanced accuracy of "the
name holds here" as a guess that the feature fires. The first kind that scores well enough names the feature; a
feature without one stays unnamed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.uses.explore.words import pattern_of_lines

Array = np.ndarray[Any, Any]

MIN_SCORE = 0.75
"""The paper drops a label below this held-out score."""
CONTEXTS = 80
"""Most firing contexts looked at for one feature, each from a document of its own."""
FEWEST = 10
"""A feature that fires in fewer documents of the sample is not named."""
WINDOW = 6
"""Words to each side that count as nearby."""
TERMS = 4
"""Most terms in a name."""
EXAMPLES = 6
"""Marked contexts kept for each feature."""
STRONG = 0.5
"""A firing context is one whose activation passes this share of the feature's 90th percentile."""

_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_SHAPES = ("a number", "a CAPITAL word", "a Capitalised word", "a code_name", "punctuation")
_PLACES = ("the first word", "a line's first word")
_ENDING = re.compile(r"-\w+")
TOPIC_TERMS = 24
"""Words of a topic; the name shows the first TERMS of them."""
TOPIC_DOCUMENTS = 240
"""Most documents in which a feature fires that are looked at for its topic: weak signals need more of them."""
SHAPE_SCORE = 0.85
"""A shape says little about a text, so it must be nearly sure to be worth telling."""
TELLING = 0.25
"""A word in more than this share of the documents tells nothing by being nearby."""

_LOOKED_AT = 1000
_GAIN = 0.03  # balanced accuracy that a further term must add, and one of form alone more than another

# Some of the list's words are about something: a bill, a fire, what is empty, whoever says please.
_ABOUT = frozenset(
    [
        "amount",
        "bill",
        "bottom",
        "call",
        "cry",
        "describe",
        "detail",
        "empty",
        "fill",
        "find",
        "fire",
        "found",
        "front",
        "full",
        "interest",
        "mill",
        "move",
        "name",
        "part",
        "please",
        "serious",
        "show",
        "side",
        "sincere",
        "system",
        "thick",
        "thin",
        "top",
    ]
)
FUNCTION_WORDS = ENGLISH_STOP_WORDS - _ABOUT | {"did", "does", "doing", "having"}
"""Words that say nothing of what a text is about."""
_NOT = frozenset(["cannot", "never", "no", "not", "without"])  # "not work" is no "work"


@dataclass(frozen=True)
class TokenSample:
    """Some documents, token by token.

    texts    n texts
    ids      [n] document ids
    offsets  [n + 1] token rows of each text
    spans    [T, 2] characters of each token in its text
    codes    sparse codes of the T tokens
    """

    texts: Sequence[str]
    ids: Sequence[str]
    offsets: Array
    spans: Array
    codes: SparseCodes


def name_features(sample: TokenSample, p90: Array, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Label, score and examples for every feature.

    `p90` [width] is the 90th percentile of each feature's non-zero document maxima. Returns two tables: one row
    a feature (label or None, score or NaN, terms, contexts) and one row an example (feature, rank, document,
    value, pieces, strengths).
    """
    if wide := _is_wide(sample):
        sample = _parted(sample)
    words = _Words(sample)
    by_feature = _ByFeature(sample.codes)
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(words.token_word))
    names: list[_Name] = []
    examples: list[dict[str, Any]] = []
    for feature in range(sample.codes.width):
        tokens, values = by_feature.of(feature)
        strong = values >= STRONG * p90[feature]
        firing, strength = _one_per_document(tokens[strong], values[strong], words.token_document)
        examples += _examples(sample, words, feature, firing, strength, p90[feature], by_feature)
        if len(firing) < FEWEST:
            names.append(_Name([], np.nan, len(firing)))
            continue
        fired_in = words.token_document[firing]
        names.append(
            _by_topic(words, fired_in, random) if wide else _best(words, firing, tokens, shuffled, fired_in, random)
        )
    table = pd.DataFrame([(n.label, n.score, n.terms, n.contexts, n.common) for n in names], columns=_COLUMNS)
    table.index.name = "feature"
    columns = ["feature", "rank", "document", "value", "pieces", "strengths"]
    return table, pd.DataFrame(examples, columns=columns)


def _best(
    words: _Words, firing: Array, active: Array, shuffled: Array, fired_in: Array, random: np.random.Generator
) -> _Name:
    """The first that holds of a name by words, by topic and by shape; where none does, what came nearest."""
    picked = firing[random.permutation(len(firing))[:CONTEXTS]]
    split = _Split(words, picked, _silent(picked, active, words, shuffled, random))
    tried = [_by_words(words, split, len(firing))]
    if tried[-1].label is None:
        tried.append(_by_topic(words, fired_in, random))
    if tried[-1].label is None:
        tried.append(_by_shape(words, split, len(firing)))
    return tried[-1] if tried[-1].label else max(tried, key=lambda n: n.score if n.score == n.score else -1)


def _is_wide(sample: TokenSample) -> bool:
    """Whether what fires stands for several words together, as the latents of a sentence do: the word it ends with is then not
    what it fires on."""
    owner = np.repeat(np.arange(len(sample.texts)), np.diff(sample.offsets))
    some = np.linspace(0, len(owner) - 1, min(len(owner), _LOOKED_AT)).astype(int)
    spaced = [len(sample.texts[owner[i]][slice(*sample.spans[i])].split()) > 1 for i in some]
    return bool(np.mean(spaced) > 0.5) if spaced else False


def _parted(sample: TokenSample) -> TokenSample:
    """The same with every stretch of a text that has states of its own as a text."""
    owner = np.repeat(np.arange(len(sample.texts)), np.diff(sample.offsets))
    keys = np.column_stack([owner, sample.spans])
    first = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(1)))
    texts = [sample.texts[d][start:end] for d, start, end in keys[first]]
    lengths = np.array([len(text) for text in texts])
    offsets = np.append(first, len(keys))
    whole = np.column_stack([np.zeros_like(lengths), lengths]).repeat(np.diff(offsets), axis=0)
    return TokenSample(texts, [sample.ids[d] for d in owner[first]], offsets, whole, sample.codes)


_COLUMNS = ["label", "score", "terms", "contexts", "common"]


@dataclass(frozen=True)
class _Name:
    """Terms, what they scored on the half that did not choose them, and how common they are in the documents."""

    terms: list[str]
    score: float
    contexts: int
    common: float = 0.0
    kind: str = ""
    enough: float = MIN_SCORE

    @property
    def label(self) -> str | None:
        if not self.terms or not self.score >= self.enough:
            return None
        return self.kind + ", ".join(map(quoted, self.terms[:TERMS]))


class _ByFeature:
    """The tokens on which each feature fires: the codes, transposed."""

    def __init__(self, codes: SparseCodes) -> None:
        csc = codes.to_scipy().tocsc()
        self._starts, self._tokens, self._values = csc.indptr, csc.indices, csc.data

    def of(self, feature: int) -> tuple[Array, Array]:
        here = slice(self._starts[feature], self._starts[feature + 1])
        return self._tokens[here], self._values[here]


class _Words:
    """The sample as words, and for each word the terms that a name could hold.

    A term is an integer: its kind times a base, plus a word or a pair of words.
    """

    def __init__(self, sample: TokenSample) -> None:
        number: dict[str, int] = {}
        ids, starts, documents, shapes, places, suffixes = [], [], [], [], [], []
        base = np.zeros(len(sample.texts) + 1, np.int64)
        for d, text in enumerate(sample.texts):
            base[d + 1] = base[d] + len(text) + 1
            for i, match in enumerate(_WORD.finditer(text)):
                word = match.group()
                lower = word.lower()
                ids.append(number.setdefault(lower, len(number)))
                starts.append(base[d] + match.start())
                documents.append(d)
                shapes.append(_shape(word))
                line_start = match.start() > 0 and text[match.start() - 1] == "\n"
                places.append(0 if i == 0 else 1 if line_start else -1)
                suffixes.append(
                    number.setdefault(lower[-3:], len(number)) if len(lower) > 5 and lower.isalpha() else -1
                )
        self.vocabulary = list(number)
        self.ids = np.array(ids, np.int64)
        self.document = np.array(documents, np.int64)
        self.size = len(number) + 1
        lengths = np.diff(sample.offsets)
        self.token_document = np.repeat(np.arange(len(sample.texts)), lengths)
        # The last character decides: a token of a causal model often begins with the space before the word.
        last = base[self.token_document] + np.maximum(sample.spans[:, 1] - 1, 0)
        found = np.searchsorted(np.array(starts, np.int64), last, side="right") - 1
        self.token_word = np.clip(found, 0, max(len(ids) - 1, 0))
        self.lengths = np.bincount(self.document, minlength=len(sample.texts))
        pairs = np.unique(self.document * self.size + self.ids)
        holders = np.bincount(pairs % self.size, minlength=self.size)
        self._share = holders / max(len(sample.texts), 1)
        self._letters = np.array([w[:1].isalpha() and len(w) > 1 for w in self.vocabulary] + [False])
        # Many words that say nothing are together as telling of a long document as a topic's own words are of it.
        says = np.array([w not in FUNCTION_WORDS for w in self.vocabulary] + [False])
        self._tells = self._letters & (self._share <= TELLING) & says
        self.telling = np.flatnonzero(self._tells & (holders >= 3))
        column = np.full(self.size, -1)
        column[self.telling] = np.arange(len(self.telling))
        pairs = pairs[column[pairs % self.size] >= 0]
        self.in_document = csr_matrix(
            (np.ones(len(pairs), np.float32), (pairs // self.size, column[pairs % self.size])),
            shape=(len(sample.texts), len(self.telling)),
        )
        by_word = self.ids[self.token_word] if ids else np.zeros(len(self.token_word), np.int64)
        self._order = np.argsort(by_word, kind="stable")
        self._ordered_ids = by_word[self._order]
        self._columns = (
            np.stack([np.array(c, np.int64) for c in (shapes, places, suffixes)], 1)
            if ids
            else np.zeros((0, 3), np.int64)
        )

    def lexical(self, tokens: Array) -> Array:
        """[len(tokens), c] the word fired on, phrases around it and telling words nearby; -1 where there is none."""
        word = self.token_word[tokens]
        near = word[:, None] + np.arange(-WINDOW, WINDOW + 1)
        inside = (near >= 0) & (near < len(self.ids))
        near = np.where(inside, near, 0)
        inside &= self.document[near] == self.document[word][:, None]
        ids = np.where(inside, self.ids[near], -1)
        here = ids[:, WINDOW]
        before, after = ids[:, WINDOW - 1], ids[:, WINDOW + 1]
        kind = self.size * self.size
        phrases = [
            np.where(before >= 0, kind + before * self.size + here, -1),
            np.where(after >= 0, kind + here * self.size + after, -1),
        ]
        nearby = np.delete(ids, WINDOW, axis=1)
        nearby = np.where((nearby >= 0) & self._tells[nearby], 2 * kind + nearby, -1)
        return np.column_stack([here, *phrases, nearby])

    def shapes(self, tokens: Array) -> Array:
        """[len(tokens), 3] shape, place and ending of the word fired on; -1 where it has none worth telling."""
        columns = self._columns[self.token_word[tokens]]
        return np.where(columns >= 0, (3 + np.arange(3)) * self.size * self.size + columns, -1)

    def share(self, term: int) -> float:
        """Share of the documents that have the term's (rarer) word; 1 for a shape or a sign."""
        kind, rest = divmod(int(term), self.size * self.size)
        words = list(divmod(rest, self.size)) if kind == 1 else [rest]
        if kind >= 3 or not any(self._letters[words]):
            return 1.0
        return float(self._share[words].min())

    def tokens_of(self, words: Array) -> Array:
        """All tokens of the words with these ids."""
        starts = np.searchsorted(self._ordered_ids, words)
        stops = np.searchsorted(self._ordered_ids, words, side="right")
        return np.concatenate([self._order[a:b] for a, b in zip(starts, stops, strict=True)])

    def readable(self, term: int) -> str:
        kind, rest = divmod(int(term), self.size * self.size)
        if kind == 0:
            return self.vocabulary[rest]
        if kind == 1:
            first, second = divmod(rest, self.size)
            return f"{self.vocabulary[first]} {self.vocabulary[second]}"
        if kind == 2:
            return f"near “{self.vocabulary[rest]}”"
        return (_SHAPES[rest] if kind == 3 else _PLACES[rest]) if kind < 5 else f"-{self.vocabulary[rest]}"


def _shape(word: str) -> int:
    if any(c.isdigit() for c in word):
        return 0
    if len(word) > 1 and word.isupper():
        return 1
    if "_" in word or (word[1:] != word[1:].lower() and word.isalpha()):
        return 3
    if word[0].isupper():
        return 2
    return 4 if not word[0].isalnum() else -1


def _one_per_document(tokens: Array, values: Array, document: Array) -> tuple[Array, Array]:
    """The strongest token of each document, strongest document first."""
    order = np.argsort(-values, kind="stable")
    _, first = np.unique(document[tokens[order]], return_index=True)
    keep = order[np.sort(first)]
    return tokens[keep], values[keep]


def _silent(firing: Array, active: Array, words: _Words, shuffled: Array, random: np.random.Generator) -> Array:
    """Tokens on which the feature is silent, two for each firing one, matched as the module says."""
    number = len(firing)
    pool = random.integers(0, len(shuffled), 24 * number)
    candidates = shuffled[pool]
    candidates = candidates[~_among(candidates, active)]
    active_documents = np.unique(words.token_document[active])
    elsewhere = candidates[~_among(words.token_document[candidates], active_documents)][:number]
    if len(elsewhere) < number:  # a feature that fires in nearly every document
        elsewhere = candidates[:number]
    firsts = np.searchsorted(words.token_document, words.token_document[firing])
    lasts = np.searchsorted(words.token_document, words.token_document[firing], side="right")
    same_document = firsts + (random.random((4, number)) * (lasts - firsts)).astype(np.int64)
    same_document = same_document[~_among(same_document, active)][: number // 2]
    fired_words = np.unique(words.ids[words.token_word[firing]])
    same_word = words.tokens_of(fired_words)
    same_word = same_word[~_among(same_word, active)]
    same_word = same_word[random.permutation(len(same_word))][: number // 2]
    return np.concatenate([elsewhere, same_document, same_word])


def _among(values: Array, ordered: Array) -> Array:
    """Mask of `values` that occur in the sorted array `ordered`."""
    if not len(ordered):
        return np.zeros(values.shape, bool)
    where = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[where] == values)


class _Split:
    """Firing and silent contexts in two halves by document: what is learnt from a document is not scored on it."""

    def __init__(self, words: _Words, firing: Array, silent: Array) -> None:
        self.learn_firing, self.score_firing = firing[0::2], firing[1::2]
        learning = np.unique(words.token_document[self.learn_firing])
        scoring = np.unique(words.token_document[self.score_firing])
        document = words.token_document[silent]
        to_learn = _among(document, learning) | (~_among(document, scoring) & (document % 2 == 0))
        self.learn_silent, self.score_silent = silent[to_learn], silent[~to_learn]

    @property
    def enough(self) -> bool:
        return min(len(self.learn_silent), len(self.score_silent)) >= FEWEST // 2


def _by_words(words: _Words, split: _Split, contexts: int) -> _Name:
    return _by_any_of(words, split, words.lexical, contexts)


def _by_shape(words: _Words, split: _Split, contexts: int) -> _Name:
    return replace(_by_any_of(words, split, words.shapes, contexts), enough=SHAPE_SCORE)


def _by_any_of(words: _Words, split: _Split, terms_of: Callable[[Array], Array], contexts: int) -> _Name:
    """The few terms of which firing contexts have at least one and silent contexts none, added greedily."""
    if not split.enough:
        return _Name([], np.nan, contexts)
    fire, quiet = terms_of(split.learn_firing), terms_of(split.learn_silent)
    candidates, counts = np.unique(fire[fire >= 0], return_counts=True)
    candidates = candidates[np.argsort(-counts, kind="stable")[:64]]
    if not len(candidates):
        return _Name([], np.nan, contexts)
    in_fire, in_quiet = _holds(fire, candidates), _holds(quiet, candidates)
    dull = np.array([0 if clarity([words.readable(term)]) == CLEAR else _GAIN for term in candidates])
    chosen: list[int] = []
    hit, false = np.zeros(len(fire), bool), np.zeros(len(quiet), bool)
    best = 0.5
    for _ in range(TERMS):
        accuracy = 0.5 + ((hit[:, None] | in_fire).mean(0) - (false[:, None] | in_quiet).mean(0)) / 2
        pick = int(np.argmax(accuracy - dull))
        if accuracy[pick] < best + _GAIN:
            break
        chosen.append(pick)
        hit, false, best = hit | in_fire[:, pick], false | in_quiet[:, pick], accuracy[pick]
    if not chosen:
        return _Name([], 0.5, contexts)
    terms = candidates[chosen]
    right = _holds(terms_of(split.score_firing), terms).any(1).mean()
    wrong = _holds(terms_of(split.score_silent), terms).any(1).mean()
    common = float(np.mean([words.share(t) for t in terms]))
    # A name holds where any of its terms does, so their order is free: what is about something comes first.
    readable = sorted(map(words.readable, terms), key=lambda term: -clarity([term]))
    return _Name(readable, float(0.5 + (right - wrong) / 2), contexts, common)


def _by_topic(words: _Words, fired_in: Array, random: np.random.Generator) -> _Name:
    """Words whose presence in a document tells whether the feature fires there: "at least so many of the words"."""
    contexts = len(fired_in)
    firing = random.permutation(fired_in)[:TOPIC_DOCUMENTS]
    silent = np.setdiff1d(np.arange(words.in_document.shape[0]), fired_in)
    if len(silent) < 2 * FEWEST:
        return _Name([], np.nan, contexts)
    silent = _of_like_length(firing, silent, words.lengths, random)
    halves = [(firing[h::2], silent[h::2]) for h in (0, 1)]
    fire, quiet = (words.in_document[rows] for rows in halves[0])
    in_fire, in_quiet = np.asarray(fire.mean(0)).ravel(), np.asarray(quiet.mean(0)).ravel()
    # A word must separate (the gap) and be telling (the ratio): "however" separates reports from lists.
    worth = (in_fire - in_quiet) * np.log((in_fire + 0.05) / (in_quiet + 0.05))
    chosen = np.argsort(-worth, kind="stable")[:TOPIC_TERMS]
    chosen = chosen[in_fire[chosen] - in_quiet[chosen] > 0.1]
    if not len(chosen):
        return _Name([], 0.5, contexts)
    (learn_fire, learn_quiet), (score_fire, score_quiet) = (
        [np.asarray(words.in_document[rows][:, chosen].sum(1)).ravel() for rows in half] for half in halves
    )
    needed = max(range(1, 7), key=lambda n: float((learn_fire >= n).mean() - (learn_quiet >= n).mean()))
    score = 0.5 + ((score_fire >= needed).mean() - (score_quiet >= needed).mean()) / 2
    terms = [words.vocabulary[words.telling[c]] for c in chosen]
    return _Name(terms, float(score), contexts, 0.0, "topic: ")


def _of_like_length(firing: Array, silent: Array, lengths: Array, random: np.random.Generator) -> Array:
    """For each firing document a silent one among the sixteen nearest in length."""
    ordered = silent[np.argsort(lengths[silent], kind="stable")]
    at = np.searchsorted(lengths[ordered], lengths[firing]) + random.integers(-8, 8, len(firing))
    return ordered[np.clip(at, 0, len(ordered) - 1)]


def _holds(contexts: Array, terms: Array) -> Array:
    """[contexts, terms] whether each context has each term."""
    return np.asarray((contexts[:, :, None] == terms).any(1))


def _examples(
    sample: TokenSample, words: _Words, feature: int, firing: Array, strength: Array, p90: float, by_feature: _ByFeature
) -> list[dict[str, Any]]:
    """Marked contexts: half the strongest, half spread over the rest, so that the name is not judged by extremes."""
    top = list(range(min(len(firing), EXAMPLES // 2)))
    rest = np.linspace(len(top), len(firing) - 1, EXAMPLES - len(top)).astype(int) if len(firing) > len(top) else top
    tokens, values = by_feature.of(feature)
    rows = []
    for rank, i in enumerate(dict.fromkeys([*top, *map(int, rest)])):
        d = words.token_document[firing[i]]
        first, last = max(firing[i] - 24, sample.offsets[d]), min(firing[i] + 25, sample.offsets[d + 1])
        here = slice(*np.searchsorted(tokens, [first, last]))
        pieces, strengths = mark(
            sample.texts[d], sample.spans[first:last], tokens[here] - first, values[here] / max(p90, 1e-6)
        )
        rows.append(
            {
                "feature": feature,
                "rank": rank,
                "document": sample.ids[d],
                "value": float(strength[i]),
                "pieces": pieces,
                "strengths": strengths,
            }
        )
    return rows


def says_form(terms: Sequence[str]) -> bool:
    """Whether a name tells form alone: shapes, places, endings, punctuation, numbers and words such as "the"."""
    return all(_is_form(term) for term in terms)


def content_words(terms: Sequence[str]) -> set[str]:
    """The words of a name that are about something."""
    return {word for term in terms if not _is_form(term) for word in _words_of(term) if not _is_function_word(word)}


def said_words(terms: Sequence[str]) -> set[str]:
    """The words of a name that are about something; of a name that tells form alone, all."""
    return content_words(terms) or {word for term in terms for word in _words_of(term)}


def parts_of(term: str) -> set[str]:
    """A term and, where it is a phrase, its words."""
    return {term} if _is_shape(term) or term.startswith("near “") else {term, *term.split()}


FORM, CLEAR = 1, 3


def clarity(terms: Sequence[str]) -> int:
    """How much a reader has of a name: 0 none, 1 (FORM) form alone, 2 its first term begins or ends with such, 3 (CLEAR) neither."""
    if not len(terms) or says_form(terms):
        return min(len(terms), 1)
    return CLEAR if not _is_form(terms[0]) and trimmed(terms[0]) == terms[0] else 2


def says_nothing(terms: Sequence[str]) -> bool:
    """Whether a name is made of words such as "the", stops and commas alone: no other sign, number or shape to look for."""
    words = [word for term in terms if not _is_shape(term) for word in _words_of(term)]
    return all(word in FUNCTION_WORDS or word in (".", ",") for word in words) and not any(map(_is_shape, terms))


def trimmed(term: str) -> str:
    """A phrase without signs and words such as "the" at its ends: "and thanks" is "thanks"; of nothing else it stays."""
    words = term.split()
    if len(words) < 2 or _is_form(term) or term.startswith("near “"):
        return term
    keep = [i for i, word in enumerate(words) if word in _NOT or _says(word)]
    return " ".join(words[keep[0] : keep[-1] + 1])


def quoted(term: str) -> str:
    """A term as it stands in a name: one that begins or ends with a sign is set apart, so that the sign is seen."""
    if _is_shape(term) or term.startswith("near “") or (term[0].isalnum() and term[-1].isalnum()):
        return term
    return f"“{term}”"


def _is_form(term: str) -> bool:
    return _is_shape(term) or all(map(_is_function_word, _words_of(term)))


def _is_shape(term: str) -> bool:
    return term in (*_SHAPES, *_PLACES) or bool(_ENDING.fullmatch(term)) or pattern_of_lines(term) is not None


def bare(term: str) -> str:
    """A term without the mark that it need only be nearby."""
    return term.removeprefix("near “").removesuffix("”")


def _words_of(term: str) -> list[str]:
    return bare(term).split()


def _is_function_word(word: str) -> bool:
    return word in FUNCTION_WORDS or not any(c.isalpha() for c in word)


def _says(word: str) -> bool:
    """Whether a word may end a phrase: a number may, as in "windows 10"."""
    return word not in FUNCTION_WORDS and any(c.isalnum() for c in word)


def mark(text: str, spans: Array, active: Array, strength: Array) -> tuple[list[str], list[float]]:
    """Cut a stretch of `text` (given by its tokens' `spans` [t, 2]) into pieces, each with a strength from 0 to 1.

    `active` are the positions among the tokens that fire, `strength` how strongly.
    """
    pieces: list[str] = []
    strengths: list[float] = []
    at = int(spans[0, 0])
    for position, value in zip(active, strength, strict=True):
        start, end = int(spans[position, 0]), int(spans[position, 1])
        much = round(min(1.0, float(value)), 2)
        if pieces and end <= at:  # of the same characters as the one before: bytes of one, or latents of a sentence
            strengths[-1] = max(strengths[-1], much)
            continue
        if start > at:
            pieces.append(text[at:start])
            strengths.append(0.0)
        pieces.append(text[max(at, start) : end])
        strengths.append(much)
        at = end
    if at < spans[-1, 1]:
        pieces.append(text[at : int(spans[-1, 1])])
        strengths.append(0.0)
    return pieces, strengths
