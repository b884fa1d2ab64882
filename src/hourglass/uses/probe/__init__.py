"""Probe a representation: how well labels are told from it, and from how little of it."""

from hourglass.uses.probe.k_sparse import Probes, k_sparse_probes

__all__ = ["Probes", "k_sparse_probes"]
