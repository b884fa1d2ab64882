"""What an exploration reads and keeps: mean states in the middle of the model beside the states of all tokens."""

import numpy as np
import pytest
import torch

import hourglass as hg
from corpus import documents
from hourglass.adapters.huggingface import HuggingFaceReader, pooled
from hourglass.storage.atomic import read_json
from hourglass.uses.explore import learning, windows
from hourglass.uses.explore.reading import MIDDLE, TOKENS, read
from hourglass.uses.explore.scores import dense_rows

SMALL = {"text": "body", "width": 32, "k": 4, "progress": False}


@pytest.fixture
def small_windows(monkeypatch):
    """Documents are read a few at a time, and long ones in parts."""
    monkeypatch.setattr(windows, "WINDOW_CHARACTERS", 400)


def bodies(texts):
    return [{"body": text, "id": str(i)} for i, text in enumerate(texts)]


def test_states_of_both_places_come_from_one_pass():
    reader, texts = HuggingFaceReader("minilm"), ["A storm came.", "", "Nobody slept that night."]
    tokens, middle = read(reader, texts)
    assert torch.equal(tokens.states, reader.read(texts).states.half())
    alone = HuggingFaceReader("minilm", layer=4).read(texts)
    np.testing.assert_array_equal(middle, pooled(alone).half().numpy())
    assert not middle[1].any() and middle[0].any()


@pytest.mark.parametrize("long", [False, True])
def test_every_document_has_its_mean_states(tmp_path, small_windows, long):
    texts = [d["body"] for d in documents(30)] + ["A river, a stone and a bird. " * 40] * long
    ws = hg.explore(bodies(texts), out=tmp_path / "ws", **SMALL)
    reader = ws.coder.reader
    dense, middle = (dense_rows(ws, np.arange(len(texts)), name) for name in ("dense", "middle"))
    expected = pooled(reader.read(texts)), pooled(reader.read_sites(texts, [reader.middle])[reader.middle])
    whole = slice(0, 30)  # a long document is read in parts that do not see each other
    for found, of_all in zip((dense, middle), expected):
        np.testing.assert_allclose(found[whole], of_all.numpy()[whole], atol=0.02)
        cosine = np.corrcoef(found[-1], of_all.numpy()[-1])[0, 1]
        assert not long or cosine > 0.9
    ws.embed([{"body": text, "id": f"again {i}"} for i, text in enumerate(texts[:5])], progress=False)
    np.testing.assert_allclose(dense_rows(ws, np.arange(len(texts), len(texts) + 5), "middle"), middle[:5], atol=0.02)


def test_a_kill_between_documents_and_tokens_keeps_each_once(tmp_path, small_windows, monkeypatch):
    whole = hg.explore(documents(40), out=tmp_path / "whole", **SMALL)
    append, calls = learning.append_states, []

    def killed(rows, *rest, **named):
        calls.append(rows.done)
        if len(calls) == 3:
            raise KeyboardInterrupt
        append(rows, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(learning, "append_states", killed)
        with pytest.raises(KeyboardInterrupt):
            hg.explore(documents(40), out=tmp_path / "ws", **SMALL)
    counts = [read_json(tmp_path / "ws" / part / "rows.json")["done"] for part in (TOKENS, MIDDLE)]
    assert counts == [2, 3]
    again = hg.explore(documents(40), out=tmp_path / "ws", **SMALL)
    own, of_whole = (dense_rows(ws, np.arange(40), "middle") for ws in (again, whole))
    np.testing.assert_array_equal(own, of_whole)
    assert (again.codes != whole.codes).nnz == 0
