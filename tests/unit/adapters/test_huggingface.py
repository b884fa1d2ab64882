"""Token states against the models' own output: layers, windows, masks, roles, spans."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from hourglass.adapters.huggingface import HuggingFaceReader, pieces, pooled
from hourglass.errors import ConfigError, FolderError

TEXTS = ["the quick brown fox", "", "héllo wörld, 12345", "one two three four the lazy dog jumps over", "fox"]


def full_states(folder, text, layer):
    """hidden_states[layer] of the whole model on one text, special tokens left out."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    encoded = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
    special = encoded.pop("special_tokens_mask")[0].bool()
    encoded.pop("token_type_ids", None)
    with torch.no_grad():
        states = model(**encoded, output_hidden_states=True)
    chosen = states.last_hidden_state if layer is None else states.hidden_states[layer]
    return chosen[0][~special]


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("layer", [None, 0, 1, 2, -2])
def test_states_are_those_of_the_whole_model(models_folder, name, layer):
    folder = str(models_folder / name)
    reader = HuggingFaceReader(folder, layer=layer, dtype="float32")
    read = reader.read(TEXTS)
    assert read.offsets[2] == read.offsets[1]  # the empty text
    for i, text in enumerate(TEXTS):
        if text:
            expected = full_states(folder, text, 2 if layer == -2 else layer)
            got = read.states[read.offsets[i] : read.offsets[i + 1]]
            torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_later_blocks_are_dropped(models_folder):
    whole = HuggingFaceReader(str(models_folder / "bert"), dtype="float32")
    cut = HuggingFaceReader(str(models_folder / "bert"), layer=1, dtype="float32")
    count = [sum(p.numel() for p in r._runs.module.parameters()) for r in (whole, cut)]
    assert count[1] < count[0]


def test_order_and_batching_do_not_matter(models_folder):
    texts = [" ".join(["fox", "dog", "two"][: 1 + i % 3] * (1 + i % 7)) for i in range(40)]
    one = HuggingFaceReader(str(models_folder / "bert"), dtype="float32", tokens_per_batch=1).read(texts)
    many = HuggingFaceReader(str(models_folder / "bert"), dtype="float32", tokens_per_batch=2000).read(texts)
    assert torch.equal(one.offsets, many.offsets)
    torch.testing.assert_close(one.states, many.states, atol=1e-5, rtol=1e-4)


def test_a_long_text_has_one_state_a_token_from_the_window_that_sees_most(models_folder):
    folder = str(models_folder / "bert")
    reader = HuggingFaceReader(folder, dtype="float32", max_tokens=22, overlap=8)
    text = " ".join(f"one two three {i}" for i in range(60))
    read = reader.read([text])
    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    assert len(read.states) == len(ids)
    assert (np.diff(read.spans[:, 0].numpy()) >= 0).all()
    # Window 2 begins at token 12 and keeps from the middle of its overlap, token 16.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    window = [tokenizer.cls_token_id, *ids[12:32], tokenizer.sep_token_id]
    with torch.no_grad():
        expected = model(torch.tensor([window])).last_hidden_state[0, 1:-1]
    torch.testing.assert_close(read.states[16:28], expected[4:16], atol=2e-5, rtol=1e-4)


def test_pieces_of_a_very_long_text_keep_their_places(models_folder):
    reader = HuggingFaceReader(str(models_folder / "bert"), dtype="float32")
    text = "one two three four " * 12_000
    read = reader.read([text])
    spans = read.spans.numpy()
    assert spans[-1, 1] >= len(text.rstrip())
    assert "".join(text[a:b] for a, b in spans[-6:]).strip() == text[spans[-6, 0] :].strip()


