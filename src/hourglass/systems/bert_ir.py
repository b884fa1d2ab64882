"""Utilizing BERT for Information Retrieval: Survey, Applications, Resources, and Challenges (Wang, Huang et al., 2024).

In: a search index, and models where there are some. Out: the survey's six categories as pipelines that run on it, each of them a
text that `hourglass search --pipeline` takes too.

    made = pipelines(index, cross="folder/of/a/cross-encoder")
    hg.evaluate(index, queries, qrels, pipelines=["bm25", *made]).table()     # hourglass evaluate ... --survey

How it works: a survey has no network of its own. Each of its methods is a stage (`hourglass.uses.search`), and a pipeline names
the stages one after another:
    long documents            passages scored one by one and folded (FirstP, MaxP, SumP, AvgP ...), or read together (PARADE)
    semantics                 vectors, a cross-encoder, words and vectors fused
    efficiency                cascades from cheap to dear, codes before vectors, late interaction, distillation (`uses.finetune.distillation`)
    term weights              a model's weights of words in place of counts: DeepCT, DeepImpact, uniCOIL, SPLADE
    query expansion           RM3, CEQE, Rocchio's feedback by vectors, ColBERT-PRF's by vectors of tokens, BERT-QE
    document expansion        doc2query writes into the corpus before it is indexed (`uses.search.document_expansion.expand`): the
                              pipelines are the same over that index

Differences from the paper:
- The survey compares figures of the papers that it cites; here all run over one index, with the same measure and cost.
- What needs a model is left out where none is given: no name of a model is chosen for the user.
- Depths (20 to 1,000) are small enough for a processor; each is a number in the text of a pipeline and can be changed there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hourglass.errors import ConfigError
from hourglass.uses.search.index import SearchIndex

Category = Literal["long documents", "semantics", "efficiency", "term weights", "query expansion"]
"""Document expansion is done before an index is made."""
Part = Literal["vectors", "weights", "codes", "tokens", "cross", "parade"]
"""What an index has, or a model that is given."""


@dataclass(frozen=True)
class Recipe:
    """A pipeline in which `{cross}` and `{parade}` stand for models, and what it needs."""

    category: Category
    pipeline: str
    needs: frozenset[Part] = frozenset()


def _recipe(category: Category, pipeline: str, *needs: Part) -> Recipe:
    return Recipe(category, pipeline, frozenset(needs))


RECIPES = (
    _recipe("long documents", "bm25 % 20 >> passages(aggregate=first)", "vectors"),
    _recipe("long documents", "bm25 % 20 >> passages(aggregate=max)", "vectors"),
    _recipe("long documents", "bm25 % 20 >> passages(aggregate=sum)", "vectors"),
    _recipe("long documents", "bm25 % 20 >> passages(aggregate=mean)", "vectors"),
    _recipe("long documents", "bm25 % 50 >> passages({cross}, aggregate=max)", "cross"),
    _recipe("long documents", "bm25 % 50 >> parade({parade})", "parade"),
    _recipe("semantics", "dense", "vectors"),
    _recipe("semantics", "bm25 | dense >> rrf", "vectors"),
    _recipe("semantics", "bm25 | dense >> mix(1, 1)", "vectors"),
    _recipe("semantics", "bm25 % 50 >> cross({cross})", "cross"),
    _recipe("efficiency", "bm25 % 200 >> dense", "vectors"),
    _recipe("efficiency", "hamming % 1000 >> dense", "codes"),
    _recipe("efficiency", "late", "tokens"),
    _recipe("efficiency", "bm25 % 200 >> late", "tokens"),
    _recipe("efficiency", "bm25 % 200 >> dense % 20 >> cross({cross})", "vectors", "cross"),
    _recipe("term weights", "impacts", "weights"),
    _recipe("term weights", "bm25 | impacts >> rrf", "weights"),
    _recipe("query expansion", "bm25 >> rm3 >> bm25"),
    _recipe("query expansion", "bm25 >> ceqe >> bm25"),
    _recipe("query expansion", "dense >> rocchio >> dense", "vectors"),
    _recipe("query expansion", "late >> colbert_prf >> late", "tokens"),
    _recipe("query expansion", "bm25 % 50 >> bert_qe({cross})", "cross"),
)


def pipelines(index: SearchIndex, *, cross: str | None = None, parade: str | None = None) -> dict[str, Category]:
    """The pipelines that the index has the parts for, with the category of each; `bm25` is what they are compared with.

    cross   a folder of a cross-encoder of sentence-transformers, or a Hub id; parade: a folder of a trained `Parade`

    Raises ConfigError for a name of a model that no pipeline could hold.
    """
    models = {"cross": cross, "parade": parade}
    quoted = {name: _quoted(model) for name, model in models.items() if model is not None}
    there = {name for name, has in _parts(index).items() if has} | quoted.keys()
    return {recipe.pipeline.format(**quoted): recipe.category for recipe in RECIPES if recipe.needs <= there}


def _parts(index: SearchIndex) -> dict[Part, bool]:
    return {
        "vectors": index.answers_vectors,
        "weights": index.manifest["sparse"] is not None,
        "tokens": index.has_tokens,
        "codes": index.answers_vectors and index.manifest["code"] is not None,
    }


def _quoted(model: str) -> str:
    if '"' in model:
        raise ConfigError(f"{model}: a pipeline cannot name a model with a double quote; rename it")
    return f'"{model}"'
