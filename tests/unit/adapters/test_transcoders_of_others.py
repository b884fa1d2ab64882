"""Other people's transcoders and crosscoders: tiny files made by hand, codes by the formulas that their formats stand for."""

import pytest
import torch
from test_saes import D, K, M, jump, top, weights, write  # noqa: F401  (a fixture)

from hourglass.adapters.dictionary_learning import read_dictionary_learning
from hourglass.adapters.saelens import read_saelens, write_saelens
from hourglass.adapters.saes import load_sae
from hourglass.adapters.sparsify import read_sparsify
from hourglass.bottlenecks.sparse import Crosscoder, Transcoder, TranscoderConfig
from hourglass.bottlenecks.sparse.activations import ACTIVATIONS
from hourglass.errors import ConfigError, InputError

OUT = 7
FILES = ("cfg.json", "sae.safetensors")


@pytest.fixture
def more(weights):  # noqa: F811
    """`weights` with a decoder [M, OUT] of rows of norm 1, its bias, and a skip connection [OUT, D]."""
    random = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    decoder = torch.nn.functional.normalize(draw(M, OUT), dim=1)
    return weights | {"D": decoder, "c": draw(OUT), "skip": draw(OUT, D)}


def agree(coder, x, codes, reconstruction):
    got = coder.codes(x)
    torch.testing.assert_close(got.to_dense(), codes, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(coder.decode(got) + coder.skipped(x), reconstruction, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", ["transcoder", "jumprelu"])
def test_saelens(tmp_path, more, kind, skip, norms):
    w, n = more, more["norms"] if norms else torch.ones(M)
    tensors = {"W_enc": w["W"].T, "b_enc": w["b"], "W_dec": w["D"] * n[:, None], "b_dec": w["c"]}
    name = ("skip_" if skip else "") + "transcoder"
    if kind == "jumprelu":
        tensors["threshold"], name = w["theta"], f"jumprelu_{name}"
    if skip:
        tensors["W_skip"] = w["skip"]
    config = {"architecture": name, "d_in": D, "d_out": OUT, "d_sae": M, "normalize_activations": "none"}
    coder = load_sae(write(tmp_path / "t", config, tensors))
    assert isinstance(coder, Transcoder)
    codes = jump(w["x"] @ w["W"].T + w["b"], w["theta"] if kind == "jumprelu" else 0)
    around = w["x"] @ w["skip"].T if skip else 0
    agree(coder, w["x"], codes * n, codes @ tensors["W_dec"] + w["c"] + around)


def test_saelens_files_that_do_not_fit_are_one_line(tmp_path, more):
    w = more
    tensors = {"W_enc": w["W"].T, "b_enc": w["b"], "W_dec": w["D"], "b_dec": w["c"]}
    config = {"architecture": "transcoder", "d_in": D, "d_out": OUT, "d_sae": M, "normalize_activations": "none"}
    for change, said in (
        ({"d_out": D}, r"W_dec has shape \[40, 7\], but cfg.json says d_in 12, d_out 12 and d_sae 40"),
        ({"architecture": "skip_transcoder"}, "no tensor 'W_skip'"),
        ({"d_out": None}, "no d_out; expected a whole number"),
    ):
        with pytest.raises(InputError, match=said):
            read_saelens(write(tmp_path / "t", config | change, tensors))


def random_of(kind, skip):
    k = {"k": K} if "k" in ACTIVATIONS[kind].settings else {}
    config = {"d_in": D, "d_out": OUT, "width": M, "activation": kind, "skip": skip, "precision": "float32"}
    coder = Transcoder(TranscoderConfig.from_dict(config | k))
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in coder.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * (0.5 if "activation" in name else 1))
        coder.W_dec.copy_(torch.nn.functional.normalize(coder.W_dec, dim=1))
        coder.centre.copy_(torch.randn(D, generator=random))
        coder.scale.fill_(1.7)
        coder.target_scale.fill_(0.6)
        if kind in ("batchtopk", "matryoshka"):
            getattr(coder.activation, "batch", coder.activation).threshold.fill_(3.0)
    return coder.eval()


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", ["relu", "jumprelu", "batchtopk", "matryoshka"])
def test_saelens_round_trip(tmp_path, weights, kind, skip):  # noqa: F811
    ours = random_of(kind, skip)
    write_saelens(ours, tmp_path / "t")
    again = read_saelens(tmp_path / "t")
    codes = ours.codes(weights["x"])
    agree(again, weights["x"], codes.to_dense(), ours.decode(codes) + ours.skipped(weights["x"]))


@pytest.mark.parametrize("kind", ["topk", "abstopk", "gated"])
def test_kinds_that_saelens_has_no_transcoder_for(tmp_path, kind):
    with pytest.raises(ConfigError, match=f"activation '{kind}' cannot be written for SAELens, whose transcoders"):
        write_saelens(random_of(kind, True), tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("transcode", [False, True])
def test_sparsify(tmp_path, weights, skip, transcode):  # noqa: F811
    w = weights
    if not (skip or transcode):
        pytest.skip("an autoencoder")
    decoder = w["D"] * (w["norms"][:, None] if transcode else 1)  # rows of transcoders have any norm
    tensors = {"encoder.weight": w["W"], "encoder.bias": w["b"], "W_dec": decoder, "b_dec": w["c"]}
    around = 0
    if skip:
        tensors["W_skip"] = torch.eye(D) + w["W"][:D]
        around = w["x"] @ tensors["W_skip"].T
    config = {"activation": "topk", "d_in": D, "num_latents": M, "k": K}
    config |= {"transcode": transcode, "skip_connection": skip}
    coder = load_sae(write(tmp_path / "t", config, tensors, FILES))
    codes = top((w["x"] - (0 if transcode else w["c"])) @ w["W"].T + w["b"])
    agree(coder, w["x"], codes, codes @ decoder + w["c"] + around)
    with pytest.raises(InputError, match="no tensor 'W_skip'" if not skip else "holds W_skip"):
        read_sparsify(write(tmp_path / "t", config | {"skip_connection": not skip, "transcode": True}, tensors, FILES))


@pytest.mark.parametrize("skip", [False, True])
def test_gemma_scope(tmp_path, more, skip):
    w = more
    tensors = {"w_enc": w["W"].T, "w_dec": w["D"], "b_enc": w["b"], "b_dec": w["c"], "threshold": w["theta"]}
    if skip:
        tensors["affine_skip_connection"] = w["skip"].T
    config = {"architecture": "jump_relu", "hf_hook_point_in": "here", "hf_hook_point_out": "there"}
    coder = load_sae(write(tmp_path / "t", config, tensors, ("config.json", "params.safetensors")))
    codes = jump(w["x"] @ w["W"].T + w["b"], w["theta"])
    agree(coder, w["x"], codes, codes @ w["D"] + w["c"] + (w["x"] @ w["skip"].T if skip else 0))


PLACES = 3


def crosscoder(folder, dict_class, config=None, **change):
    random = torch.Generator().manual_seed(2)
    draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    tensors = {
        "encoder.weight": draw(PLACES, D, M),
        "encoder.bias": draw(M),
        "decoder.weight": draw(PLACES, M, D),
        "decoder.bias": draw(PLACES, D),
        "code_normalization_id": torch.tensor(1),
    }
    if dict_class == "BatchTopKCrossCoder":
        tensors |= {"k": torch.tensor(K), "threshold": torch.tensor(70.0)}
    trainer = {"dict_class": dict_class, "activation_dim": D, "dict_size": M, **(config or {})}
    tensors |= change
    return write(folder, {"trainer": trainer}, tensors, ("config.json", "ae.pt")), tensors


@pytest.mark.parametrize("dict_class", ["CrossCoder", "BatchTopKCrossCoder"])
def test_dictionary_learning(tmp_path, dict_class):
    folder, w = crosscoder(tmp_path / "c", dict_class)
    coder = load_sae(folder)
    assert isinstance(coder, Crosscoder) and coder.config.parts == (D,) * PLACES
    x = torch.randn(30, PLACES, D, generator=torch.Generator().manual_seed(4))
    f = (torch.einsum("npd,pdw->nw", x, w["encoder.weight"]) + w["encoder.bias"]).relu()
    sums = w["decoder.weight"].norm(dim=2).sum(0)
    if dict_class == "BatchTopKCrossCoder":
        f = torch.where(f * sums > 70, f, 0.0)
        assert coder.config.activation == "batchtopk" and coder.config.k == K
    got = coder.codes(x.flatten(1))
    torch.testing.assert_close(got.to_dense(), f * sums / PLACES**0.5, atol=1e-4, rtol=1e-4)
    expected = torch.einsum("nw,pwd->npd", f, w["decoder.weight"]) + w["decoder.bias"]
    torch.testing.assert_close(coder.decode(got), expected.flatten(1), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(coder.relative_norms, w["decoder.weight"].norm(dim=2).T / sums[:, None])


def test_crosscoders_that_cannot_be_read_are_one_line(tmp_path):
    for change, said in (
        ({"code_normalization_id": torch.tensor(2)}, "not chosen by the sum of the norms"),
        ({"threshold": torch.zeros(PLACES)}, r"threshold has shape \[3\]"),
        ({"activation_mean": torch.zeros(PLACES, D)}, "holds activation_mean, which this kind"),
        ({"decoder.bias": torch.zeros(D)}, r"decoder.bias has shape \[12\], but .* which makes \[3, 12\]"),
    ):
        folder, _ = crosscoder(tmp_path / "c", "BatchTopKCrossCoder", **change)
        with pytest.raises(InputError, match=said) as error:
            read_dictionary_learning(folder)
        assert "\n" not in str(error.value)


def test_a_crosscoder_is_not_written_for_saelens(tmp_path):
    folder, _ = crosscoder(tmp_path / "c", "CrossCoder")
    with pytest.raises(ConfigError, match="a crosscoder cannot be written for SAELens, which has none"):
        write_saelens(load_sae(folder), tmp_path / "t")