def test_a_role_wraps_the_text_and_is_left_out(models_folder):
    folder = str(models_folder / "llama")
    read = HuggingFaceReader(folder, dtype="float32", role="user").read(["one two"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rendered = "<s><|user|>one two<|end|>"
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(torch.tensor([ids])).last_hidden_state[0]
    inner = len(tokenizer("one two", add_special_tokens=False)["input_ids"])
    torch.testing.assert_close(read.states, expected[2 : 2 + inner], atol=2e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="no chat template"):
        HuggingFaceReader(str(models_folder / "bert"), role="user")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"layer": 9}, ConfigError, "layer 9: the model has 3 blocks"),
        ({"layer": -9}, ConfigError, "the model has 3 blocks"),
        ({"dtype": "int8"}, ConfigError, "expected auto, float32 or bfloat16"),
        ({"max_tokens": 2}, ConfigError, "no room for a text"),
    ],
)
def test_settings_that_do_not_fit(models_folder, arguments, error, said):
    with pytest.raises(error, match=said):
        HuggingFaceReader(str(models_folder / "bert"), **arguments)


def test_a_model_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FolderError, match="no model that can be read") as error:
        HuggingFaceReader(str(tmp_path / "nothing"))
    assert "\n" not in str(error.value)


def test_of_a_run_the_model_inside_is_named(models_folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(models_folder / "bert")
    with pytest.raises(FolderError, match=rf"name {tmp_path}/run/model$"):
        HuggingFaceReader(str(tmp_path / "run"))


def test_a_sentence_transformers_folder(models_folder, tmp_path):
    import json
    import shutil

    shutil.copytree(models_folder / "bert", tmp_path / "st" / "0_Transformer")
    (tmp_path / "st" / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "0_Transformer", "type": "x"}])
    )
    read = HuggingFaceReader(str(tmp_path / "st"), dtype="float32").read(["fox"])
    direct = HuggingFaceReader(str(models_folder / "bert"), dtype="float32").read(["fox"])
    assert torch.equal(read.states, direct.states)


@pytest.fixture(scope="module")
def minilm():
    return HuggingFaceReader("minilm")


def test_half_precision_changes_next_to_nothing(minilm):
    full = HuggingFaceReader("minilm", dtype="float32")
    texts = ["A short one.", "Something a little longer, with numbers like 42 and names like Ada Lovelace."]
    a, b = full.read(texts).states, minilm.read(texts).states.float()
    assert torch.nn.functional.cosine_similarity(a, b).mean() > 0.999


@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60))
def test_spans_point_at_the_text(minilm, text):
    read = minilm.read([text])
    spans = read.spans.numpy()
    assert len(spans) == len(read.states)
    assert ((spans >= 0) & (spans <= len(text))).all()
    assert (spans[:, 0] <= spans[:, 1]).all()


def test_cores_share_the_batches_and_get_their_threads_back(models_folder):
    texts = [f"one two three {i} " * (1 + i % 5) for i in range(120)]
    threads = torch.get_num_threads()
    reader = HuggingFaceReader(str(models_folder / "llama"), layer=2, dtype="float32", tokens_per_batch=64)
    try:
        torch.set_num_threads(1)
        alone = reader.read(texts)
        torch.set_num_threads(3)
        together = reader.read(texts)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(alone.states, together.states, atol=1e-5, rtol=1e-4)


def test_reads_from_several_threads_do_not_mix(models_folder):
    reader = HuggingFaceReader(str(models_folder / "bert"), layer=1, dtype="float32")
    texts = [["fox"] * 30, ["one two three"] * 30, ["héllo"] * 30]
    expected = [reader.read(some).states for some in texts]
    with ThreadPoolExecutor(3) as pool:
        for got, wanted in zip(pool.map(reader.read, texts * 4), expected * 4):
            torch.testing.assert_close(got.states, wanted)


def test_an_error_in_a_batch_reaches_the_caller(models_folder):
    reader = HuggingFaceReader(str(models_folder / "bert"), dtype="float32", tokens_per_batch=8)
    reader._runs.module.embeddings.word_embeddings.weight = torch.nn.Parameter(torch.zeros(2, 32))
    threads = torch.get_num_threads()
    with pytest.raises(IndexError):
        reader.read(TEXTS * 5)
    assert torch.get_num_threads() == threads


