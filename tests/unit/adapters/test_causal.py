"""Models that write, and the one line for those that do not."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import BartConfig

from hourglass.adapters.causal import CausalModel, require_causal
from hourglass.errors import ConfigError, FolderError, InputError


@pytest.fixture
def llama(causal_folder, tmp_path):
    return shutil.copytree(causal_folder / "llama", tmp_path / "llama")


def change(folder, name, **values):
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values))


def test_an_encoder_reads_but_does_not_write(models_folder):
    for model in ("minilm", str(models_folder / "bert")):
        with pytest.raises(ConfigError, match="a bert model is an encoder"):
            CausalModel(model)
    require_causal(str(models_folder / "llama"))


def test_an_encoder_decoder_is_refused(tmp_path):
    BartConfig(d_model=8, vocab_size=9).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="a bart model is an encoder-decoder"):
        require_causal(str(tmp_path))


def test_a_model_without_its_head_is_refused(models_folder):
    with pytest.raises(FolderError, match=r"lack 1 tensors of LlamaForCausalLM, lm_head\.weight first"):
        CausalModel(str(models_folder / "llama"))


def test_weights_that_do_not_fill_the_model_are_refused(llama):
    weights = load_file(llama / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FolderError, match="lack 1 tensors"):
        CausalModel(str(llama))


@pytest.mark.parametrize("broken", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\xff not this"])
def test_a_broken_file_is_one_line(llama, broken, content):
    (llama / broken).write_bytes(content)
    with pytest.raises(InputError) as error:
        CausalModel(str(llama))
    assert "\n" not in str(error.value)
    assert "llama" in str(error.value)


def test_code_that_comes_with_a_model_is_not_run(llama):
    change(
        llama, "config.json", model_type="strange", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
    )
    (llama / "own.py").write_text("raise SystemExit('was run')")
    with pytest.raises(FolderError, match="no causal model that can be read"):
        CausalModel(str(llama))


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(FolderError, match="no causal model that can be read") as error:
        CausalModel(str(tmp_path / "nothing"))
    assert "\n" not in str(error.value)


def test_greedy_is_greedy_whatever_the_models_habits(llama, causal_folder):
    change(llama, "generation_config.json", do_sample=True, temperature=5.0, repetition_penalty=3.0, top_k=3)
    texts = []
    for folder in (llama, causal_folder / "llama"):
        model = CausalModel(str(folder), dtype="float32")
        texts.append(model.write(model.batches(["once upon a time"])[0], max_tokens=20))
    assert texts[0] == texts[1]


def test_a_prompt_without_tokens_is_named(causal_folder):
    model = CausalModel(str(causal_folder / "llama"))
    assert model.batches([""])[0]["input_ids"].tolist() == [[1]]  # the beginning of a text is a token
    model.tokenizer.backend_tokenizer.post_processor = None
    model._tokens = lambda prompt, chat: []
    with pytest.raises(InputError, match=r"prompt 0 \(''\) makes no token"):
        model.batches([""])


def test_a_chat_template_that_refuses_is_one_line(llama):
    change(llama, "tokenizer_config.json", chat_template="{{ raise_exception('not you') }}")
    (llama / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"chat template refuses the prompt .not you"):
        CausalModel(str(llama)).batches(["hi"], chat=True)
