"""Workspaces made by hand."""

import numpy as np
import pytest

from workspaces import WIDTH, make_workspace


@pytest.fixture
def planted(tmp_path):
    """300 documents in groups a, b, c. Feature 1 in 60 % of a and 10 % of the others; feature 2 only in c; 3 is noise."""
    random = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "c"], 100)
    maxima = np.zeros((300, WIDTH))
    maxima[:, 1] = random.random(300) < np.where(groups == "a", 0.6, 0.1)
    maxima[:, 2] = (random.random(300) < 0.5) & (groups == "c")
    maxima[:, 3] = random.random(300) < 0.5
    maxima *= random.uniform(0.8, 1.2, maxima.shape)
    # Weak activations everywhere: with level 0 they drown feature 1.
    maxima[:, 1] = np.where(maxima[:, 1] > 0, maxima[:, 1], 0.1)
    texts = [f"{'apple' if g == 'a' else 'pear'} text number {'x' * (i % 3)} plain" for i, g in enumerate(groups)]
    pairs = np.tile([f"p{i}" for i in range(100)], 3)
    return make_workspace(tmp_path / "ws", texts, {"group": groups, "prompt": pairs}, maxima)
