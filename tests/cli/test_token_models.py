"""The two models of tokens that claims compare with: each learns a language of two texts and writes nothing else."""

from pathlib import Path

import pytest
import torch

from hourglass.errors import SourceError
from hourglass.training import TrainConfig, fit

ROOT = Path(__file__).parents[2]
TEXTS = [[1, 2, 3, 4, 0], [5, 6, 0]]


@pytest.fixture
def models(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from claims.shared import token_models

    return token_models


@pytest.mark.parametrize("name", ["Autoregressive", "MaskedDiffusion"])
def test_what_was_learned_is_written(models, name):
    torch.manual_seed(0)
    config = models.TokenConfig(vocabulary=8, tokens=6, pad=7, width=32, heads=2, layers=2)
    model = getattr(models, name)(config)
    result = fit(model, TEXTS * 8, TrainConfig(steps=250, batch_size=16, lr=3e-3, log_every=1), progress=False)
    assert result.history[-1]["nll"] < result.history[0]["nll"] / 2
    written = model.generate(40, seed=1)
    assert written == model.generate(40, seed=1)
    whole = [row[: row.index(0) + 1] if 0 in row else row for row in written]
    kinds = [TEXTS.index(row) for row in whole if row in TEXTS]
    assert len(kinds) > 28
    assert set(kinds) == {0, 1}
    with pytest.raises(SourceError, match="of at most 6 tokens"):
        model.collate([[1] * 7])


def test_texts_are_held_out_by_themselves_and_tokens_are_common(models):
    from claims.shared.sentences import held_out, of_common_tokens

    share = sum(held_out(str(i)) for i in range(3000)) / 3000
    assert 0.08 < share < 0.12
    rows = [[0, 5, 1], [0, 5, 6, 1], [0, 5, 5, 5, 5, 1], [0, 9, 1]]
    assert of_common_tokens("abcd", rows, 4, 4, [0, 1]) == ["a", "b"]
