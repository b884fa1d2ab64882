"""Explore a pile of texts: what is in it, how its groups differ, what goes together or moves, which texts have a property,
what they fall into.
"""

from hourglass.uses.explore.cluster import ClusterOptions, Clusters
from hourglass.uses.explore.correlate import CorrelateOptions, Correlations
from hourglass.uses.explore.diff import Difference, DiffOptions
from hourglass.uses.explore.find import FindOptions, Found
from hourglass.uses.explore.trend import Trended, TrendOptions
from hourglass.uses.explore.workspace import Workspace

__all__ = [
    "ClusterOptions",
    "Clusters",
    "CorrelateOptions",
    "Correlations",
    "DiffOptions",
    "Difference",
    "FindOptions",
    "Found",
    "TrendOptions",
    "Trended",
    "Workspace",
]
