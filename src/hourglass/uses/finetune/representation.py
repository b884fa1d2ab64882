"""What a text is to a retriever: a vector, weights of the vocabulary's tokens, or both.

    score = <W h_q, W h_d> + scale x sum over the tokens that the document keeps of (its weight in q x its weight in d)

as in DupMAE (Xiao and Liu 2022, arXiv 2211.08769): W brings the vector to d' numbers, of a document's weights the k largest are
kept, a query's are read where the document has some. The authors did not publish this part. The scale between the two, which is
learned and begins with 1, is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from hourglass.errors import ConfigError
from hourglass.uses.probe.retrieval import keep_best

Array = np.ndarray[Any, Any]

REPRESENTATIONS = ("dense", "lexical", "both")
_QUERIES_AT_ONCE = 64


class Parts(NamedTuple):
    """Of n texts; a part that there is not has no columns.

    dense    [n, d']
    lexical  [n, V]
    """

    dense: Tensor
    lexical: Tensor


class Representation(nn.Module):
    """States to parts, and what parts of queries and documents are to each other.

    unit  the vector is of length 1
    """

    def __init__(self, representation: str, width: int, reduced: int | None, unit: bool) -> None:
        super().__init__()
        self.has_dense, self.has_lexical, self.unit = representation != "lexical", representation != "dense", unit
        self.linear = nn.Linear(width, reduced, bias=False) if self.has_dense and reduced is not None else None
        self.log_scale = nn.Parameter(torch.zeros(())) if representation == "both" else None

    def forward(self, pooled: Callable[[], Tensor], weights: Callable[[], Tensor]) -> Parts:
        """Of what pools states [n, d] and what weighs tokens [n, V], each asked only where it is a part."""
        if not self.has_dense:
            lexical = weights()
            return Parts(lexical[:, :0], lexical)
        dense = pooled() if self.linear is None else self.linear(pooled())
        dense = nn.functional.normalize(dense, dim=-1) if self.unit else dense
        return Parts(dense, weights() if self.has_lexical else dense[:, :0])

    @property
    def scale(self) -> Tensor | float:
        """Of the lexical part beside the dense one."""
        return 1.0 if self.log_scale is None else self.log_scale.exp()

    def scores(self, queries: Parts, documents: Parts) -> Tensor:
        """[queries, documents] in float32, also where autocast is on: sums over a vocabulary need all their digits."""
        with torch.autocast(queries.dense.device.type, enabled=False):
            dense, lexical = (a.float() @ b.float().T for a, b in zip(queries, documents))
            return dense + self.scale * lexical


@dataclass(frozen=True)
class JointRows:
    """Texts as they are kept for a search; queries carry the scale, so that a score is the sum of two inner products.

    dense    [n, d'] float32
    lexical  [n, V] float32, rows of SciPy
    """

    dense: Array
    lexical: sparse.csr_matrix

    def __len__(self) -> int:
        return len(self.dense)

    def stacked(self) -> Any:
        """Both parts side by side, for whatever takes one matrix: [n, d'] dense, or [n, d' + V] rows of SciPy."""
        if self.lexical.shape[1] == 0:
            return self.dense
        return sparse.hstack([sparse.csr_matrix(self.dense), self.lexical], "csr")

    def bytes_per_text(self) -> dict[str, float]:
        """What a text takes on the mean: "dense" numbers, lexical "values" (4 bytes each), their "ids" (4 bytes each), "total"."""
        stored = self.lexical.nnz / max(1, len(self))
        found = {"dense": 4.0 * self.dense.shape[1], "values": 4.0 * stored, "ids": 4.0 * stored}
        return {**found, "total": sum(found.values())}

    def search(self, documents: JointRows, depth: int = 100) -> tuple[Array, Array]:
        """(rows [n, depth] of the best documents, their scores), best first, of equal ones the first row first; exact, and
        no index is made: for up to some 200,000 documents. With fewer documents than `depth`, all of them."""
        for name, ours, theirs in (
            ("dense", self.dense, documents.dense),
            ("lexical", self.lexical, documents.lexical),
        ):
            if ours.shape[1] != theirs.shape[1]:
                raise ConfigError(
                    f"{name}: queries have {ours.shape[1]} columns, documents {theirs.shape[1]}; expected as many"
                )
        best = []
        nothing = np.empty(0, np.int64), np.empty(0, np.float32)
        transposed = documents.lexical.T.tocsr()
        for first in range(0, len(self), _QUERIES_AT_ONCE):
            part = slice(first, first + _QUERIES_AT_ONCE)
            scores = self.dense[part] @ documents.dense.T + (self.lexical[part] @ transposed).toarray()
            best += [keep_best(nothing, row, 0, depth) for row in scores]
        depth = min(depth, len(documents))
        rows, scores = (np.array([found[i] for found in best]).reshape(len(self), depth) for i in range(2))
        return rows.astype(np.int64), scores
