"""Codes of an index: learned from its own vectors, kept with it, or those of the encoder."""

import numpy as np
import pytest

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from indexes import WORDS, counting, documents, ordered

from hourglass.bottlenecks.discrete import fit_hasher
from hourglass.errors import ConfigError, FolderError, InputError
from hourglass.metrics.codes import pack, two_stage
from hourglass.systems.binary_paragraph_vector import BinaryParagraphVector, BinaryParagraphVectorConfig
from hourglass.uses.search import coding, writing
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.stages import Query

DOCUMENTS = documents(120)
LEARNED = [("median", None), ("hyperplanes", 40), ("itq", 9), ("itq", None)]


def made(out, source=DOCUMENTS, **options):
    return SearchIndex.create(source, out, **{"encoder": counting, "progress": False, **options})


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def codes_of(index, rows=None):
    column = index.take(np.arange(len(index)) if rows is None else rows, ["code"])["code"]
    return np.array([list(code) for code in column.to_pylist()], np.uint8)


@pytest.mark.parametrize(("code", "bits"), LEARNED)
def test_codes_are_those_of_a_hasher_learned_from_the_kept_vectors(tmp_path, code, bits):
    index = made(tmp_path / "ix", code=code, bits=bits, dtype="float32")
    rows = unit(counting([d["text"] for d in DOCUMENTS]))
    expected = fit_hasher(code, rows, bits)
    assert np.array_equal(codes_of(index), expected.codes(rows))
    assert index.manifest["code"] == {"id": code, "bits": bits or len(WORDS)}
    assert index.coder.bits == (bits or len(WORDS))


