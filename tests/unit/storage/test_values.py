"""Values against types, and what a config says of one that does not fit."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from hourglass.bottlenecks.sparse.sae import SparseAutoencoderConfig
from hourglass.errors import ConfigError
from hourglass.storage.values import fits


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int),
        (np.int64(3), int),
        (3, float),
        (0.5, float),
        (None, int | None),
        (True, bool),
        ("mlm", Literal["mlm", "dupmae"]),
        ("other", Literal["mlm", "dupmae"]),
        ([1, 2], tuple[int, ...]),
        ({}, dict[str, Any]),
        ([], Any),
    ],
)
def test_what_fits(value, hint):
    assert fits(value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [("3", int), (3.5, int), (True, int), ("x", float), (1, bool), (3, str), (None, str), (5, dict[str, Any])],
)
def test_what_does_not(value, hint):
    assert not fits(value, hint)


def test_a_config_says_which_setting():
    with pytest.raises(ConfigError, match=r"SparseAutoencoderConfig: width 'wide': expected int"):
        SparseAutoencoderConfig.from_dict({"d_in": 8, "width": "wide"})
