"""The latents of a trained system as the states of a text: explored, and learned from by a sparse autoencoder."""

import pickle

import pytest
import torch

from hourglass import api
from hourglass.adapters.huggingface import HuggingFaceReader
from hourglass.errors import ConfigError, FolderError
from hourglass.systems.binary_paragraph_vector import BinaryParagraphVector
from hourglass.systems.cosmos import Cosmos, CosmosConfig
from hourglass.systems.readers import LatentReader, open_reader
from hourglass.systems.sentencevae import SentenceVAE
from hourglass.testing import tiny_examples
from hourglass.training import TrainConfig, fit

LONG = "The storm came, and nobody slept. In the morning it was still. " * 4


def tiny(cls):
    torch.manual_seed(0)
    return fit(
        cls(cls.Config.preset("tiny")), tiny_examples(cls), TrainConfig(steps=1, batch_size=8), progress=False
    ).model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each kind: several latents of a piece, one of a sentence, one of a text."""
    root = tmp_path_factory.mktemp("latents")
    for cls in (Cosmos, SentenceVAE, BinaryParagraphVector):
        tiny(cls).save_pretrained(root / cls.system_name())
    return root


def test_pieces_have_several_latents_with_the_characters_of_the_piece(folders):
    reader = open_reader(str(folders / "cosmos"))
    texts = ["", "short", LONG]
    read = reader.read(texts)
    model = api.load(folders / "cosmos")
    pieces = list(model.pieces(LONG))
    assert len(pieces) > 1
    assert read.lengths.tolist() == [0, 4, 4 * len(pieces)]
    assert reader.width == model.latent_width == read.states.shape[1]
    spans = read.spans[4:].reshape(-1, 4, 2)
    assert (spans == spans[:, :1]).all()
    assert [LONG[a:b] for a, b in spans[:, 0].tolist()] == pieces
    torch.testing.assert_close(read.states[4:].view(len(pieces), 4, -1), model.latents(pieces))
    assert reader.read([]).states.shape == (0, reader.width)


def test_latents_come_normalised_where_the_diffusion_has_measured_them():
    texts = list(tiny_examples(Cosmos))
    torch.manual_seed(0)
    model = Cosmos(CosmosConfig.preset("tiny"))
    model.begin("diffusion")
    fit(model, texts, TrainConfig(steps=1, batch_size=8), progress=False)
    found = model.latents_of(texts)
    assert found.mean(0).abs().max() < 0.5
    assert 0.5 < float(found.std(0).median()) < 1.5


def test_sentences_have_a_latent_each_and_cover_the_text(folders):
    reader = open_reader(str(folders / "sentencevae"))
    read = reader.read([LONG])
    model = api.load(folders / "sentencevae")
    sentences = model.cutter.parts([LONG])[0]
    assert "".join(LONG[a:b] for a, b in read.spans.tolist()) == LONG
    assert len(read.states) == len(sentences)
    torch.testing.assert_close(read.states[1], model.vectors_of(model.cutter.ids([sentences[1]])[0])[0].detach())


def test_any_other_system_has_one_of_a_text(folders):
    read = open_reader(str(folders / "binary_paragraph_vector")).read(["a text", "another one"])
    assert read.lengths.tolist() == [1, 1]
    assert read.spans.tolist() == [[0, 6], [0, 11]]


def test_order_does_not_matter_and_a_reader_travels_by_name(folders):
    reader = open_reader(str(folders / "cosmos"))
    texts = [LONG, "short", "a little longer than that"]
    one_by_one = torch.cat([reader.read([text]).states for text in texts])
    torch.testing.assert_close(reader.read(texts).states, one_by_one)
    again = pickle.loads(pickle.dumps(reader))
    assert torch.equal(again.read(texts).states, reader.read(texts).states)
    assert again.describe() == reader.describe()


def test_what_has_no_latents_of_texts_is_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match=r"layer 3: .*cosmos, which is read by its latents"):
        open_reader(str(folders / "cosmos"), layer=3)
    with pytest.raises(ConfigError, match="leave layer and site out"):
        LatentReader(str(folders / "cosmos")).width_at(None, "mlp")
    api.fit("sae", torch.randn(200, 8).numpy(), train={"steps": 2}, out=tmp_path / "sae", d_in=8, width=16, k=2)
    with pytest.raises(ConfigError, match="holds a sae, whose latents are not of texts"):
        open_reader(str(tmp_path / "sae" / "model"))
    assert isinstance(open_reader("minilm"), HuggingFaceReader)


def test_a_folder_without_a_model_says_where_one_may_be(folders, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(FolderError, match=r"no trained model \(no config.json\); a run has it in its folder model/"):
        api.load(run)
    tiny(Cosmos).save_pretrained(run / "model")
    with pytest.raises(FolderError, match=r"no config.json\); name .*run/model"):
        api.load(run)
    (run / "config.json").write_text("{}")
    with pytest.raises(FolderError, match="names no system of Hourglass"):
        api.load(run)


@pytest.mark.parametrize("system", ["cosmos", "sentencevae"])
def test_a_corpus_is_explored_over_latents(folders, tmp_path, system):
    texts = [f"The {animal} sat on mat {i}. It slept." for i in range(30) for animal in ("cat", "dog")]
    workspace = api.explore(texts, out=tmp_path / "space", encoder=str(folders / system), width=32, k=4, progress=False)
    assert len(workspace) == 60
    assert workspace.codes.shape == (60, 32)
    shown = [text for pieces in workspace.examples["pieces"] for text in pieces]
    assert shown and all(text.strip() in texts[0] + " ".join(texts) for text in shown)
    learned = api.fit_sae(
        texts, out=tmp_path / "sae", model=str(folders / system), width=16, k=2, steps=20, progress=False
    )
    assert learned["system"] == system
    again = api.explore_sae(tmp_path / "sae" / "model", texts, progress=False)
    assert again.codes.shape == (60, 16)
