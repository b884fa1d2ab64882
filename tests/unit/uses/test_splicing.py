"""Splicing with autoencoders that keep all or nothing, padding, special tokens, and the arithmetic of what is recovered."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from causal_models import BLOCKS, WIDTH, orthonormal_sae, random_sae
from hourglass.adapters.causal import CausalModel
from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.errors import InputError
from hourglass.uses.circuits import Spliced, splice, splicing

TEXTS = ["one two three", "a longer text, which is not padded", "xy", "", "z"]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, causal_folder):
    return CausalModel(str(causal_folder / request.param), dtype="float32")


def faithful_sae():
    """Reconstructs every state: as many latents as dimensions, at right angles, all active with their sign."""
    config = SparseAutoencoderConfig(d_in=WIDTH, width=WIDTH, k=WIDTH, activation="abstopk", precision="float32")
    sae, tied = SparseAutoencoder(config), orthonormal_sae().state_dict()
    sae.load_state_dict(
        {**sae.state_dict(), **{name: tied[name] for name in ("W_dec", "encoder.weight", "b_dec", "scale")}}
    )
    return sae.eval()


def silent_sae(value=0.0):
    """Reconstructs every state as `value`: no latent is ever active."""
    sae = SparseAutoencoder(SparseAutoencoderConfig(d_in=WIDTH, width=8, k=2, precision="float32"))
    with torch.no_grad():
        sae.encoder.weight.zero_()
        sae.encoder.bias.fill_(-1.0)
        sae.b_dec.copy_(torch.as_tensor(value).expand(WIDTH))
    return sae.eval()


@torch.no_grad()
def state(model, ids, layer):
    """States [length, d] of one text at a layer, by transformers' own account; the last one is before the final norm."""
    kept = []
    stack = model.network.transformer.h if hasattr(model.network, "transformer") else model.network.model.layers
    handle = stack[layer - 1].register_forward_hook(
        lambda m, a, out: kept.append(out if torch.is_tensor(out) else out[0])
    )
    model.network(torch.tensor([ids]))
    handle.remove()
    return kept[0][0]


@pytest.mark.parametrize("layer", [0, 2, BLOCKS, -1])
def test_a_faithful_autoencoder_recovers_all_and_a_silent_one_nothing(model, layer):
    found = splice(model, faithful_sae(), layer, TEXTS)
    np.testing.assert_allclose(found.table["spliced"], found.table["clean"], rtol=1e-3)
    assert found.recovered("zero")["value"] == pytest.approx(1, abs=0.02)
    silent = splice(model, silent_sae(), layer, TEXTS)
    np.testing.assert_allclose(silent.table["spliced"], silent.table["zero"])
    assert silent.recovered("zero") == {"value": 0, "low": 0, "high": 0}
    np.testing.assert_array_equal(found.table["clean"], silent.table["clean"])
    assert not np.allclose(found.table["clean"][:2], found.table["zero"][:2], rtol=1e-3)


@torch.no_grad()
def test_clean_is_the_models_own_loss_and_mean_that_of_the_mean(model):
    found = splice(model, random_sae(), 2, TEXTS).table
    ids = [model.tokenizer(text)["input_ids"] for text in TEXTS]
    assert found["tokens"].tolist() == [max(0, len(row) - 1) for row in ids]
    for row, loss in zip(ids, found["clean"]):
        if len(row) > 1:
            tokens = torch.tensor([row])
            assert loss == pytest.approx(float(model.network(tokens, labels=tokens).loss), rel=1e-4)
    # The first token is special, and neither averaged nor replaced.
    mean = torch.cat([state(model, row, 2)[1:] for row in ids if len(row) > 1]).mean(0)
    np.testing.assert_allclose(splice(model, silent_sae(mean), 2, TEXTS).table["spliced"], found["mean"], rtol=1e-4)
    everywhere = torch.cat([state(model, row, 2) for row in ids if len(row) > 1]).mean(0)
    both = splice(model, silent_sae(everywhere), 2, TEXTS, special=True).table
    np.testing.assert_allclose(both["spliced"], both["mean"], rtol=1e-4)
    assert not np.allclose(both["mean"][:2], found["mean"][:2], rtol=1e-3)


