"""Explore a pile of texts: what is in it, how its groups differ, which texts have a property, what they fall into."""

from hourglass.uses.explore.cluster import ClusterOptions, Clusters
from hourglass.uses.explore.diff import Difference, DiffOptions
from hourglass.uses.explore.find import FindOptions, Found
from hourglass.uses.explore.workspace import Workspace

__all__ = ["ClusterOptions", "Clusters", "DiffOptions", "Difference", "FindOptions", "Found", "Workspace"]
