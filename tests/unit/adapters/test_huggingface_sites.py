"""What attention and the feed-forward part add, and what each head gives: held against the arithmetic of the block."""

import copy
import shutil

import pytest
import torch
from transformers import (
    AutoModel,
    BartConfig,
    DistilBertConfig,
    FalconConfig,
    GPTNeoXConfig,
    MPNetConfig,
    Qwen2Config,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)

from hourglass.adapters.huggingface import HuggingFaceReader
from hourglass.errors import ConfigError

TEXTS = ["the quick brown fox", "", "one two three", "fox " * 90]
SIZES = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
FEED = {"intermediate_size": 64, "max_position_embeddings": 64}
MADE = {
    "bart": BartConfig(
        vocab_size=400,
        d_model=32,
        encoder_layers=3,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
    ),
    "distilbert": DistilBertConfig(
        vocab_size=400, dim=32, n_layers=3, n_heads=4, hidden_dim=64, max_position_embeddings=64
    ),
    "falcon": FalconConfig(**SIZES, parallel_attn=True),
    "gpt_neox": GPTNeoXConfig(**SIZES, **FEED),
    "mpnet": MPNetConfig(**SIZES, **FEED),
    "qwen2": Qwen2Config(**SIZES, **FEED, num_key_value_heads=2, head_dim=16),
    "roberta": RobertaConfig(**SIZES, **FEED, pad_token_id=1),
    "t5": T5Config(vocab_size=400, d_model=32, d_kv=16, d_ff=64, num_layers=3, num_heads=4),
    "xlnet": XLNetConfig(vocab_size=400, d_model=32, n_layer=3, n_head=4, d_inner=64),
}
# By hand, for block 2: the output projection of attention.
PROJECTIONS = {
    "bart": "layers.1.self_attn.out_proj",
    "bert": "encoder.layer.1.attention.output.dense",
    "distilbert": "transformer.layer.1.attention.out_lin",
    "falcon": "h.1.self_attention.dense",
    "gpt2": "h.1.attn.c_proj",
    "gpt_neox": "layers.1.attention.dense",
    "llama": "layers.1.self_attn.o_proj",
    "mpnet": "encoder.layer.1.attention.attn.o",
    "qwen2": "layers.1.self_attn.o_proj",
    "roberta": "encoder.layer.1.attention.output.dense",
    "t5": "block.1.layer.0.SelfAttention.o",
}
# Where a norm follows each addition: the one after attention, the one after the feed-forward part.
NORMS = {
    "bart": ("layers.1.self_attn_layer_norm", "layers.1.final_layer_norm"),
    "bert": ("encoder.layer.1.attention.output.LayerNorm", "encoder.layer.1.output.LayerNorm"),
    "distilbert": ("transformer.layer.1.sa_layer_norm", "transformer.layer.1.output_layer_norm"),
    "mpnet": ("encoder.layer.1.attention.LayerNorm", "encoder.layer.1.output.LayerNorm"),
    "roberta": ("encoder.layer.1.attention.output.LayerNorm", "encoder.layer.1.output.LayerNorm"),
}
# Where it precedes the feed-forward part: it is given the stream before or after attention was added.
NORMS_BEFORE = {
    "falcon": ("h.1.input_layernorm", False),
    "gpt2": ("h.1.ln_2", True),
    "gpt_neox": ("layers.1.post_attention_layernorm", False),
    "llama": ("layers.1.post_attention_layernorm", True),
    "qwen2": ("layers.1.post_attention_layernorm", True),
    "t5": ("block.1.layer.1.layer_norm", True),
}
PLACES = [(1, "residual"), (2, "residual"), (2, "attention"), (2, "mlp"), (2, "head"), (2, "head:3")]


@pytest.fixture(scope="module")
def folders(models_folder, tmp_path_factory):
    """A function from a name to a folder with a model of three blocks; made when first asked for."""
    root = tmp_path_factory.mktemp("sites")

    def folder(name):
        if name not in MADE:
            return str(models_folder / name)
        if not (root / name).exists():
            torch.manual_seed(0)
            model = AutoModel.from_config(MADE[name])
            for weight in model.parameters():  # biases and norms that are not those of a new model
                torch.nn.init.normal_(weight, std=0.3)
            model.save_pretrained(root / name)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(models_folder / "bert" / file, root / name)
        return str(root / name)

    return folder


