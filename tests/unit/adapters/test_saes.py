"""Other people's autoencoders: tiny files made by hand, codes by the formulas that their formats stand for."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from causal_models import random_sae
from hourglass.adapters.dictionary_learning import read_dictionary_learning
from hourglass.adapters.openai_sae import layer_normalized, read_openai
from hourglass.adapters.saelens import read_saelens, write_saelens
from hourglass.adapters.saes import load_sae
from hourglass.adapters.sparsify import read_sparsify
from hourglass.errors import ConfigError, FolderError, InputError

D, M, K = 12, 40, 5


@pytest.fixture
def weights():
    """Random weights [M, D] and biases, and rows; decoder rows have norm 1."""
    random = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    decoder = torch.nn.functional.normalize(draw(M, D), dim=1)
    return {"W": draw(M, D), "b": draw(M), "D": decoder, "c": draw(D), "x": 3 * draw(30, D), "norms": draw(M).exp()}


def top(pre, k=K):
    """The k largest of each row, through a ReLU."""
    found = torch.topk(pre, k, dim=1)
    return torch.zeros_like(pre).scatter(1, found.indices, found.values.relu())


def agree(sae, x, codes, reconstruction):
    got = sae.codes(x)
    torch.testing.assert_close(got.to_dense(), codes, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(sae.decode(got), reconstruction, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.linalg.vector_norm(sae.W_dec, dim=1), torch.ones(len(sae.W_dec)))


def write(folder, config, tensors, names=("cfg.json", "sae_weights.safetensors")):
    folder.mkdir(exist_ok=True)
    (folder / names[0]).write_text(json.dumps(config))
    if names[1].endswith(".pt"):
        torch.save(tensors, folder / names[1])
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / names[1])
    return folder


# SAELens ------------------------------------------------------------------------------------------------


def saelens(folder, w, decoder=None, threshold=None, drop=(), **config):
    tensors = {"W_enc": w["W"].T, "b_enc": w["b"], "W_dec": w["D"] if decoder is None else decoder, "b_dec": w["c"]}
    if threshold is not None:
        tensors["threshold"] = threshold
    kind = {"architecture": "topk", "k": K} if threshold is None else {"architecture": "jumprelu"}
    config = {"d_in": D, "d_sae": M, "normalize_activations": "none", "apply_b_dec_to_input": True, **kind, **config}
    return write(folder, {k: v for k, v in config.items() if k not in drop}, tensors)


@pytest.mark.parametrize("centred", [True, False])
def test_saelens_topk(tmp_path, weights, centred):
    w = weights
    sae = read_saelens(saelens(tmp_path / "sae", w, apply_b_dec_to_input=centred))
    codes = top((w["x"] - centred * w["c"]) @ w["W"].T + w["b"])
    agree(sae, w["x"], codes, codes @ w["D"] + w["c"])


def test_saelens_topk_by_decoder_norm(tmp_path, weights):
    w = weights
    decoder = w["D"] * w["norms"][:, None]
    sae = read_saelens(saelens(tmp_path / "sae", w, decoder, rescale_acts_by_decoder_norm=True))
    codes = top(((w["x"] - w["c"]) @ w["W"].T + w["b"]) * w["norms"])
    agree(sae, w["x"], codes, (codes / w["norms"]) @ decoder + w["c"])


def test_saelens_topk_with_rows_of_one_other_length(tmp_path, weights):
    w = weights
    sae = read_saelens(saelens(tmp_path / "sae", w, 0.1 * w["D"]))
    codes = top((w["x"] - w["c"]) @ w["W"].T + w["b"])
    agree(sae, w["x"], 0.1 * codes, codes @ (0.1 * w["D"]) + w["c"])


def test_saelens_topk_whose_norms_would_change_the_choice_is_refused(tmp_path, weights):
    folder = saelens(tmp_path / "sae", weights, weights["D"] * weights["norms"][:, None])
    with pytest.raises(ConfigError, match=r"decoder rows have norms from .* are chosen before these count"):
        read_saelens(folder)


@pytest.mark.parametrize("norms", [False, True])
def test_saelens_batchtopk_is_kept_as_jumprelu(tmp_path, weights, norms):
    w = weights
    n = w["norms"] if norms else torch.ones(M)
    folder = saelens(tmp_path / "sae", w, w["D"] * n[:, None], threshold=4.0 / n, metadata={"k": 7})
    sae = read_saelens(folder)
    pre = (w["x"] - w["c"]) @ w["W"].T + w["b"]
    codes = torch.where(pre > 4.0 / n, pre, 0.0)
    agree(sae, w["x"], codes * n, codes @ (w["D"] * n[:, None]) + w["c"])
    assert sae.config.activation == "batchtopk"
    assert sae.config.k == 7


def test_what_equals_the_threshold_is_silent_there_and_active_here(tmp_path, weights):
    plain = {"W": torch.eye(M, D), "b": torch.zeros(M), "D": weights["D"], "c": torch.zeros(D)}
    sae = read_saelens(saelens(tmp_path / "sae", plain, threshold=torch.full((M,), 2.0)))
    x = torch.zeros(2, D)
    x[0, 0], x[1, 0] = 2.0, 2.0000005
    assert sae.codes(x).offsets.tolist() == [0, 0, 1]
    write_saelens(sae, tmp_path / "again")
    assert torch.equal(load_file(tmp_path / "again" / "sae_weights.safetensors")["threshold"], torch.full((M,), 2.0))


@pytest.mark.parametrize("threshold", [None, 4.0])
def test_saelens_rows_that_are_scaled_first(tmp_path, weights, threshold):
    w, factor = weights, 0.4
    thresholds = None if threshold is None else torch.full((M,), threshold)
    folder = saelens(tmp_path / "sae", w, threshold=thresholds, normalize_activations="expected_average_only_in")
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": factor}))
    pre = (factor * w["x"] - w["c"]) @ w["W"].T + w["b"]
    codes = top(pre) if threshold is None else torch.where(pre > threshold, pre, 0.0)
    agree(read_saelens(folder), w["x"], codes / factor, (codes @ w["D"] + w["c"]) / factor)


def test_a_topk_of_earlier_versions_is_known_by_its_activation(tmp_path, weights):
    old = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    sae = read_saelens(saelens(tmp_path / "sae", weights, drop=("k",), **old))
    assert (sae.config.activation, sae.config.k) == ("topk", K)


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
def test_what_is_written_for_saelens_follows_its_formulas_and_comes_back(tmp_path, activation):
    sae = random_sae(activation)
    x = 3 * torch.randn(30, sae.config.d_in)
    write_saelens(sae, tmp_path / "out")
    t, config = (
        load_file(tmp_path / "out" / "sae_weights.safetensors"),
        json.loads((tmp_path / "out" / "cfg.json").read_text()),
    )
    pre = (x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    codes = top(pre, config["k"]) if activation == "topk" else torch.where(pre > t["threshold"], pre, 0.0)
    assert (codes > 0).any()
    agree(sae, x, codes, codes @ t["W_dec"] + t["b_dec"])
    agree(read_saelens(tmp_path / "out"), x, codes, codes @ t["W_dec"] + t["b_dec"])
    with pytest.raises(FolderError, match="is not empty"):
        write_saelens(sae, tmp_path / "out")


def test_a_batchtopk_that_has_not_been_trained_is_written_as_what_it_does(tmp_path):
    sae = random_sae("batchtopk")
    sae.activation.threshold.fill_(-1.0)
    write_saelens(sae, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["architecture"] == "topk"


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
def test_saelens_itself_gives_the_same(tmp_path, activation):
    sae_lens = pytest.importorskip("sae_lens")
    sae = random_sae(activation)
    x = 3 * torch.randn(30, sae.config.d_in)
    write_saelens(sae, tmp_path / "ours")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "ours")
    with torch.no_grad():
        codes = theirs.encode(x)
        agree(sae, x, codes, theirs.decode(codes))
    theirs.save_model(tmp_path / "theirs")
    agree(read_saelens(tmp_path / "theirs"), x, codes, theirs.decode(codes).detach())


# The others ---------------------------------------------------------------------------------------------


def test_sparsify(tmp_path, weights):
    w = weights
    tensors = {"encoder.weight": w["W"], "encoder.bias": w["b"], "W_dec": w["D"], "b_dec": w["c"]}
    config = {"activation": "topk", "d_in": D, "num_latents": M, "k": K, "transcode": False, "multi_topk": False}
    sae = read_sparsify(write(tmp_path / "sae", config, tensors, ("cfg.json", "sae.safetensors")))
    codes = top((w["x"] - w["c"]) @ w["W"].T + w["b"])
    agree(sae, w["x"], codes, codes @ w["D"] + w["c"])
    for change, said in (
        ({"activation": "groupmax"}, "activation 'groupmax' cannot be read; known are: topk"),
        ({"transcode": True}, "transcode is on"),
        (
            {"num_latents": 0, "expansion_factor": 4},
            r"encoder.weight has shape \[40, 12\], but cfg.json says d_in 12 and 48",
        ),
        ({"k": None}, "no k; expected a whole number"),
    ):
        folder = write(tmp_path / "other", config | change, tensors, ("cfg.json", "sae.safetensors"))
        with pytest.raises(InputError, match=said):
            read_sparsify(folder)


def dictionary(folder, w, dict_class, **changes):
    tensors = {
        "encoder.weight": w["W"],
        "encoder.bias": w["b"],
        "decoder.weight": w["D"].T.contiguous(),
        "b_dec": w["c"],
        "k": torch.tensor(K, dtype=torch.int),
        "threshold": torch.tensor(4.0),
    }
    config = {
        "trainer": {"dict_class": dict_class, "activation_dim": D, "dict_size": M, "k": K, **changes},
        "buffer": {},
    }
    return write(folder, config, tensors, ("config.json", "ae.pt"))


@pytest.mark.parametrize("kind", ["AutoEncoderTopK", "BatchTopKSAE"])
def test_dictionary_learning(tmp_path, weights, kind):
    w = weights
    folder = dictionary(tmp_path / "trainer_0", w, kind)
    pre = ((w["x"] - w["c"]) @ w["W"].T + w["b"]).relu()
    codes = top(pre) if kind == "AutoEncoderTopK" else pre * (pre > 4.0)
    for place in (folder, folder / "ae.pt"):
        agree(read_dictionary_learning(place), w["x"], codes, codes @ w["D"] + w["c"])
    for changes, said in (
        (
            {"dict_class": "GatedAutoEncoder"},
            "dict_class 'GatedAutoEncoder' cannot be read; known are: AutoEncoderTopK, Bat",
        ),
        ({"dict_size": 41}, r"has shape \[40, 12\], but config.json says activation_dim 12 and dict_size 41"),
    ):
        with pytest.raises(InputError, match=said):
            read_dictionary_learning(dictionary(tmp_path / "other", w, **{"dict_class": kind} | changes))


def test_openai(tmp_path, weights):
    w = weights
    tensors = {
        "pre_bias": w["c"],
        "latent_bias": w["b"],
        "encoder.weight": w["W"],
        "decoder.weight": w["D"].T.contiguous(),
        "stats_last_nonzero": torch.zeros(M, dtype=torch.long),
        "activation": "TopK",
        "activation_state_dict": {"k": K, "postact_fn": "ReLU"},
    }
    torch.save(tensors, tmp_path / "8.pt")
    rows, mean, deviation = layer_normalized(w["x"])
    codes = top((rows - w["c"]) @ w["W"].T + w["b"])
    sae = read_openai(tmp_path / "8.pt", normalized=True)
    agree(sae, rows, codes, codes @ w["D"] + w["c"])
    torch.testing.assert_close(rows * deviation + mean, w["x"], atol=1e-3, rtol=1e-3)
    with pytest.raises(ConfigError, match="less their own mean"):
        load_sae(tmp_path / "8.pt")
    for change, said in (
        ({"activation": "ReLU"}, "activation 'ReLU' cannot be read; known are: TopK"),
        ({"activation_state_dict": {"k": K, "postact_fn": "Identity"}}, "go through Identity"),
        ({"latent_bias": w["b"][1:]}, r"latent_bias has shape \[39\], but encoder.weight has \[40, 12\]"),
    ):
        torch.save(tensors | change, tmp_path / "other.pt")
        with pytest.raises(InputError, match=said):
            read_openai(tmp_path / "other.pt", normalized=True)


# What is recognised, and what is refused ------------------------------------------------------------------


def test_the_format_is_known_by_the_files(tmp_path, weights):
    ours = random_sae()
    ours.save_pretrained(tmp_path / "fitted" / "model")
    write_saelens(ours, tmp_path / "saelens")
    x = 3 * torch.randn(9, ours.config.d_in)
    for place in ("fitted", "fitted/model", "saelens"):
        torch.testing.assert_close(load_sae(tmp_path / place).codes(x).to_dense(), ours.codes(x).to_dense())
    assert load_sae(dictionary(tmp_path / "trainer_0", weights, "BatchTopKSAE") / "ae.pt").config.width == M
    with pytest.raises(FolderError, match=r"no sparse autoencoder; expected a folder with .*cfg\.json"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": "gated"}, "architecture 'gated' cannot be read; known are: jumprelu, topk"),
        ({"normalize_activations": "layer_norm"}, "'layer_norm' is more than one scale for all rows"),
        ({"normalize_activations": True}, "no activation_scaler.json says by what rows were multiplied"),
        ({"d_sae": 41}, r"W_enc has shape \[12, 40\], but cfg.json says d_in 12 and d_sae 41, which makes \[12, 41\]"),
        ({"d_in": "x"}, "no d_in; expected a whole number"),
        ({"k": 0}, "no k; expected a whole number"),
    ],
)
def test_a_saelens_config_that_cannot_be_read_is_one_line(tmp_path, weights, config, said):
    with pytest.raises(InputError, match=said) as error:
        read_saelens(saelens(tmp_path / "sae", weights, **config))
    assert "\n" not in str(error.value)


def test_tensors_that_do_not_belong_are_named(tmp_path, weights):
    folder = saelens(tmp_path / "sae", weights)
    tensors = load_file(folder / "sae_weights.safetensors")
    for change, said in (
        ({"W_skip": torch.zeros(D, D)}, "holds W_skip"),
        ({"scaling_factor": torch.full((M,), 2.0)}, "scaling_factor changes activations"),
    ):
        save_file(tensors | change, folder / "sae_weights.safetensors")
        with pytest.raises(ConfigError, match=said):
            read_saelens(folder)
    save_file(tensors | {"scaling_factor": torch.ones(M)}, folder / "sae_weights.safetensors")
    read_saelens(folder)
    save_file({k: v for k, v in tensors.items() if k != "b_enc"}, folder / "sae_weights.safetensors")
    with pytest.raises(FolderError, match="no tensor 'b_enc'; it has: W_dec, W_enc, b_dec"):
        read_saelens(folder)


def test_thresholds_that_differ_are_refused(tmp_path, weights):
    folder = saelens(tmp_path / "sae", weights, threshold=weights["norms"])
    with pytest.raises(ConfigError, match="one threshold for all latents cannot"):
        read_saelens(folder)


def test_broken_files_are_one_line(tmp_path, weights):
    folder = saelens(tmp_path / "sae", weights)
    (folder / "sae_weights.safetensors").write_bytes(b"\x00 not this")
    trainer = dictionary(tmp_path / "trainer_0", weights, "BatchTopKSAE")
    (trainer / "ae.pt").write_bytes(b"\x80 not this")
    no_trainer = write(tmp_path / "no", {"buffer": {}}, {"k": torch.ones(1)}, ("config.json", "ae.pt"))
    torch.save([1, 2], tmp_path / "list.pt")
    for path in (folder, trainer, no_trainer, tmp_path / "list.pt", tmp_path / "nothing"):
        with pytest.raises(FolderError) as error:
            load_sae(path)
        assert "\n" not in str(error.value)


def test_code_in_a_pickle_is_not_run(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return print, ("was run",)

    torch.save({"activation": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(FolderError, match="not a file of tensors alone"):
        load_sae(tmp_path / "evil.pt")
    assert "was run" not in capsys.readouterr().out