@pytest.mark.parametrize(("code", "bits"), [*LEARNED, ("sign", None)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_text_has_the_same_code_as_a_query_and_as_a_document_that_came_later(tmp_path, code, bits, dtype):
    index = made(tmp_path / "ix", code=code, bits=bits, dtype=dtype)
    before = codes_of(index)
    index.append([{"id": f"n{d['id']}", "text": d["text"]} for d in DOCUMENTS[:30]], progress=False)
    index.update([{"id": d["id"], "text": d["text"]} for d in DOCUMENTS[30:40]], progress=False)
    index.delete(["d50"])
    later = SearchIndex(tmp_path / "ix", encoder=counting)
    kept = dict(zip(later.names(np.arange(len(later))), codes_of(later).tolist()))
    for i, document in enumerate(DOCUMENTS):
        if i == 50:
            continue
        asked = later.codes([Query("1", document["text"])])[0].tolist()
        assert asked == kept[document["id"]] == before[i].tolist() == kept.get(f"n{document['id']}", asked)


def test_only_a_sample_is_learned_from_whatever_the_number_of_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(coding, "_SAMPLE", 30)
    learned = []

    def fit(method, vectors, bits):
        learned.append(vectors)
        return fit_hasher(method, vectors, bits)

    monkeypatch.setattr(coding, "fit_hasher", fit)
    index = made(tmp_path / "ix", code="itq", bits=8, dtype="float32")
    rows = unit(counting([d["text"] for d in DOCUMENTS]))
    assert learned[0].shape == (30, len(WORDS))
    places = [int(np.abs(rows - row).sum(1).argmin()) for row in learned[0]]
    assert max(places) > 90, "from all of the corpus, not from its beginning"
    assert len(codes_of(index)) == 120


@pytest.mark.parametrize("moment", ["reading", "learning", "coding"])
def test_a_build_that_was_killed_goes_on_with_the_same_code(tmp_path, monkeypatch, moment):
    monkeypatch.setattr(writing, "_COMMITTED_AT_ONCE", 40)
    monkeypatch.setattr(writing, "_TEXTS_AT_ONCE", 20)
    whole = made(tmp_path / "whole", code="itq", bits=8)

    read = []

    def reads(texts):
        read.extend(texts)
        if moment == "reading" and 61 < len(read) <= 81:
            raise KeyboardInterrupt
        return counting(texts)

    reads.__name__ = "counting"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(BaseException, match=r"^$|KeyboardInterrupt"):
        if moment != "reading":
            patch.setattr(coding, "fit_hasher" if moment == "learning" else "arrow_codes", killed)
        made(tmp_path / "ix", code="itq", bits=8, encoder=reads)
    building = tmp_path / ".ix.new"
    assert building.is_dir()
    assert (building / "hasher.safetensors").is_file() == (moment == "coding")
    if moment == "coding":
        monkeypatch.setattr(coding, "fit_hasher", killed)  # it is not learned twice
    read = ["from here on"] * 100
    index = made(tmp_path / "ix", code="itq", bits=8, encoder=reads)
    left = 80 if moment == "reading" else 0
    assert len(read) == 100 + 1 + left, "nothing is encoded twice but the sentence by which an encoder is known"
    assert np.array_equal(codes_of(index), codes_of(whole))


def test_what_was_learned_for_other_settings_is_forgotten(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(coding, "arrow_codes", lambda codes: 1 / 0)
        with pytest.raises(Exception, match="division by zero"):
            made(tmp_path / "ix", code="itq", bits=8)
    index = made(tmp_path / "ix", code="itq", bits=5)
    assert index.coder.bits == 5
    assert np.array_equal(codes_of(index), codes_of(made(tmp_path / "other", code="itq", bits=5)))


def test_near_codes_first_and_their_vectors_after(tmp_path):
    index = made(tmp_path / "ix", code="itq", bits=8, dtype="float32")
    rows, codes = unit(counting([d["text"] for d in DOCUMENTS])), codes_of(index)
    for text in ("red apple", "paris anna river"):
        asked = unit(counting([text]))[0]
        code = index.codes([Query("1", text)])[0]
        distances = np.array([bin(int.from_bytes((c ^ code).tobytes())).count("1") for c in codes])
        short = ordered(-distances, 20)
        found = index.pipeline("hamming % 20 >> dense % 5").run([Query("1", text)])[0]
        cosines = rows @ asked
        assert found.rows.tolist() == sorted(short, key=lambda row: (-cosines[row], row))[:5]
        radius = int(np.sort(distances)[10])
        within = index.pipeline(f"hamming(radius={radius}) >> dense").run([Query("1", text)])[0]
        near = two_stage(code, codes, asked, rows, radius=radius)
        assert np.allclose(cosines[within.rows], cosines[near]), "as two_stage has it"


def test_vectors_that_the_source_has_get_codes(tmp_path):
    source = [{**d, "embedding": counting([d["text"]])[0].tolist()} for d in DOCUMENTS]
    given = made(tmp_path / "given", source, vectors="embedding", encoder=None, code="itq", bits=8)
    assert np.array_equal(codes_of(given), codes_of(made(tmp_path / "own", code="itq", bits=8)))
    with pytest.raises(ConfigError, match="13 bits of 12 numbers by 'itq': expected from 1 to 12"):
        made(tmp_path / "x", source, vectors="embedding", encoder=None, code="itq", bits=13)
    assert not (tmp_path / ".x.new").exists()


# The encoder's own ------------------------------------------------------------------------------------


def taught(**changes):
    model = BinaryParagraphVector(BinaryParagraphVectorConfig.preset("tiny", **changes))
    model.initialize([model.collate([d["text"] for d in DOCUMENTS])])
    return model.eval()


@pytest.mark.parametrize("latent", ["binary", "real_binary"])
@pytest.mark.parametrize("code", [None, "own"])
def test_an_encoder_that_has_codes_gives_its_own(tmp_path, latent, code):
    model = taught(latent=latent)
    index = made(tmp_path / "ix", encoder=model, code=code)
    texts = [d["text"] for d in DOCUMENTS]
    vectors = np.concatenate([index.encoder.documents([text]) for text in texts])
    import torch

    expected = pack(model.bits_of(torch.from_numpy(vectors)).numpy())
    assert np.array_equal(codes_of(index), expected)
    assert np.array_equal(index.codes([Query("1", text) for text in texts]), expected)
    assert index.manifest["code"] == {"id": "own", "bits": 16}
    index.append([{"id": "n", "text": texts[7]}], progress=False)
    assert codes_of(index, index.rows_of(["n"])).tolist() == [expected[7].tolist()]
    found = index.pipeline("hamming % 10 >> dense % 1").run([Query("1", texts[7])])[0]
    assert index.texts(found.rows) == [texts[7]]


def test_another_code_of_an_encoder_that_has_its_own(tmp_path):
    assert made(tmp_path / "ix", encoder=taught(), code="sign").manifest["code"] == {"id": "sign", "bits": 16}
    real = taught(latent="real", width=24)
    assert made(tmp_path / "real", encoder=real).manifest["code"] is None


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"code": "itq", "encoder": None}, "a binary code is made of vectors: name an encoder"),
        ({"code": "itq", "bits": 13}, "13 bits of 12 numbers by 'itq': expected from 1 to 12"),
        ({"code": "median", "bits": 8}, "8 bits of 12 numbers by 'median': expected 12"),
        ({"code": "hyperplanes", "bits": 0}, "0 bits of 12 numbers by 'hyperplanes': expected 1 or more"),
        ({"bits": 8}, "bits 8: of which code"),
        ({"code": "itk"}, r"no code 'itk' \(did you mean 'itq'\?\)"),
        ({"code": "own"}, "the encoder 'counting' has no codes; expected one of sign, median"),
        ({"code": "itq", "source": DOCUMENTS[:9]}, "code 'itq': 9 vectors: expected 12 or more"),
    ],
)
def test_a_code_that_cannot_be_is_one_line_and_leaves_nothing(tmp_path, options, line):
    with pytest.raises(InputError, match=line) as error:
        made(tmp_path / "ix", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_bits_that_the_encoders_codes_do_not_have(tmp_path):
    with pytest.raises(ConfigError, match="bits 8: the codes of the encoder 'BinaryParagraphVector' have 16"):
        made(tmp_path / "ix", encoder=taught(), bits=8)


def test_a_hasher_that_is_gone_is_one_line(tmp_path):
    index = made(tmp_path / "ix", code="itq", bits=8)
    (tmp_path / "ix" / "hasher.safetensors").unlink()
    with pytest.raises(FolderError, match=r"hasher\.safetensors: missing; make the index again"):
        index.search("red", pipeline="hamming")
