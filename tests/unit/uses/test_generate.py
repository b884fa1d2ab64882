"""Probes of latent spaces, of which the answer is known beforehand."""

import math

import numpy as np
import pytest
import torch

from hourglass.bottlenecks.diffusion import DiffusionConfig, LatentDiffusion
from hourglass.errors import InputError
from hourglass.metrics.generation import WittenBell
from hourglass.systems.cosmos import Cosmos, CosmosConfig
from hourglass.testing import tiny_examples
from hourglass.training import TrainConfig, fit
from hourglass.uses.generate import decoder_robustness, interpolation, mismatch, spike_test, sweep_latents

TEXTS = list(tiny_examples(Cosmos))
BRIEF = TrainConfig(steps=4, batch_size=8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = Cosmos(CosmosConfig.preset("tiny"))
    fit(made, TEXTS, BRIEF, progress=False)
    made.begin("diffusion")
    return fit(made, TEXTS, BRIEF, progress=False).model


class Digits:
    """Texts of one digit, whose latent is the digit; it is written by rounding."""

    def latents(self, texts):
        return torch.tensor([[float(text)] for text in texts])

    def write(self, latent):
        return latent.round().long()

    def accuracy(self, texts, written=None):
        return float((written[:, 0] == torch.tensor([int(text) for text in texts])).float().mean())

    def decode(self, latent):
        return [str(int(number)) for number in self.write(latent)[:, 0].clamp(min=0)]

    def pieces(self, text):
        return [text]


def perfect(x, t, guess, seen=None):
    """The best that can be said where every number is 0 or, half of the time, something on either side: its sign."""
    return torch.sign(x)


def test_noise_takes_what_rounding_does_not_keep():
    texts = [str(i % 10) for i in range(2000)]
    spread = np.std([int(t) for t in texts])
    found = decoder_robustness(Digits(), texts, (0, 0.1, 1))
    assert found[0.0]["accuracy"] == 1.0
    for sigma in (0.1, 1.0):
        kept = math.erf(0.5 / (sigma * spread) / math.sqrt(2))
        assert found[sigma]["accuracy"] == pytest.approx(kept, abs=0.03)


def test_a_spike_on_the_way(model):
    diffusion = LatentDiffusion(DiffusionConfig(), perfect, (3, 4))
    diffusion.measure([torch.randn(50, 3, 4)])
    found = spike_test(diffusion, 8, sizes=(1e-4, 2.0), times=(0.3,), steps=20)
    assert found[1e-4, 0.3] < 1e-3
    assert found[2.0, 0.3] > 0.1  # signs are turned
    assert set(spike_test(model.diffusion, 2, steps=4)) == {
        (size, time) for size in (0.05, 0.1, 0.2, 0.5) for time in (0.1, 0.2, 0.3, 0.4, 0.5)
    }


def test_texts_between_two(model):
    perplexity = WittenBell(TEXTS).perplexities
    found = interpolation(model, list(zip(TEXTS[:4], TEXTS[4:8])), perplexity, (0, 0.2))
    assert set(found) == {0.0, 0.2}
    assert all(value > 1 for value in found.values())
    assert interpolation(Digits(), [("2", "4")], lambda texts: np.array([float(t) for t in texts]), (0,)) == {0.0: 3.0}
    with pytest.raises(InputError, match="no pairs of texts"):
        interpolation(model, [], perplexity)


def test_drawn_latents_and_their_texts(model):
    class Known(Digits):
        """Draws 1.25 alone, which is written 1: off by a quarter."""

        diffusion = LatentDiffusion(DiffusionConfig(), lambda x, t, guess, seen=None: torch.full_like(x, 1.25), (1,))

    # Statistics: mean 0, variance 1.
    Known.diffusion.measure([torch.tensor([[1.0], [-1.0]])])
    # Euler stops at t = 0.05 with some noise left; nearly all of it is on the right side.
    found = mismatch(Known(), 3, steps=5)
    assert found["texts"] == 3
    assert found["distance"] >= 0
    assert mismatch(model, 3, steps=3)["texts"] <= 3


def test_a_sweep_has_a_row_for_each_number():
    class Copies:
        def __init__(self, n):
            self.n = n

        def accuracy(self, texts):
            return min(1.0, self.n / 4)

        def generate(self, n, *, steps, seed):
            return TEXTS[: self.n] * (n // self.n)

    rows = sweep_latents((2, 8), Copies, TEXTS, TEXTS[:8], n=8)
    assert [row["latents"] for row in rows] == [2, 8, None]
    assert [row["accuracy"] for row in rows] == [0.5, 1.0, 1.0]
    assert [row["memorisation"] for row in rows] == [1.0] * 3
    assert rows[0]["diversity"] < rows[1]["diversity"] == rows[2]["diversity"]
