"""What Text2Token makes its targets of, words in the text and words beyond it, and what tells whether it learned them.

A target is a distribution over a few tokens: their ids, and shares that sum to 1.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import special_ids
from hourglass.adapters.pretrained import body
from hourglass.errors import FolderError, MissingExtra
from hourglass.metrics.alignment import Alignment, alignment
from hourglass.metrics.spectrum import Variation, effective_rank, mean_cosine, variation
from hourglass.storage.atomic import atomic_folder, read_json, write_json
from hourglass.storage.rows import DiskArray
from hourglass.uses.explore.labels import FUNCTION_WORDS
from hourglass.uses.probe.encoders import dense_vectors

Array = np.ndarray[Any, Any]
Weights = Literal["tfidf", "binary", "uniform"]
Background = Literal["none", "mean", "component", "unembedding-svd"]

_SPACES = ("Ġ", "▁")
_INSIDE = "##"
_TEXTS_AT_ONCE = 64
_TEXTS_IN_MEMORY = 2048
BACKGROUND_TEXTS = 10_000
"""Of so many texts at most, evenly spaced, is taken what all texts have in common."""


class Vocabulary:
    """What the `size` tokens of a vocabulary are; rows beyond the tokenizer's are nothing.

    content   [V] bool: neither special, nor without a letter, nor (`stop_words`) an English function word, nor (`word_starts`)
              inside of a word, where the vocabulary marks words by the space before them
    inside    [V] bool: marked by "##" as inside of a word
    variants  [V] int64: one number, the id of one of them, for tokens that differ by case or by that mark alone
    begins    [V] int64: the token with that mark where there is one, else itself
    """

    def __init__(self, tokenizer: Any, size: int, *, word_starts: bool, stop_words: bool) -> None:
        pieces = [piece or "" for piece in tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))]
        special = special_ids(tokenizer)
        marks = [piece[:1] in _SPACES and len(piece) > 1 for piece in pieces]
        word_starts = word_starts and any(mark for i, mark in enumerate(marks) if i not in special)
        self.content, self.inside = np.zeros(size, bool), np.zeros(size, bool)
        self.variants, self.begins = np.arange(size), np.arange(size)
        marked: dict[str, int] = {}
        groups: dict[str, int] = {}
        words = []
        for i, piece in enumerate(pieces):
            self.inside[i] = piece.startswith(_INSIDE)
            word = piece if self.inside[i] or i in special else tokenizer.convert_tokens_to_string([piece]).strip()
            words.append(word)
            if i in special:
                continue
            whole = word and "\ufffd" not in word  # no part of a letter's bytes
            self.variants[i] = groups.setdefault(word.casefold() if whole else f" {i}", i)
            if marks[i]:
                marked.setdefault(word, i)
            self.content[i] = (
                any(map(str.isalpha, word))
                and not (stop_words and word.casefold() in FUNCTION_WORDS)
                and (marks[i] or not word_starts)
            )
        for i, word in enumerate(words):
            if i not in special:
                self.begins[i] = marked.get(word, i)


# Targets ----------------------------------------------------------------------------------------------


class Example(NamedTuple):
    """A text with the target that was derived for it: ids [k] int32, shares [k] float16; a share of 0 is nothing."""

    text: str
    ids: Array
    shares: Array


def in_text(terms: Array, kept: Array, idf: Array, weights: Weights, temperature: float) -> tuple[Array, Array, Array]:
    """(rows, ids, shares) of the target of each text, flat: its distinct tokens that are kept.

    terms [n, L] ids; kept [n, L] bool; idf [V]

    The weight of a token is how often it is there x idf ("tfidf"), idf ("binary") or 1 ("uniform"), to the power of
    1 / temperature. One of weight 0 is no target.
    """
    size = len(idf)
    rows, places = np.nonzero(kept)
    keys, counts = np.unique(rows * size + terms[rows, places], return_counts=True)
    rows, ids = np.divmod(keys, size)
    made = np.ones(len(ids)) if weights == "uniform" else idf[ids] * (counts if weights == "tfidf" else 1)
    there = made > 0
    rows, ids, made = rows[there], ids[there], made[there] ** (1 / temperature)
    return rows, ids, _over_sum(rows, made)


def largest(rows: Array, ids: Array, shares: Array, most: int) -> tuple[Array, Array, Array]:
    """Of each row the `most` largest shares, scaled to sum to 1; of equal ones the smaller id."""
    order = np.lexsort((ids, -shares, rows))
    rows, ids, shares = rows[order], ids[order], shares[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    few = rank < most
    return rows[few], ids[few], _over_sum(rows[few], shares[few])


def mixed(first: tuple[Array, Array, Array], second: tuple[Array, Array, Array], mix: float) -> tuple[Array, ...]:
    """mix x first + (1 - mix) x second, each (rows, ids, shares); a row that only one has is that one's."""
    rows, ids, shares = (np.concatenate(pair) for pair in zip(first, second))
    weights = np.repeat([mix, 1 - mix], [len(first[0]), len(second[0])])
    keys, where = np.unique(np.stack([rows, ids]), axis=1, return_inverse=True)
    summed = np.bincount(where.ravel(), shares * weights, minlength=keys.shape[1])
    rows, ids, summed = keys[0][summed > 0], keys[1][summed > 0], summed[summed > 0]
    return rows, ids, _over_sum(rows, summed)