@pytest.mark.parametrize("special", [False, True])
def test_together_as_alone(model, special, monkeypatch):
    sae = random_sae()
    together = splice(model, sae, 2, TEXTS, special=special).table
    monkeypatch.setattr(splicing, "_TOKENS_AT_ONCE", 1)
    alone = splice(model, sae, 2, TEXTS, special=special).table
    pd.testing.assert_frame_equal(together, alone, rtol=1e-4)
    assert together["clean"].isna().tolist() == [t == 0 for t in together["tokens"]]


@torch.no_grad()
def test_spliced_by_hand(model):
    sae, text = random_sae(), TEXTS[1]
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])

    def reconstructed(states):
        return torch.cat([states[:, :1], sae.decode(sae.codes(states[0, 1:]))[None]], 1)

    stack = model.network.transformer.h if hasattr(model.network, "transformer") else model.network.model.layers
    handle = stack[0].register_forward_hook(
        lambda m, a, out: reconstructed(out) if torch.is_tensor(out) else (reconstructed(out[0]), *out[1:])
    )
    logits = model.network(ids).logits
    handle.remove()
    expected = float(F.cross_entropy(logits[0, :-1], ids[0, 1:]))
    assert splice(model, sae, 1, text).table["spliced"][0] == pytest.approx(expected, rel=1e-4)


def test_in_half_precision(causal_folder):
    model = CausalModel(str(causal_folder / "llama"), dtype="bfloat16")
    found = splice(model, silent_sae(), 2, TEXTS).table
    np.testing.assert_allclose(found["spliced"], found["zero"])
    faithful = splice(model, faithful_sae(), 2, TEXTS)
    np.testing.assert_allclose(faithful.table["spliced"], faithful.table["clean"], rtol=0.02)


def test_long_texts_are_cut(model):
    assert splice(model, random_sae(), 2, ["long " * 200]).table["tokens"][0] == 159
    assert splice(model, random_sae(), 2, ["long " * 200], max_tokens=9).table["tokens"][0] == 8


def made(rows):
    return Spliced("m", 1, pd.DataFrame(rows, columns=["tokens", "clean", "spliced", "mean", "zero"]))


def test_recovered_by_hand():
    found = made([(10, 2.0, 2.5, 4.0, 6.0), (30, 1.0, 1.5, 2.0, 9.0), (0, np.nan, np.nan, np.nan, np.nan)])
    assert found.losses == pytest.approx({"clean": 1.25, "spliced": 1.75, "mean": 2.5, "zero": 8.25})
    assert found.recovered()["value"] == pytest.approx(0.75 / 1.25)
    assert found.recovered("zero")["value"] == pytest.approx(6.5 / 7)
    told = found.to_dict()
    assert (told["texts"], told["tokens"], told["rows"][2]["clean"]) == (2, 40, None)
    json.dumps(told)
    costless = made([(10, 2.0, 2.5, 2.0, 6.0)])
    assert np.isnan(costless.recovered()["value"])
    json.dumps(costless.to_dict(), allow_nan=False)


def test_the_interval_covers():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        tokens, lost = random.integers(5, 50, 60), random.gamma(2, 1, 60)
        won = 0.8 * lost + random.normal(0, 0.3, 60)
        found = made(np.stack([tokens, np.zeros(60), lost - won, lost, lost], 1)).recovered()
        assert found["low"] <= found["value"] <= found["high"]
        held += found["low"] <= 0.8 <= found["high"]
    assert 0.88 < held / 200 < 0.99


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"texts": []}, "none of 0 texts has a second token"),
        ({"texts": ["", ""]}, "none of 2 texts has a second token"),
        ({"layer": 9}, "layer 9: the model has 3 blocks"),
        ({"layer": None}, "no layer: an autoencoder of the last state"),
        ({"max_tokens": 1000}, "max_tokens 1000"),
        ({"sae": SparseAutoencoder(SparseAutoencoderConfig.preset("tiny"))}, "states of 16 numbers"),
    ],
)
def test_what_does_not_fit_is_one_line(model, changes, said):
    with pytest.raises(InputError, match=said) as error:
        splice(model, **{"sae": random_sae(), "layer": 2, "texts": TEXTS, **changes})
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="did you mean 'mean'"):
        made([(10, 2.0, 2.5, 4.0, 6.0)]).recovered("meen")
