"""Other people's autoencoders: tiny files made by hand, codes by the formulas that their formats stand for."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from causal_models import random_sae
from hourglass.adapters.dictionary_learning import read_dictionary_learning
from hourglass.adapters.gemma_scope import read_gemma_scope
from hourglass.adapters.goodfire import read_goodfire
from hourglass.adapters.llama_scope import read_llama_scope
from hourglass.adapters.openai_sae import layer_normalized, read_openai
from hourglass.adapters.saelens import read_saelens, write_saelens
from hourglass.adapters.saes import load_sae
from hourglass.adapters.sparsify import read_sparsify
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.errors import ConfigError, FolderError, InputError

D, M, K = 12, 40, 5
KINDS = ("topk", "abstopk", "batchtopk", "matryoshka", "relu", "jumprelu", "gated")


@pytest.fixture
def weights():
    """Random weights [M, D] and biases, and rows; decoder rows have norm 1."""
    random = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    decoder = torch.nn.functional.normalize(draw(M, D), dim=1)
    w = {"W": draw(M, D), "b": draw(M), "D": decoder, "c": draw(D), "x": 3 * draw(30, D), "norms": draw(M).exp()}
    return w | {"theta": 4 * draw(M).sigmoid(), "r": 0.5 * draw(M), "m": draw(M)}


def top(pre, k=K):
    """The k largest of each row, through a ReLU."""
    found = torch.topk(pre, k, dim=1)
    return torch.zeros_like(pre).scatter(1, found.indices, found.values.relu())


def top_by_size(pre, k=K):
    """The k of each row that are farthest from 0, with their sign."""
    found = torch.topk(pre.abs(), k, dim=1).indices
    return torch.zeros_like(pre).scatter(1, found, pre.gather(1, found))


def jump(pre, threshold):
    return torch.where(pre > threshold, pre.relu(), 0.0)


def gate(directions, gate_bias, r_mag, b_mag):
    return (directions + gate_bias > 0) * (r_mag.exp() * directions + b_mag).relu()


def random_of(kind, centred=True):
    """One of ours, all of its parameters random."""
    k = {"k": K} if kind in ("topk", "abstopk", "batchtopk", "matryoshka") else {}
    config = {"activation": kind, "apply_b_dec_to_input": centred, "precision": "float32", **k}
    sae = SparseAutoencoder(SparseAutoencoderConfig(d_in=D, width=M, **config))
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * (0.5 if "activation" in name else 1))
        sae.W_dec.copy_(torch.nn.functional.normalize(sae.W_dec, dim=1))
        sae.scale.fill_(1.7)
        if kind in ("batchtopk", "matryoshka"):
            sae.activation.threshold.fill_(3.0)
    return sae.eval()


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


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("kind", ["standard", "jumprelu", "gated"])
def test_saelens_kinds_without_k(tmp_path, weights, kind, centred, norms):
    w = weights
    n = w["norms"] if norms else torch.ones(M)
    bias = {"b_gate": w["b"], "r_mag": w["r"], "b_mag": w["m"]} if kind == "gated" else {"b_enc": w["b"]}
    threshold = {"threshold": w["theta"]} if kind == "jumprelu" else {}
    decoder = w["D"] * n[:, None]
    tensors = {"W_enc": w["W"].T, "W_dec": decoder, "b_dec": w["c"], **bias, **threshold}
    config = {"architecture": kind, "d_in": D, "d_sae": M, "apply_b_dec_to_input": centred}
    sae = read_saelens(write(tmp_path / "sae", config, tensors))
    directions = (w["x"] - centred * w["c"]) @ w["W"].T
    codes = {
        "standard": (directions + w["b"]).relu(),
        "jumprelu": jump(directions + w["b"], w["theta"]),
        "gated": gate(directions, w["b"], w["r"], w["m"]),
    }[kind]
    agree(sae, w["x"], codes * n, codes @ decoder + w["c"])
    assert sae.config.activation == kind.replace("standard", "relu")


@pytest.mark.parametrize("by_norm", [True, False])
def test_saelens_abstopk(tmp_path, weights, by_norm):
    w = weights
    n = w["norms"] if by_norm else torch.ones(M)
    config = {"architecture": "abstopk", "rescale_acts_by_decoder_norm": by_norm}
    sae = read_saelens(saelens(tmp_path / "sae", w, w["D"] * n[:, None], **config))
    codes = top_by_size(((w["x"] - w["c"]) @ w["W"].T + w["b"]) * n)
    assert (codes < 0).any()
    agree(sae, w["x"], codes, codes @ w["D"] + w["c"])


def test_thresholds_below_zero_let_through_what_is_positive(tmp_path, weights):
    w = weights
    for name, threshold in (("differ", w["theta"] - 2), ("one", torch.full((M,), -1.0))):
        sae = read_saelens(saelens(tmp_path / name, w, threshold=threshold))
        codes = jump((w["x"] - w["c"]) @ w["W"].T + w["b"], threshold)
        agree(sae, w["x"], codes, codes @ w["D"] + w["c"])


def test_a_latent_without_a_direction_is_silent(tmp_path, weights):
    w = weights
    decoder = w["D"].clone()
    decoder[7] = 0
    sae = read_saelens(saelens(tmp_path / "sae", w, decoder, threshold=torch.full((M,), 2.0)))
    codes = jump((w["x"] - w["c"]) @ w["W"].T + w["b"], 2.0)
    torch.testing.assert_close(sae.decode(sae.codes(w["x"])), codes @ decoder + w["c"], atol=1e-4, rtol=1e-4)
    assert not sae.codes(w["x"]).to_dense()[:, 7].any()


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_for_saelens_follows_its_formulas_and_comes_back(tmp_path, weights, kind, centred):
    sae, x = random_of(kind, centred), weights["x"]
    write_saelens(sae, tmp_path / "out")
    t = load_file(tmp_path / "out" / "sae_weights.safetensors")
    config = json.loads((tmp_path / "out" / "cfg.json").read_text())
    directions = (x - centred * t["b_dec"]) @ t["W_enc"]
    codes = {
        "topk": lambda: top(directions + t["b_enc"], config["k"]),
        "abstopk": lambda: top_by_size(directions + t["b_enc"], config["k"]),
        "jumprelu": lambda: jump(directions + t["b_enc"], t["threshold"]),
        "standard": lambda: (directions + t["b_enc"]).relu(),
        "gated": lambda: gate(directions, t["b_gate"], t["r_mag"], t["b_mag"]),
    }[config["architecture"]]()
    assert (codes != 0).any()
    agree(sae, x, codes, codes @ t["W_dec"] + t["b_dec"])
    again = read_saelens(tmp_path / "out")
    agree(again, x, codes, codes @ t["W_dec"] + t["b_dec"])
    assert again.config.activation == kind.replace("matryoshka", "batchtopk")
    with pytest.raises(FolderError, match="is not empty"):
        write_saelens(sae, tmp_path / "out")


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka"])
def test_without_a_measured_threshold_what_is_written_is_what_it_does(tmp_path, kind):
    sae = random_of(kind)
    sae.activation.threshold.fill_(-1.0)
    write_saelens(sae, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["architecture"] == "topk"


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_saelens_itself_gives_the_same(tmp_path, weights, kind, centred):
    sae_lens = pytest.importorskip("sae_lens")
    sae, x = random_of(kind, centred), weights["x"]
    write_saelens(sae, tmp_path / "ours")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "ours")
    with torch.no_grad():
        codes = theirs.encode(x)
        agree(sae, x, codes, theirs.decode(codes))
    theirs.save_model(tmp_path / "theirs")
    agree(read_saelens(tmp_path / "theirs"), x, codes, theirs.decode(codes).detach())


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu", "topk", "abstopk"])
def test_what_saelens_makes_is_read(tmp_path, weights, architecture):
    sae_lens = pytest.importorskip("sae_lens")
    make, config = sae_lens.registry.get_sae_class(architecture)
    by_norm = {"k": K, "rescale_acts_by_decoder_norm": True} if "topk" in architecture else {}
    theirs, x = make(config(d_in=D, d_sae=M, device="cpu", apply_b_dec_to_input=False, **by_norm)), weights["x"]
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.5 if name in ("r_mag", "W_dec") else 1))
        codes, reconstruction = theirs.encode(x), theirs(x)
        if not by_norm:  # there, activations are of unit directions already
            codes = codes * torch.linalg.vector_norm(theirs.W_dec, dim=1)
    theirs.save_model(tmp_path / "theirs")
    agree(read_saelens(tmp_path / "theirs"), x, codes, reconstruction)


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
        ({"embed_skip": True}, "embed_skip is on"),
        (
            {"num_latents": 0, "expansion_factor": 4},
            r"encoder.weight has shape \[40, 12\], but cfg.json says d_in 12 and 48",
        ),
        ({"k": None}, "no k; expected a whole number"),
    ):
        folder = write(tmp_path / "other", config | change, tensors, ("cfg.json", "sae.safetensors"))
        with pytest.raises(InputError, match=said):
            read_sparsify(folder)


LINEAR, PLAIN = ("encoder.weight", "encoder.bias", "decoder.weight"), ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
DICTIONARIES = {
    "AutoEncoder": (*LINEAR, "bias"),
    "AutoEncoderNew": (*LINEAR, "decoder.bias"),
    "AutoEncoderTopK": (*LINEAR, "b_dec", "k", "threshold"),
    "BatchTopKSAE": (*LINEAR, "b_dec", "k", "threshold"),
    "GatedAutoEncoder": ("encoder.weight", "decoder.weight", "decoder_bias", "gate_bias", "r_mag", "mag_bias"),
    "JumpReluAutoEncoder": PLAIN,
    "MatryoshkaBatchTopKSAE": (*PLAIN, "k", "group_sizes"),
}


def dictionary(folder, w, dict_class, **changes):
    tensors = {
        **{"encoder.weight": w["W"], "encoder.bias": w["b"], "decoder.weight": w["D"].T.contiguous()},
        **{"W_enc": w["W"].T.contiguous(), "b_enc": w["b"], "W_dec": w["D"]},
        **dict.fromkeys(("bias", "decoder.bias", "b_dec", "decoder_bias"), w["c"]),
        **{"gate_bias": w["b"], "r_mag": w["r"], "mag_bias": w["m"]},
        "threshold": w["theta"] if dict_class == "JumpReluAutoEncoder" else torch.tensor(4.0),
        "k": torch.tensor(K, dtype=torch.int),
        "group_sizes": torch.tensor([10, 30]),
    }
    names = DICTIONARIES.get(dict_class, LINEAR)
    k = {"k": K} if "k" in names else {}
    config = {"trainer": {"dict_class": dict_class, "activation_dim": D, "dict_size": M, **k, **changes}, "buffer": {}}
    return write(folder, config, {name: tensors[name] for name in names}, ("config.json", "ae.pt"))


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_dictionary_learning(tmp_path, weights, kind):
    w = weights
    folder = dictionary(tmp_path / "trainer_0", w, kind)
    centred = kind not in ("AutoEncoderNew", "JumpReluAutoEncoder")
    directions = (w["x"] - centred * w["c"]) @ w["W"].T
    pre = directions + w["b"]
    codes = {
        "AutoEncoder": pre.relu(),
        "AutoEncoderNew": pre.relu(),
        "AutoEncoderTopK": top(pre),
        "GatedAutoEncoder": gate(directions, w["b"], w["r"], w["m"]),
        "JumpReluAutoEncoder": jump(pre, w["theta"]),
    }.get(kind, jump(pre, 4.0))
    for place in (folder, folder / "ae.pt"):
        agree(read_dictionary_learning(place), w["x"], codes, codes @ w["D"] + w["c"])


def test_dictionary_learning_keeps_the_prefixes_of_matryoshka(tmp_path, weights):
    folder = dictionary(tmp_path / "trainer_0", weights, "MatryoshkaBatchTopKSAE")
    sae = read_dictionary_learning(folder)
    assert (sae.config.activation, sae.config.k, sae.activation.prefixes) == ("matryoshka", K, [10, 40])
    tensors = torch.load(folder / "ae.pt", weights_only=True)
    torch.save(tensors | {"group_sizes": torch.tensor([10, 31])}, folder / "ae.pt")
    with pytest.raises(FolderError, match=r"group_sizes .*; expected whole numbers that sum to 40"):
        read_dictionary_learning(folder)


def test_a_dictionary_that_cannot_be_read_is_one_line(tmp_path, weights):
    for changes, said in (
        (
            {"dict_class": "DecoupledCoder"},
            "dict_class 'DecoupledCoder' cannot be read; known are: AutoEncoder, AutoEncoderNew",
        ),
        ({"dict_size": 41}, r"has shape \[40, 12\], but config.json says activation_dim 12 and dict_size 41"),
    ):
        with pytest.raises(InputError, match=said) as error:
            read_dictionary_learning(dictionary(tmp_path / "other", weights, **{"dict_class": "AutoEncoder"} | changes))
        assert "\n" not in str(error.value)


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
        ({"activation": "Identity"}, "activation 'Identity' cannot be read; known are: ReLU, TopK"),
        ({"activation_state_dict": {"k": K, "postact_fn": "Identity"}}, "go through Identity"),
        ({"latent_bias": w["b"][1:]}, r"latent_bias has shape \[39\], but encoder.weight has \[40, 12\]"),
    ):
        torch.save(tensors | change, tmp_path / "other.pt")
        with pytest.raises(InputError, match=said):
            read_openai(tmp_path / "other.pt", normalized=True)


@pytest.mark.parametrize("said", [{"activation": "ReLU", "activation_state_dict": {}}, {}])
def test_openai_relu_reads_plain_rows(tmp_path, weights, said):
    w = weights
    decoder = (w["D"] * w["norms"][:, None]).T.contiguous()
    tensors = {"pre_bias": w["c"], "latent_bias": w["b"], "encoder.weight": w["W"], "decoder.weight": decoder}
    torch.save(tensors | said, tmp_path / "relu.pt")
    codes = ((w["x"] - w["c"]) @ w["W"].T + w["b"]).relu() * w["norms"]
    agree(load_sae(tmp_path / "relu.pt"), w["x"], codes, codes @ w["D"] + w["c"])


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("name", ["params.npz", "params.safetensors"])
def test_gemma_scope(tmp_path, weights, name, norms):
    w = weights
    n = w["norms"] if norms else torch.ones(M)
    decoder = w["D"] * n[:, None]
    tensors = {"b_enc": w["b"], "b_dec": w["c"], "threshold": w["theta"]}
    if name.endswith(".npz"):
        arrays = tensors | {"W_enc": w["W"].T, "W_dec": decoder}
        np.savez(tmp_path / name, **{key: tensor.numpy() for key, tensor in arrays.items()})
    else:
        config = {"architecture": "jump_relu", "hf_hook_point_in": "here", "hf_hook_point_out": "here"}
        write(tmp_path, config, tensors | {"w_enc": w["W"].T, "w_dec": decoder}, ("config.json", name))
    codes = jump(w["x"] @ w["W"].T + w["b"], w["theta"])
    for place in (tmp_path, tmp_path / name):
        agree(load_sae(place), w["x"], codes * n, codes @ decoder + w["c"])


def test_a_gemma_scope_that_cannot_be_read_is_one_line(tmp_path, weights):
    w = weights
    tensors = {"w_enc": w["W"].T, "w_dec": w["D"], "b_enc": w["b"], "b_dec": w["c"], "threshold": w["theta"]}
    for config, changes, said in (
        ({"architecture": "topk"}, {}, "architecture 'topk' cannot be read; known are: jump_relu"),
        ({}, {"affine_skip_connection": torch.zeros(D)}, r"affine_skip_connection has shape \[12\], but"),
        ({}, {"extra": torch.zeros(D)}, "holds extra, which"),
        ({}, {"w_dec": torch.zeros(M, D + 1)}, r"w_dec has shape \[40, 13\], but w_enc has \[12, 40\]"),
        ({}, {"w_enc": torch.zeros(M)}, "no matrix 'W_enc'"),
    ):
        folder = write(tmp_path / "sae", config, tensors | changes, ("config.json", "params.safetensors"))
        with pytest.raises(InputError, match=said):
            read_gemma_scope(folder)
    for name in ("objects", "broken"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "objects" / "params.npz", W_enc=np.array([{}], dtype=object))
    (tmp_path / "broken" / "params.npz").write_bytes(b"not this")
    for name in ("objects", "broken"):
        with pytest.raises(FolderError, match="not an npz file of arrays alone") as error:
            load_sae(tmp_path / name)
        assert "\n" not in str(error.value)


LLAMA = {
    "d_model": D,
    "d_sae": M,
    "act_fn": "jumprelu",
    "jump_relu_threshold": 0.8,
    "norm_activation": "dataset-wise",
    "dataset_average_activation_norm": {"in": 7.0, "out": 7.0},
    "apply_decoder_bias_to_pre_encoder": False,
    "top_k": 6,
    "hook_point_in": "here",
    "hook_point_out": "here",
}


def llama_scope(folder, w, decoder, **changes):
    tensors = {"encoder.weight": w["W"], "encoder.bias": w["b"], "decoder.weight": decoder.T, "decoder.bias": w["c"]}
    (folder / "checkpoints").mkdir(parents=True)
    return write(folder, LLAMA | changes, tensors, ("hyperparams.json", "checkpoints/final.safetensors"))


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(
    "changes",
    [{}, {"apply_decoder_bias_to_pre_encoder": True}, {"act_fn": "relu"}, {"norm_activation": "inference"}],
)
def test_llama_scope(tmp_path, weights, changes, counted):
    w, c, n = weights, LLAMA | changes, weights["norms"]
    decoder = w["D"] * n[:, None]
    sae = load_sae(llama_scope(tmp_path / "sae", w, decoder, sparsity_include_decoder_norm=counted, **changes))
    s = D**0.5 / 7.0 if c["norm_activation"] == "dataset-wise" else 1.0
    pre = (s * w["x"] - c["apply_decoder_bias_to_pre_encoder"] * w["c"]) @ w["W"].T + w["b"]
    codes = jump(pre, 0.8 * s / (n if counted else 1) if c["act_fn"] == "jumprelu" else 0.0)
    agree(sae, w["x"], codes * n / s, (codes @ decoder + w["c"]) / s)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"act_fn": "topk"}, "act_fn 'topk' cannot be read; known are: jumprelu, relu"),
        ({"use_glu_encoder": True}, "use_glu_encoder is on"),
        ({"norm_activation": "token-wise"}, "'token-wise' is more than one scale for all rows"),
        ({"hook_point_out": "there"}, "writes there: a transcoder"),
        ({"dataset_average_activation_norm": {"in": 7.0, "out": 3.0}}, "rows of different norms: a transcoder"),
        ({"dataset_average_activation_norm": None}, "no dataset_average_activation_norm"),
        ({"jump_relu_threshold": None}, "no jump_relu_threshold; expected a number"),
        ({"d_sae": 41}, r"has shape \[40, 12\], but hyperparams.json says d_model 12 and d_sae 41"),
    ],
)
def test_a_llama_scope_that_cannot_be_read_is_one_line(tmp_path, weights, changes, said):
    folder = llama_scope(tmp_path / "sae", weights, weights["D"], **changes)
    with pytest.raises(InputError, match=said) as error:
        read_llama_scope(folder)
    assert "\n" not in str(error.value)


def test_goodfire(tmp_path, weights):
    w = weights
    decoder = (w["D"] * w["norms"][:, None]).T.contiguous()
    tensors = {
        **{"encoder_linear.weight": w["W"], "encoder_linear.bias": w["b"]},
        **{"decoder_linear.weight": decoder, "decoder_linear.bias": w["c"]},
    }
    codes = (w["x"] @ w["W"].T + w["b"]).relu() * w["norms"]
    for name in ("layer-19.pth", "layer_50.pt"):
        torch.save(tensors, tmp_path / name)
        agree(load_sae(tmp_path / name), w["x"], codes, codes @ w["D"] + w["c"])
    for change, said in (
        ({"encoder_linear.bias": w["b"][1:]}, r"encoder_linear.bias has shape \[39\], but encoder_linear.weight has"),
        ({"encoder_linear.weight": w["b"]}, "no matrix 'encoder_linear.weight'"),
        ({"k": torch.ones(1)}, "holds k, which"),
    ):
        torch.save(tensors | change, tmp_path / "other.pt")
        with pytest.raises(InputError, match=said):
            read_goodfire(tmp_path / "other.pt")


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
        (
            {"architecture": "temporal"},
            "architecture 'temporal' cannot be read; known are: abstopk, gated, jumprelu, jumprelu_skip_transcoder, ",
        ),
        ({"architecture": "standard", "activation_fn_str": "tanh-relu"}, "activation_fn 'tanh-relu' cannot be read"),
        ({"architecture": "gated"}, "no tensor 'b_gate'; it has: W_dec, W_enc, b_dec, b_enc"),
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


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named(tmp_path, weights, bad):
    folder = saelens(tmp_path / "sae", weights | {"b": torch.full((M,), bad)})
    with pytest.raises(FolderError, match="b_enc holds NaN or infinity"):
        load_sae(folder)


def test_a_file_that_no_format_has_is_one_line(tmp_path, weights):
    torch.save({"W": weights["W"]}, tmp_path / "mine.pt")
    with pytest.raises(FolderError, match=r"known by its tensors .*; it has: W$"):
        load_sae(tmp_path / "mine.pt")


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
