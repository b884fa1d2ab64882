"""The shards of a corpus as units of work for an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Part:
    """Documents of one shard.

    shard  its entry in the manifest
    start  documents before it
    rows   rows inside it, rising; None: all
    """

    shard: dict[str, Any]
    start: int
    rows: Array | None = None

    @property
    def positions(self) -> Array:
        """Of its documents in the workspace."""
        return self.start + (np.arange(self.shard["documents"]) if self.rows is None else self.rows)

    def __str__(self) -> str:
        return f"shard {self.shard['name']}"