def padded(n: int, rows: Array, ids: Array, shares: Array) -> tuple[Tensor, Tensor]:
    """ids int64 and shares float32 [n, k], rows in rising order; k is the most that a row has, 1 at least."""
    counts = np.bincount(rows, minlength=n)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    k = max(1, int(counts.max(initial=0)))
    made, given = np.zeros((n, k), np.int64), np.zeros((n, k), np.float32)
    made[rows, places], given[rows, places] = ids, shares
    return torch.from_numpy(made), torch.from_numpy(given)


def flat(ids: Array, shares: Array) -> tuple[Array, Array, Array]:
    """(rows, ids, shares) of stored targets [n, k], scaled to sum to 1 again."""
    rows, places = np.nonzero(shares > 0)
    return rows, ids[rows, places].astype(np.int64), _over_sum(rows, shares[rows, places].astype(np.float64))


def _over_sum(rows: Array, weights: Array) -> Array:
    sums = np.bincount(rows, weights)
    return weights / sums[rows] if len(rows) else weights


# Words beyond the text --------------------------------------------------------------------------------


class Derived(Sequence[Example]):
    """Texts beside the targets in `folder`: ids.i32 and shares.f16 [N, k], targets.json with their digest."""

    def __init__(self, texts: Sequence[str], folder: Path) -> None:
        about = read_json(folder / "targets.json")
        if about["rows"] != len(texts):
            raise FolderError(f"{folder}: holds targets of {about['rows']:,} texts, now {len(texts):,}; remove it")
        self.digest: str = about["digest"]
        shape = about["rows"], about["k"]
        self._texts = texts
        self._ids = DiskArray(folder / "ids.i32", np.int32, shape)
        self._shares = DiskArray(folder / "shares.f16", np.float16, shape)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: Any) -> Any:
        rows = list(range(*index.indices(len(self)))) if isinstance(index, slice) else [int(index)]
        found = self.__getitems__(rows)
        return found if isinstance(index, slice) else found[0]

    def __getitems__(self, rows: list[int]) -> list[Example]:
        """Many examples with one access to each file."""
        ids, shares = self._ids[rows], self._shares[rows]
        return [Example(self._texts[row], *target) for row, target in zip(rows, zip(ids, shares))]


def keep_derived(
    texts: Sequence[str], folder: Path, targets: Iterator[tuple[Tensor, Tensor]], k: int, made_from: dict[str, Any]
) -> Derived:
    """Write (ids, shares) [m, k] of the texts, some at a time, into `folder`, which appears whole; one that is there is taken as it is.

    Raises FolderError for a folder with targets that were made of something else.
    """
    made_from = {**made_from, "k": k, "rows": len(texts)}
    if folder.exists():
        there = read_json(folder / "targets.json")
        if there["made_from"] != made_from:
            raise FolderError(f"{folder}: holds targets made with {there['made_from']}; choose another folder")
        return Derived(texts, folder)
    digest = hashlib.sha256()
    with atomic_folder(folder) as new:
        with (new / "ids.i32").open("wb") as of_ids, (new / "shares.f16").open("wb") as of_shares:
            for ids, shares in targets:
                for file, part in ((of_ids, ids.to(torch.int32)), (of_shares, shares.to(torch.float16))):
                    content = part.cpu().numpy().tobytes()
                    digest.update(content)
                    file.write(content)
        about = {"digest": digest.hexdigest(), "rows": len(texts), "k": k, "made_from": made_from}
        write_json(new / "targets.json", about)
    return Derived(texts, folder)