@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_block_is_the_sum_of_its_parts(folders, name):
    reader = HuggingFaceReader(folders(name), layer=2, dtype="float32")
    read = reader.read_sites(TEXTS, PLACES)
    before, after, attention, mlp, heads, head = (read[place].states for place in PLACES)
    part = reader._runs.module.get_submodule
    with torch.no_grad():
        if name in NORMS:
            middle, last = (part(path) for path in NORMS[name])
            expected = last(mlp + middle(attention + before))
        else:
            expected = before + attention + mlp
        torch.testing.assert_close(after, expected, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(part(PROJECTIONS[name])(heads), attention, atol=2e-5, rtol=1e-4)
    width = heads.shape[1] // 4
    assert torch.equal(head, heads[:, 3 * width :])
    assert all(torch.equal(tokens.offsets, read[PLACES[0]].offsets) for tokens in read.values())


@pytest.mark.parametrize("name", PROJECTIONS)
def test_what_goes_into_the_feed_forward_part(folders, name):
    reader = HuggingFaceReader(folders(name), layer=2, dtype="float32")
    read = reader.read_sites(TEXTS, [(1, "residual"), (2, "attention"), (2, "mlp_in"), (2, "mlp")])
    before, attention, given, mlp = (tokens.states for tokens in read.values())
    path, after_attention = (NORMS[name][0], True) if name in NORMS else NORMS_BEFORE[name]
    with torch.no_grad():
        expected = reader._runs.module.get_submodule(path)(before + attention if after_attention else before)
    torch.testing.assert_close(given, expected, atol=2e-5, rtol=1e-4)
    assert given.shape == mlp.shape


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("site", ["residual", "attention", "head", "head:1", "mlp", "mlp_in"])
def test_one_site_is_the_same_as_among_several(folders, name, site):
    one = HuggingFaceReader(folders(name), layer=2, site=site, dtype="float32")
    several = HuggingFaceReader(folders(name), layer=3, dtype="float32")
    read = one.read(TEXTS)
    assert read.states.shape[1] == one.width
    assert torch.equal(read.states, several.read_sites(TEXTS, [(3, "mlp"), (-2, site)])[-2, site].states)
    assert torch.equal(several.read(TEXTS).states, several.read_sites(TEXTS, [(3, "residual")])[3, "residual"].states)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_the_last_state_and_any_layer_from_one_pass(folders, name):
    reader = HuggingFaceReader(folders(name), dtype="float32")
    read = reader.read_sites(TEXTS, [(None, "residual"), (0, "residual"), (2, "residual")])
    for layer in (None, 0, 2):
        alone = HuggingFaceReader(folders(name), layer=layer, dtype="float32").read(TEXTS)
        assert torch.equal(read[layer, "residual"].states, alone.states)


def test_reading_leaves_nothing_in_the_network(folders):
    reader = HuggingFaceReader(folders("gpt2"), layer=2, site="mlp", dtype="float32")
    expected = copy.deepcopy(reader).read(TEXTS).states
    reader.read_sites(TEXTS, PLACES)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in reader._runs.module.modules())
    assert torch.equal(reader.read(TEXTS).states, expected)


@pytest.mark.parametrize(
    ("layer", "site", "said"),
    [
        (2, "mpl", r"site 'mpl': expected .* \(did you mean 'mlp'\?\)"),
        (2, "mlp:1", "expected residual, attention, mlp, mlp_in, head, or head:N"),
        (2, "head:", "expected residual"),
        (2, "head:4", "layer 2, site 'head:4': the block has 4 heads, 32 wide together; expected 0 to 3"),
        (0, "mlp", "the embeddings have only the site 'residual'"),
        (None, "head", "say of which layer"),
        (9, "mlp", "layer 9: the model has 3 blocks"),
    ],
)
def test_sites_that_do_not_exist(folders, layer, site, said):
    with pytest.raises(ConfigError, match=said) as error:
        HuggingFaceReader(folders("bert"), layer=layer, site=site)
    assert "\n" not in str(error.value)


def test_a_block_of_unknown_parts_is_refused_with_their_names(folders):
    with pytest.raises(ConfigError, match=r"no feed-forward part in a XLNetLayer, which has rel_attn, .*ff\.layer_1"):
        HuggingFaceReader(folders("xlnet"), layer=1, site="mlp")
    with pytest.raises(ConfigError, match="no start of a feed-forward part in a XLNetLayer"):
        HuggingFaceReader(folders("xlnet"), layer=1, site="mlp_in")
    with pytest.raises(ConfigError, match="no attention with an output projection"):
        HuggingFaceReader(folders("xlnet"), layer=1, site="head")


@pytest.mark.parametrize("place", [(3, "mlp"), (None, "residual"), (4, "residual")])
def test_places_beyond_the_readers_layer_are_refused(folders, place):
    reader = HuggingFaceReader(folders("bert"), layer=2, dtype="float32")
    with pytest.raises(ConfigError, match=r"the reader stops at layer 2|the model has 3 blocks"):
        reader.read_sites(TEXTS, [(1, "mlp"), place])
    with pytest.raises(ConfigError, match="at least one"):
        reader.read_sites(TEXTS, [])


@pytest.mark.parametrize(
    ("layer", "site", "middle"), [(None, "residual", 2), (-1, "mlp", 2), (2, "head:1", 2), (1, "residual", 1)]
)
def test_the_middle_is_at_two_thirds_or_at_the_readers_layer(folders, layer, site, middle):
    reader = HuggingFaceReader(folders("bert"), layer=layer, site=site, dtype="float32")
    assert reader.middle == (middle, "residual")
    assert reader.place == (3 if layer == -1 else layer, site)
    both = reader.read_sites(TEXTS, [reader.place, reader.middle])
    torch.testing.assert_close(both[reader.place].states, reader.read(TEXTS).states)
