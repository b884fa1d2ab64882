"""A model of sentence-transformers that computes in bfloat16 gives its vectors, up to that format's digits."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hourglass.adapters.huggingface_loading import resolve
from hourglass.adapters.sentence_transformers_reading import compute_in
from hourglass.errors import ConfigError
from hourglass.uses.vectors import Encoder

TEXTS = [
    "A wide body of text.",
    "narrow",
    "Everything that is said of the waist is said of its width; and a longer text than the others comes last.",
]


@pytest.fixture(scope="module")
def vectors():
    model = SentenceTransformer(resolve("minilm"), device="cpu")
    single = model.encode(TEXTS, show_progress_bar=False)
    compute_in(model, torch.bfloat16)
    return single, model.encode(TEXTS, show_progress_bar=False)


def test_vectors_in_bfloat16_point_where_they_did(vectors):
    single, half = vectors
    assert half.dtype == np.float32
    assert not np.array_equal(single, half)
    assert (single * half).sum(1).min() > 0.999


def test_what_comes_after_the_network_is_computed_in_single_precision(vectors):
    assert np.allclose(np.linalg.norm(vectors[1], axis=1), 1, atol=1e-6)


def test_single_precision_leaves_the_model_as_it_is():
    model = SentenceTransformer(resolve("minilm"), device="cpu")
    before = model.encode(TEXTS, show_progress_bar=False)
    compute_in(model, torch.float32)
    assert np.array_equal(before, model.encode(TEXTS, show_progress_bar=False))


def test_an_unknown_format_is_named():
    with pytest.raises(ConfigError, match="dtype 'float8': expected auto, float32 or bfloat16"):
        Encoder("minilm", "float8")