def take_away(model: Any, vectors: Tensor) -> Callable[[Tensor], Tensor]:
    """Vectors [n, d] to the logits [n, V] of a `Text2Token`, less what the texts of `vectors` [m, d] have in common.

    "mean" takes the mean logits away, "component" the part of a vector that lies along the first right singular vector;
    "unembedding-svd" lets the head see the `middle_of_spectrum` of its matrix alone, whatever the texts.
    """
    head, background = model.logits, model.config.background
    if background == "mean":
        parts = [head(part).sum(0) for part in vectors.split(256)]
        common = torch.stack(parts).sum(0) / len(vectors)
        return lambda given: head(given) - common
    if background == "component":
        first = _right_singular_vectors(vectors)[:, -1].to(vectors.dtype)
        return lambda given: head(given - (given @ first)[:, None] * first)
    if background == "unembedding-svd":
        matrix = model.network.get_output_embeddings()
        kept = middle_of_spectrum(matrix.weight, model.config.spectrum)

        def through_the_middle(given: Tensor) -> Tensor:
            # At the matrix and not at the vector: some heads have a layer before it.
            hook = matrix.register_forward_pre_hook(lambda _, rows: (rows[0] @ kept.T @ kept,))
            try:
                return head(given)
            finally:
                hook.remove()

        return through_the_middle
    return head


def middle_of_spectrum(matrix: Tensor, share: float = 0.5) -> Tensor:
    """[round(share * d), d] right singular vectors of a head's matrix [V, d] (get_output_embeddings().weight): those of the
    middle singular values, the largest first.

    EmbedFilter (Wu et al. 2026, arXiv 2606.07502): what all texts name lies along those of the largest and of the smallest. A
    decoder's vectors [n, d] without it are vectors @ middle.T, as many numbers shorter, at the same inner products as if the
    rest was set to 0.
    """
    width = matrix.shape[1]
    kept = max(1, round(share * width))
    first = (width - kept) // 2
    # eigh has the smallest first.
    found = _right_singular_vectors(matrix.detach()).flip(1)[:, first : first + kept].T
    return found.to(matrix.dtype).contiguous()


def _right_singular_vectors(rows: Tensor) -> Tensor:
    """[d, d] double, columns, that of the smallest singular value first, of rows [n, d]; of their d x d products, as n can be large."""
    width = rows.shape[1]
    squares = torch.zeros(width, width, dtype=torch.float64, device=rows.device)
    for part in rows.split(8192):
        squares += part.double().T @ part.double()
    found: Tensor = torch.linalg.eigh(squares).eigenvectors
    return found


