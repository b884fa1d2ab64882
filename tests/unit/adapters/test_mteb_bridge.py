"""The bridge to mteb: against a stand-in with its documented interface, and against the package where it is installed."""

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import sparse

from hourglass.adapters.mteb import mteb_model
from hourglass.errors import ConfigError, InputError, MissingExtra


class LetterCounts:
    """Queries are told from documents by a third number."""

    def encode_document(self, texts):
        return np.array([[t.count("a"), t.count("b"), 0] for t in texts], np.float32)

    def encode_query(self, texts):
        return self.encode_document(texts) + np.array([0, 0, 1], np.float32)


@pytest.fixture
def stand_in(monkeypatch):
    """mteb.models.ModelMeta with its way to be made."""

    class ModelMeta:
        @classmethod
        def create_empty(cls, overwrites=None):
            meta = cls()
            vars(meta).update(overwrites or {})
            return meta

    package, models = ModuleType("mteb"), ModuleType("mteb.models")
    package.models, models.ModelMeta = models, ModelMeta
    monkeypatch.setitem(sys.modules, "mteb", package)
    monkeypatch.setitem(sys.modules, "mteb.models", models)


def test_what_mteb_calls(stand_in):
    model = mteb_model(LetterCounts(), "me/letters", revision="1")
    assert (model.mteb_model_meta.name, model.mteb_model_meta.revision) == ("me/letters", "1")
    batches = [{"text": ["ab", "aab"]}, {"text": ["b"], "title": [""]}]
    told = {"task_metadata": None, "hf_split": "test", "hf_subset": "default", "batch_size": 2}
    documents = model.encode(batches, prompt_type=None, **told)
    assert documents.tolist() == [[1, 1, 0], [2, 1, 0], [0, 1, 0]]
    queries = model.encode(batches, prompt_type="query", **told)
    assert queries[:, 2].tolist() == [1, 1, 1]
    cosines = model.similarity(queries, torch.from_numpy(documents))
    assert cosines.shape == (3, 3)
    assert model.similarity_pairwise(queries, documents).tolist() == pytest.approx(cosines.diagonal().tolist())
    assert cosines.max() <= 1
    assert model.similarity(queries[0], documents).shape == (1, 3)
    dot = mteb_model(LetterCounts(), "me/letters", similarity="dot")
    assert dot.similarity(queries, documents).numpy() == pytest.approx(queries @ documents.T)


def test_what_does_not_fit(stand_in, monkeypatch):
    with pytest.raises(ConfigError, match="expected 'owner/model'"):
        mteb_model(LetterCounts(), "letters")
    with pytest.raises(InputError, match="without 'text'"):
        mteb_model(LetterCounts(), "me/letters").encode([{"image": [0]}])

    class Sparse(LetterCounts):
        def encode_document(self, texts):
            return sparse.csr_matrix((len(texts), 9))

    with pytest.raises(ConfigError, match="sparse"):
        mteb_model(Sparse(), "me/letters").encode([{"text": ["a"]}])
    monkeypatch.setitem(sys.modules, "mteb.models", None)
    with pytest.raises(MissingExtra, match=r"pip install 'hourglass-ai\[mteb\]'"):
        mteb_model(LetterCounts(), "me/letters")


@pytest.mark.skipif(importlib.util.find_spec("mteb") is None, reason="mteb is not installed")
def test_mteb_itself_runs_a_task(tmp_path):
    import mteb
    from mteb.mocks.mock_tasks import MockRetrievalTask, MockSTSTask

    model = mteb_model(LetterCounts(), "me/letters")
    assert isinstance(model, mteb.EncoderProtocol)
    results = mteb.evaluate(model, [MockSTSTask(), MockRetrievalTask()], cache=None)
    assert len(results.task_results) == 2
