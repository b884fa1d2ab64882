"""Texts that a model wrote, all together: are they like real ones, different among each other, and not copied?

No number stands alone. A low perplexity can be had by writing one good sentence again and again, so give diversity with it, and
memorisation, which copying drives up. ROUGE, for texts that are wanted word by word, is in `metrics.rouge`.

Words are runs of letters and digits, and single signs, in lower case.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from hourglass.errors import MissingExtra, SourceError
from hourglass.metrics.estimates import Estimate, of_seeds
from hourglass.metrics.references import Wanted, references

Array = np.ndarray[Any, Any]
Gram = tuple[str, ...]

_WORD = re.compile(r"\w+|[^\w\s]")
_BEGIN, _END = "<begin>", "<end>"


def words(text: str) -> list[str]:
    """What is counted of a text."""
    return _WORD.findall(text.lower())


def ngrams(text: str, n: int) -> Iterator[Gram]:
    """Runs of n words."""
    found = words(text)
    return zip(*(found[i:] for i in range(n)))


def diversity(texts: Sequence[str]) -> float:
    """Product over n = 2, 3, 4 of the share of different n-grams among all of the set, from 0 to 1.

    It falls with the number of texts: compare sets of one size. 0 where no text has four words.
    """
    product = 1.0
    for n in (2, 3, 4):
        counts = Counter(gram for text in texts for gram in ngrams(text, n))
        product *= len(counts) / counts.total() if counts else 0.0
    return product


def memorisation(texts: Sequence[str], learned: Iterable[str], n: int = 4) -> float:
    """Share of the n-grams of the texts that a text learned from has; 0 where there is none to look for."""
    known = {gram for text in learned for gram in ngrams(text, n)}
    found = [gram in known for text in texts for gram in ngrams(text, n)]
    return sum(found) / len(found) if found else 0.0


class WittenBell:
    """An n-gram model of words, smoothed by Witten and Bell (1991): fitted at once, the same on every machine.

    p(w | h) = (count(h w) + kinds(h) p(w | shorter h)) / (count(h) + kinds(h)), kinds(h) the number of different words after h.
    Below single words all known ones and "unknown" are alike.

    Raises SourceError for no words at all.
    """

    def __init__(self, texts: Iterable[str], order: int = 4) -> None:
        self.order = order
        self._counts: Counter[Gram] = Counter()
        self._after: Counter[Gram] = Counter()
        self._kinds: Counter[Gram] = Counter()
        self._known: set[str] = {_END}
        for text in texts:
            found = words(text)
            self._known.update(found)
            row = self._padded(found)
            for end in range(order - 1, len(row)):
                for length in range(order):
                    gram = tuple(row[end - length : end + 1])
                    self._kinds[gram[:-1]] += gram not in self._counts
                    self._counts[gram] += 1
                    self._after[gram[:-1]] += 1
        if len(self._known) < 2:
            raise SourceError("no word in the texts: expected some to fit an n-gram model to")

    def _padded(self, found: list[str]) -> list[str]:
        return [*[_BEGIN] * (self.order - 1), *found, _END]

    def probability(self, word: str, before: Sequence[str]) -> float:
        """Of a word after those before it, of which the last `order` - 1 count."""
        p = 1 / (len(self._known) + 1)
        if word not in self._known:
            word = ""  # stands for all of them
        history = tuple(before)[max(0, len(before) - self.order + 1) :]
        for length in range(len(history) + 1):
            context = history[len(history) - length :]
            if not (kinds := self._kinds[context]):
                break
            p = (self._counts[(*context, word)] + kinds * p) / (self._after[context] + kinds)
        return p

    def perplexities(self, texts: Sequence[str]) -> Array:
        """[n] of a word of each text, its end counted as one."""
        made = []
        for text in texts:
            row = self._padded(words(text))
            logs = [
                math.log(self.probability(row[i], row[i - self.order + 1 : i])) for i in range(self.order - 1, len(row))
            ]
            made.append(math.exp(-sum(logs) / len(logs)))
        return np.array(made)


def model_perplexities(texts: Sequence[str], model: str) -> Array:
    """[n] of a token of each text, by a causal language model ("gpt2", a folder) that reads a begin token first. NaN for a text
    without tokens. A text longer than the model is cut to its beginning."""
    import torch

    from hourglass.adapters.pretrained import load_network

    tokenizer, network = load_network(model, "causal")
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    longest = getattr(network.config, "max_position_embeddings", None) or 2**20
    made = []
    network.eval()
    with torch.no_grad():
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"][: longest - 1]
            whole = torch.tensor([[first, *ids]])
            loss = network(input_ids=whole, labels=whole).loss if ids else torch.tensor(math.nan)
            made.append(float(loss.exp()))
    return np.array(made)


def trimmed_mean(values: Array, share: float = 0.05) -> float:
    """Mean without the lowest and the highest `share` of the values, as perplexities of generated texts are reported."""
    ordered = np.sort(np.asarray(values, float))
    cut = int(share * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def mauve(written: Array, real: Array, seeds: Sequence[int] = (0, 1, 2)) -> Estimate:
    """How alike two sets of texts are, by vectors of them [n, d], [m, d] (Pillutla et al. 2021): from 0 to 1; 1: the same.

    Its clusters are drawn, hence the mean over several seeds; below some 500 texts a side it is noise. Needs the extra
    `generation`.
    """
    try:
        import mauve as package
    except ImportError:
        raise MissingExtra("mauve", "generation") from None
    values = [
        float(package.compute_mauve(p_features=np.asarray(written), q_features=np.asarray(real), seed=seed).mauve)
        for seed in seeds
    ]
    return of_seeds(values)


def bleu(wanted: Wanted, written: Sequence[str]) -> float:
    """BLEU-4 of a whole set, from 0 to 1, as sacrebleu has it, against one text each or several. Needs the extra `generation`.

    Raises SourceError for lists of different lengths, or empty ones.
    """
    several = references(wanted, written)
    try:
        import sacrebleu
    except ImportError:
        raise MissingExtra("bleu", "generation") from None
    most = max(map(len, several))
    streams: Any = [[own[k] if k < len(own) else None for own in several] for k in range(most)]
    return float(sacrebleu.corpus_bleu(list(written), streams, force=True).score) / 100
