"""Probe a representation: what can be found, told apart and put together by it, and from how little of it."""

from hourglass.uses.probe.clustering import Clustering, clustering
from hourglass.uses.probe.encoders import text_encoder
from hourglass.uses.probe.k_sparse import Probes, k_sparse_probes
from hourglass.uses.probe.lexical import BM25
from hourglass.uses.probe.linear import LinearProbe, linear_probe
from hourglass.uses.probe.retrieval import Retrieval, retrieval, search
from hourglass.uses.probe.self_retrieval import SelfRetrieval
from hourglass.uses.probe.similarity import TextSimilarity, text_similarity

__all__ = [
    "BM25",
    "Clustering",
    "LinearProbe",
    "Probes",
    "Retrieval",
    "SelfRetrieval",
    "TextSimilarity",
    "clustering",
    "k_sparse_probes",
    "linear_probe",
    "retrieval",
    "search",
    "text_encoder",
    "text_similarity",
]
