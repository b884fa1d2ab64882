"""Weights of terms that a model learns, for an index of words or of learned weights.

    DeepCT      how often queries of a document name its term; takes the place of the term frequency in BM25
    by_passages the same of long documents, passage by passage (HDCT)
    DeepImpact  what a term adds to the score of a document, however often it is there
    Coil        a number for each token (uniCOIL), or a vector (COIL), compared where query and document share the token

All but COIL give {term: weight} for each text; `explain` says which terms carried a document, `quantised` makes a byte
of a weight. SPLADE is the lexical part of `hourglass.uses.finetune.Retriever`. Wang et al. 2024 (arXiv 2403.00784),
section on term weights.
"""

from hourglass.uses.search.term_weights.coil import Coil, CoilConfig
from hourglass.uses.search.term_weights.deepct import DeepCT, DeepCTConfig, Recalled, recalled
from hourglass.uses.search.term_weights.deepimpact import DeepImpact, DeepImpactConfig, Impacted, impacted
from hourglass.uses.search.term_weights.long_documents import by_passages, folded
from hourglass.uses.search.term_weights.rows import (
    Carried,
    Quantised,
    Spans,
    Terms,
    as_matrix,
    bm25_weights,
    explain,
    frequencies,
    quantised,
    word_spans,
)

__all__ = [
    "Carried",
    "Coil",
    "CoilConfig",
    "DeepCT",
    "DeepCTConfig",
    "DeepImpact",
    "DeepImpactConfig",
    "Impacted",
    "Quantised",
    "Recalled",
    "Spans",
    "Terms",
    "as_matrix",
    "bm25_weights",
    "by_passages",
    "explain",
    "folded",
    "frequencies",
    "impacted",
    "quantised",
    "recalled",
    "word_spans",
]