@torch.no_grad()
def named(model: Any, texts: Sequence[str], k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(ids, shares) [m, k] of texts, some at a time, in their order: the tokens that a `Text2Token` names, less the background.

    Of several prompts the mean logits. Not the mean of probabilities: there a prompt that is sure of a word, which is then
    mostly one that it says of every text, counts for more than the others together. The background is taken away prompt by
    prompt, since each has its own; of the mean logits that is the same as from the mean of all.
    """
    if not len(texts):
        return
    prompts = model.config.prompts
    readers = [partial(model.prompted, prompt=prompt) for prompt in prompts] or [partial(dense_vectors, model)]
    device = model.network.device
    out = torch.from_numpy(~model.named()).to(device)
    some = [texts[i] for i in range(0, len(texts), -(-len(texts) // BACKGROUND_TEXTS))]
    heads = [take_away(model, torch.from_numpy(read(some)).to(device)) for read in readers]
    for start in range(0, len(texts), _TEXTS_IN_MEMORY):
        here = texts[start : start + _TEXTS_IN_MEMORY]
        vectors = [torch.from_numpy(read(here)).to(device).split(_TEXTS_AT_ONCE) for read in readers]
        for part in zip(*vectors):
            said = torch.stack([head(rows) for head, rows in zip(heads, part)]).mean(0)
            best = said.masked_fill(out, -torch.inf).topk(k, dim=1)
            yield best.indices, (best.values / model.config.tau).softmax(1)


# Reports ----------------------------------------------------------------------------------------------


def report(model: Any, texts: Sequence[str], k: int = 10) -> dict[str, float]:
    """Of the texts' vectors by a `Text2Token`: what `alignment` tells, and whether they have collapsed.

    "hit", "local", "across" of all tokens; "content_hit" and so on of those that can be targets; "mean_cosine" of two texts, near
    1 where all point one way; "effective_rank" of all vectors.
    """
    vectors = dense_vectors(model, texts)
    found = aligned(model, texts, vectors, k).to_dict()
    for name, value in aligned(model, texts, vectors, k, content=True).to_dict().items():
        found[f"content_{name}"] = value
    return {**found, "mean_cosine": mean_cosine(vectors), "effective_rank": effective_rank(vectors)}


@torch.no_grad()
def aligned(model: Any, texts: Sequence[str], vectors: Array, k: int = 10, *, content: bool = False) -> Alignment:
    """Whether the vectors [n, d] name the tokens of the texts, variants of a word as one.

    content  look only at what can be a target; otherwise at all tokens of a text but special ones
    """
    device = model.network.device
    variants = torch.from_numpy(model.words.variants).to(device)
    kept = model.kept() if content else np.ones(len(variants), bool)
    out = torch.from_numpy(~kept).to(device)

    def some() -> Iterator[tuple[Array, list[Array]]]:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            here = slice(start, start + _TEXTS_AT_ONCE)
            said = model.logits(torch.from_numpy(np.asarray(vectors[here], np.float32)).to(device))
            said = said.masked_fill(out, -torch.inf)
            scores = torch.full_like(said, -torch.inf)
            scores.scatter_reduce_(1, variants.expand_as(said), said, "amax")
            terms, real = model.terms(model.beginnings(texts[here]))
            real &= kept[terms]
            of_text = [np.unique(model.words.variants[row[there]]) for row, there in zip(terms, real)]
            yield scores.cpu().numpy(), of_text

    return alignment(some(), k)


@dataclass(frozen=True)
class SpectralReport:
    """Along which directions a trained model's vectors moved.

    variation  of the raw model's components, the largest first
    shifted    by how many times the first variation the raw vectors were moved along the first component, and their alignment
               then: if that is what was learned, it is better at 1 than at 0
    """

    variation: Variation
    shifted: dict[float, Alignment]


def spectral_report(
    raw: Any, trained: Any, texts: Sequence[str], times: Sequence[float] = (0, 0.25, 0.5, 1, 1.5, 2), k: int = 10
) -> SpectralReport:
    """Of the texts' vectors by two `Text2Token`s with one head, the second made of the first."""
    before = dense_vectors(raw, texts)
    found = variation(before, dense_vectors(trained, texts))
    step = found.variation[0] * found.components[0]
    return SpectralReport(found, {by: aligned(raw, texts, before + by * step, k) for by in times})


# Parts of a network -----------------------------------------------------------------------------------


def dropouts(network: nn.Module) -> list[tuple[nn.Module, str, float]]:
    """(module, attribute, rate) of whatever drops: modules, and attention, which has a number."""
    found = []
    for module in network.modules():
        name = "p" if isinstance(module, nn.Dropout) else "attention_dropout"
        if isinstance(getattr(module, name, None), float | int):
            found.append((module, name, float(getattr(module, name))))
    return found


def add_lora(network: Any, rank: int) -> None:
    """Beside each matrix of the body two of rank `rank`, scaled by 2, which alone learn; by peft, in place."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtra("lora", "lora") from None
    from transformers.pytorch_utils import Conv1D

    inside = {id(module) for module in body(network).modules()}
    found = {
        name: module
        for name, module in network.named_modules()
        if id(module) in inside and isinstance(module, nn.Linear | Conv1D)
    }
    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(found),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in found.values()),
    )
    inject_adapter_in_model(settings, network)


def merge_lora(network: Any) -> Any:
    """A copy with the matrices of LoRA added to those beside which they learned: a network as it was before."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    merged = copy.deepcopy(network)
    layers = [(name, module) for name, module in merged.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, module in layers:
        module.merge()
        parent, _, own = name.rpartition(".")
        setattr(merged.get_submodule(parent), own, module.get_base_layer())
    vars(merged).pop("peft_config", None)
    return merged