def test_a_copy_reads_the_same(models_folder):
    reader = HuggingFaceReader(str(models_folder / "gpt2"), layer=2, dtype="float32")
    twin = copy.deepcopy(reader)
    assert torch.equal(reader.read(TEXTS).states, twin.read(TEXTS).states)


def test_states_can_be_learned_from(models_folder):
    states = HuggingFaceReader(str(models_folder / "bert")).read(TEXTS).states.float()
    weight = torch.zeros(32, 4, requires_grad=True)
    (states @ weight).sum().backward()
    assert weight.grad is not None


def test_nothing_to_read(models_folder):
    reader = HuggingFaceReader(str(models_folder / "bert"))
    for texts, number in (([], 0), ([""], 1), (["", ""], 2)):
        read = reader.read(texts)
        assert read.states.shape == (0, 32)
        assert read.offsets.tolist() == [0] * (number + 1)
        assert read.spans.shape == (0, 2)
        assert pooled(read).shape == (number, 32)


def test_half_a_surrogate_pair_is_read_as_a_sign_that_is_not_known(minilm):
    read = minilm.read(["fine", "a \ud800 b"])
    assert read.spans[read.offsets[1] :].tolist()[0] == [0, 1]
    assert read.spans.tolist()[-1] == [4, 5]


def test_pooled_is_the_mean_of_a_texts_tokens(models_folder):
    read = HuggingFaceReader(str(models_folder / "bert")).read(TEXTS)
    means = pooled(read)
    assert means.dtype == torch.float32
    assert torch.equal(means[1], torch.zeros(32))
    for i in (0, 2, 3, 4):
        expected = read.states[read.offsets[i] : read.offsets[i + 1]].float().mean(0)
        torch.testing.assert_close(means[i], expected)


def test_the_description_makes_the_same_reader_again(models_folder):
    reader = HuggingFaceReader(str(models_folder / "llama"), layer=-2, role="user", max_tokens=40, overlap=4)
    described = reader.describe()
    described.pop("revision")
    twin = HuggingFaceReader(**described)
    assert twin.describe() == reader.describe()
    assert torch.equal(twin.read(TEXTS).states, reader.read(TEXTS).states)


@given(text=st.text(" \n\tab", max_size=200), size=st.integers(2, 50))
def test_pieces_are_the_text(text, size):
    parts = list(pieces(text, size))
    assert "".join(piece for _, piece in parts) == text
    assert all(text[start : start + len(piece)] == piece and len(piece) <= size for start, piece in parts)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 300), max_size=5), overlap=st.integers(0, 12), room=st.integers(24, 64))
def test_windows_give_each_token_one_state(lengths, overlap, room):
    reader = object.__new__(HuggingFaceReader)
    reader._room, reader._overlap = room, overlap
    borders = np.append(0, np.cumsum(np.array(lengths, np.int64)))
    windows = reader._windows(borders)
    given = [token for _, _, first, last in windows for token in range(first, last)]
    assert given == list(range(borders[-1]))
    for start, stop, first, last in windows:
        assert start <= first < last <= stop <= start + room
        inside = set(borders.tolist())
        # Away from the ends of the text, no state comes from the outer half of an overlap.
        assert start in inside or first - start >= overlap // 2
        assert stop in inside or stop - last >= overlap // 2


def test_a_reader_goes_to_another_process_by_name(models_folder):
    reader = HuggingFaceReader(
        str(models_folder / "gpt2"), layer=1, site="mlp", dtype="float32", max_tokens=12, overlap=4
    )
    sent = pickle.dumps(reader)
    there = pickle.loads(sent)
    assert len(sent) < 1000
    assert there.describe() == reader.describe()
    assert torch.equal(there.read(TEXTS).states, reader.read(TEXTS).states)
