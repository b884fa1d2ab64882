"""An encoder with the words of a corpus beside its vector: what a vector is, by hand, and that anyone opens it."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from hourglass.adapters.huggingface_loading import resolve
from hourglass.cli import app
from hourglass.errors import ConfigError, FolderError, InputError, SourceError
from hourglass.uses.adapt import adapt
from hourglass.uses.vectors import Encoder

TEXTS = [
    "the boundary layer of a flat plate",
    "the transfer of heat in a boundary layer",
    "the lift of a wing at low speed",
    "the flutter of a wing",
    "",
]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted") / "model"
    made = adapt(pd.DataFrame({"text": TEXTS}), folder, text="text", words=64, share=0.3, progress=False)
    assert made.to_dict() == {"documents": 4, "tokens": made.tokens, "width": 384 + 64}
    return folder


def test_a_vector_by_hand(adapted):
    model, plain = SentenceTransformer(str(adapted), device="cpu"), SentenceTransformer(resolve("minilm"), device="cpu")
    texts = [TEXTS[0], "wing wing layer", "words that no text has: zebra"]
    vectors = model.encode(texts)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    dense = vectors[:, :384] / np.linalg.norm(vectors[:, :384], axis=1, keepdims=True)
    assert np.abs(dense - plain.encode(texts, normalize_embeddings=True)).max() < 1e-5

    tokenizer = plain.tokenizer
    held = {}
    for text in TEXTS[:4]:
        for token in set(tokenizer.tokenize(text)):
            held[token] = held.get(token, 0) + 1
    directions = load_file(next(adapted.glob("*WordEmbeddings/model.safetensors")))["emb_layer.weight"].numpy()
    for vector, text in zip(vectors, texts):
        tokens = tokenizer.tokenize(text)
        weights = np.array([np.log(5 / (1 + held.get(token, 0))) for token in tokens])
        words = weights @ directions[tokenizer.convert_tokens_to_ids(tokens)] / weights.sum()
        whole = np.concatenate([plain.encode(text, normalize_embeddings=True), words])
        assert np.abs(vector - whole / np.linalg.norm(whole)).max() < 1e-5


def test_words_that_a_text_shares_bring_it_nearer(adapted):
    model, plain = SentenceTransformer(str(adapted), device="cpu"), SentenceTransformer(resolve("minilm"), device="cpu")
    pair = ["flutter", "the flutter of a wing"]
    nearer = [float(m.similarity(*m.encode(pair, convert_to_tensor=True)[:, None])) for m in (model, plain)]
    assert nearer[0] > nearer[1]


def test_the_encoder_of_the_house_and_transformers_open_it(adapted):
    from transformers import AutoModel

    assert Encoder(str(adapted))(["a wing"]).shape == (1, 448)
    assert AutoModel.from_pretrained(adapted).config.hidden_size == 384


def test_the_same_corpus_gives_the_same_vectors(adapted, tmp_path):
    adapt(pd.DataFrame({"text": TEXTS}), tmp_path / "again", text="text", words=64, share=0.3, progress=False)
    first, second = (SentenceTransformer(str(f), device="cpu").encode(TEXTS) for f in (adapted, tmp_path / "again"))
    assert torch.equal(torch.tensor(first), torch.tensor(second))


def test_prompts_are_kept_and_words_are_put_beside_once(adapted, tmp_path):
    plain = SentenceTransformer(resolve("minilm"), device="cpu", prompts={"query": "question: "})
    plain.save(str(tmp_path / "prompted"))
    made = tmp_path / "made"
    adapt(pd.DataFrame({"text": TEXTS}), made, encoder=str(tmp_path / "prompted"), text="text", words=8, progress=False)
    model = SentenceTransformer(str(made), device="cpu")
    assert model.prompts["query"] == "question: "
    asked = [m.encode("wing", prompt_name="query", normalize_embeddings=True) for m in (plain, model)]
    assert np.abs(asked[0] - asked[1][:384] / np.linalg.norm(asked[1][:384])).max() < 1e-5
    with pytest.raises(ConfigError, match="has words beside its vector already"):
        adapt(pd.DataFrame({"text": TEXTS}), tmp_path / "twice", encoder=str(adapted), text="text", progress=False)


def test_from_the_command_line(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    arguments = ["adapt", str(corpus), "--out", str(tmp_path / "made"), "--words", "16"]
    assert "400 numbers a text" in " ".join(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout.split())
    with pytest.raises(FolderError, match="made: exists"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    arguments[3] = str(tmp_path / "more")
    said = json.loads(CliRunner().invoke(app, [*arguments, "--json", "--limit", "2"], catch_exceptions=False).stdout)
    assert (said["documents"], said["width"]) == (2, 400)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"words": 0}, ConfigError, "words 0: expected 1 or more"),
        ({"share": 0.0}, ConfigError, "share 0.0: expected a number above 0"),
        ({"encoder": "no/such"}, InputError, "no/such: no model"),
        ({"source": pd.DataFrame({"text": ["", " "]})}, SourceError, "no document with text"),
    ],
)
def test_what_cannot_be(tmp_path, settings, error, says):
    source = settings.pop("source", pd.DataFrame({"text": TEXTS}))
    with pytest.raises(error, match=says):
        adapt(source, tmp_path / "made", text="text", progress=False, **settings)
    assert not (tmp_path / "made").exists()
