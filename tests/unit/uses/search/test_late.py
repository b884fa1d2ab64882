"""Late interaction over an index: its table holds the tokens, and finds what brute force over the model's own vectors finds."""

import numpy as np
import pytest

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from indexes import documents, ordered
from sentence_transformers import MultiVectorEncoder

from encoders import make_pair
from hourglass.errors import ConfigError, FolderError, InputError
from hourglass.uses.search import late, late_interaction, writing
from hourglass.uses.search.expansion import ColbertPRF
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.late import IndexTokens, Late
from hourglass.uses.search.late_interaction import open_late
from hourglass.uses.search.stages import Found, Query, Ranking
from hourglass.uses.search.term_weights import Coil, CoilConfig
from late_models import save_late

DOCUMENTS = documents(80)
TEXTS = [document["text"] for document in DOCUMENTS]
QUERIES = [Query("1", "red stone red"), Query("2", "paris"), Query("3", "anna peter blue river bird")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_late(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def single(monkeypatch):
    """Vectors of one text do not hang on how many others are read with it."""
    original = late.open_late
    monkeypatch.setattr(late, "open_late", lambda name, **_: original(name))


def made(out, model, source=DOCUMENTS, **options):
    return SearchIndex.create(source, out, **{"encoder": None, "tokens": model, "progress": False, **options})


def brute(model, texts, queries):
    """[queries, texts] by the vectors as they are."""
    opened = MultiVectorEncoder(model, device="cpu")
    asked, read = opened.encode_query(queries), opened.encode_document(texts)
    return opened.similarity(asked, read).cpu().numpy()


@pytest.fixture(scope="module")
def index(tmp_path_factory, model):
    return made(tmp_path_factory.mktemp("index") / "ix", model, token_bits=8)


@pytest.mark.parametrize("filter", [None, "year >= 2012 AND lang = 'en'", "year > 3000"])
@pytest.mark.parametrize("depth", [1, 7, 1000])
def test_given_documents_are_scored_as_those_that_are_found(index, filter, depth):
    view = index if filter is None else index.where(filter)
    stage = Late(view)
    for query, ranking in zip(QUERIES, stage.retrieve(QUERIES, depth)):
        among = 80 if view.selected is None else len(view.selected)
        assert len(ranking) == min(depth, among)
        shuffled = np.random.default_rng(0).permutation(ranking.rows)
        assert np.array_equal(Ranking.of(shuffled, stage.score(query, shuffled)).rows, ranking.rows)
        assert np.array_equal(stage.score(query, ranking.rows), ranking.scores)
        if view.selected is not None:
            assert np.isin(ranking.rows, view.selected).all()


def test_a_score_is_that_of_the_models_own_vectors_but_for_their_compression(index, model):
    expected = brute(model, TEXTS, [query.text for query in QUERIES])
    for scores, ranking in zip(expected, Late(index).retrieve(QUERIES, 80)):
        assert np.allclose(ranking.scores, scores[ranking.rows], atol=0.02 * scores.max())
        assert ranking.rows[0] in ordered(scores, 5)


def test_two_bits_are_nearer_than_one(tmp_path, model):
    expected = brute(model, TEXTS, [QUERIES[2].text])[0]
    errors = []
    for bits in (1, 2, 4):
        index = made(tmp_path / str(bits), model, token_bits=bits)
        errors.append(np.abs(Late(index).score(QUERIES[2], np.arange(80)) - expected).mean())
        rests = index.take(np.array([3]), ["token_ids", "token_rests"]).to_pylist()[0]
        assert len(rests["token_rests"]) == len(rests["token_ids"]) * 16 * bits // 8
    assert errors == sorted(errors, reverse=True)


def test_it_scores_again_what_words_have_found(index):
    found = index.pipeline("bm25 % 20 >> late % 5").run(QUERIES[:1])[0]
    words = index.pipeline("bm25 % 20").run(QUERIES[:1])[0].rows
    scores = Late(index).score(QUERIES[0], words)
    assert found.rows.tolist() == Ranking.of(words, scores, 5).rows.tolist()
    assert index.search("red stone", pipeline="colbert(exact=true) % 3").pipeline == "late % 3"


def test_a_few_centroids_lead_to_the_best(index, monkeypatch):
    everything = Late(index, exact=True).retrieve(QUERIES, 3)
    monkeypatch.setattr(late_interaction, "_SCORED", 12)
    looked = []
    original = late_interaction.KeptTokens.scores

    def scores(kept, vectors, weights, rows):
        looked.append(len(rows))
        return original(kept, vectors, weights, rows)

    monkeypatch.setattr(late_interaction.KeptTokens, "scores", scores)
    few = Late(index, probe=8).retrieve(QUERIES, 3)
    assert looked == [12, 12, 12]
    for one, other in zip(few, everything):
        assert one.rows[0] == other.rows[0]
    view = index.where("lang = 'de'")
    for ranking in Late(view, probe=1).retrieve(QUERIES, 3):
        assert np.isin(ranking.rows, view.selected).all()
    assert looked[-1] <= 12


def test_documents_come_go_and_are_replaced(tmp_path, model):
    index = made(tmp_path / "ix", model)
    index.append([{"id": "new", "text": "anna anna river"}], progress=False)
    index.update([{"id": "d3", "text": "peter engine"}], progress=False)
    index.delete(["d7"])
    index.compact()
    later = SearchIndex(tmp_path / "ix")
    rows = np.arange(len(later))
    texts = later.texts(rows)
    fresh = made(tmp_path / "fresh", model, [{"id": n, "text": t} for n, t in zip(later.names(rows), texts)])
    assert later.take(rows, ["token_ids"]) == fresh.take(rows, ["token_ids"])
    # The same text has the same vectors, whenever it came: by the centroids that were learned first.
    index.append([{"id": f"twin{i}", "text": text} for i, text in enumerate(TEXTS[10:20])], progress=False)
    twins = index.rows_of([f"twin{i}" for i in range(10)])
    firsts = index.rows_of([f"d{i}" for i in range(10, 20)])
    for query in QUERIES:
        assert np.allclose(Late(index).score(query, twins), Late(index).score(query, firsts), atol=1e-5)
    assert Late(index).retrieve([Query("1", "anna anna river")], 1)[0].scores[0] > 0


def test_an_index_from_which_all_was_removed_finds_nothing(tmp_path, model):
    index = made(tmp_path / "ix", model, DOCUMENTS[:6])
    index.delete(where="year > 0")
    assert len(index.search("red", pipeline="late")) == 0
    index.append(DOCUMENTS[:2], progress=False)
    assert len(index.search("red", pipeline="late")) == 2


def test_a_long_document_is_read_in_windows_and_not_cut(tmp_path):
    folder = save_late(tmp_path, length=12)
    text = " ".join(["red stone"] * 20 + ["maria"])
    tokens = open_late(folder, "cpu").tokens([text, "red"])
    tokenizer = make_pair()[1]
    assert tokenizer.convert_tokens_to_ids("maria") in tokens[0].ids
    assert len(tokens[0].ids) == len(tokens[0].vectors) > 41
    assert len(tokens[1].ids) == 3


def test_what_the_model_skips_has_no_vector_and_tokens_know_their_words(index, model):
    row = next(i for i, text in enumerate(TEXTS) if "london " in text)
    tokens = IndexTokens(index).of(np.array([row]))
    tokenizer = MultiVectorEncoder(model, device="cpu").tokenizer
    words = tokenizer.convert_ids_to_tokens(tokens.ids.tolist())
    read = [word for word in TEXTS[row].removesuffix(".").split() if word != "london"]
    assert words == ["[CLS]", *read, "[UNK]", "[SEP]"]
    having = sum("red" in text.split() or "red." in text.split() for text in TEXTS)
    red = np.array([tokenizer.convert_tokens_to_ids("red")])
    assert IndexTokens(index).rarity(red)[0] == pytest.approx(np.log(81 / (having + 1)))


def test_a_plain_encoder_has_the_same_projection_whenever_it_is_opened(tmp_path, capsys):
    for part in make_pair():
        part.save_pretrained(tmp_path / "plain")
    capsys.readouterr()
    index = made(tmp_path / "ix", str(tmp_path / "plain"), DOCUMENTS[:10])
    again = SearchIndex(tmp_path / "ix")
    assert np.array_equal(again.encode_tokens(QUERIES[:1])[0][0], index.encode_tokens(QUERIES[:1])[0][0])
    assert again.append([{"id": "n", "text": "red"}], progress=False) == 1
    assert capsys.readouterr() == ("", "")


def test_centroids_of_another_model_are_not_taken(tmp_path, model, monkeypatch):
    """A build that was killed before its first commit has left them, and nothing that says of what they are."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(late.TokenColumns, "arrow", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        made(tmp_path / "ix", save_late(tmp_path, seed=1))
    left = (tmp_path / ".ix.new" / "codec.safetensors").read_bytes()
    made(tmp_path / "ix", model)
    made(tmp_path / "whole", model)
    codecs = [(tmp_path / name / "codec.safetensors").read_bytes() for name in ("ix", "whole")]
    assert codecs[0] == codecs[1] != left


def test_coil_scores_again_what_was_found_and_is_no_late_interaction_model(tmp_path, index):
    coil = Coil(CoilConfig(max_tokens=64, width=8, dropout=0.0), make_pair()).eval()
    coil.save_pretrained(tmp_path / "coil")
    found = index.pipeline(f'bm25 % 20 >> coil("{tmp_path / "coil"}") % 5').run(QUERIES[:1])[0]
    words = index.pipeline("bm25 % 20").run(QUERIES[:1])[0].rows
    scores = coil.similarity([QUERIES[0].text], index.texts(words))[0]
    assert np.allclose(found.scores, np.sort(scores)[::-1][:5], atol=1e-4)
    with pytest.raises(ConfigError, match=r"a coil, and no late-interaction model; .*coil\(FOLDER\)"):
        made(tmp_path / "ix", str(tmp_path / "coil"))
    with pytest.raises(InputError, match="nowhere: no COIL that can be read"):
        index.pipeline("bm25 >> coil(nowhere)")


@pytest.mark.parametrize("moment", ["learning", "reading"])
def test_a_build_that_was_killed_goes_on_with_the_same_centroids(tmp_path, model, monkeypatch, moment):
    monkeypatch.setattr(writing, "_COMMITTED_AT_ONCE", 20)
    monkeypatch.setattr(writing, "_TEXTS_AT_ONCE", 10)
    monkeypatch.setattr(late, "_LEARNED_DOCUMENTS", 30)
    whole = made(tmp_path / "whole", model)
    read = []
    original = late.TokenEncoder.documents
    stop = {"learning": 25, "reading": 75}[moment]

    def documents_of(encoder, texts):
        read.extend(texts)
        if moment != "done" and len(read) > stop:
            raise KeyboardInterrupt
        return original(encoder, texts)

    monkeypatch.setattr(late.TokenEncoder, "documents", documents_of)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "ix", model)
    codec = tmp_path / ".ix.new" / "codec.safetensors"
    assert codec.is_file() == (moment == "reading")
    before = codec.read_bytes() if moment == "reading" else None
    moment = "done"
    read.clear()
    index = made(tmp_path / "ix", model)
    # The sentence by which the model is known, and what was not committed; only a codec that was not there reads twice.
    assert len(read) == 1 + (80 + 30 if before is None else 40)
    names = ("_id", "token_ids", "token_centroids", "token_rests")
    for name in names:
        assert (
            index.take(np.arange(80), [name])[name].to_pylist() == whole.take(np.arange(80), [name])[name].to_pylist()
        )
    if before is not None:
        assert (tmp_path / "ix" / "codec.safetensors").read_bytes() == before


def test_reading_ahead_for_the_centroids_loses_no_row(tmp_path, model, monkeypatch):
    """What is read ahead is not yet written: a build that is killed then has to read it again."""
    monkeypatch.setattr(writing, "_COMMITTED_AT_ONCE", 10)
    monkeypatch.setattr(writing, "_TEXTS_AT_ONCE", 10)
    original = writing._Build._commit
    commits = []

    def commit(build, batches, passed):
        original(build, batches, passed)
        commits.append(passed)
        if len(commits) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writing._Build, "_commit", commit)
        made(tmp_path / "ix", model)
    assert commits == [10, 20]
    index = made(tmp_path / "ix", model)
    assert index.names(np.arange(len(index))) == [d["id"] for d in DOCUMENTS]


def test_another_model_is_refused_and_both_are_named(tmp_path, model, index):
    other = save_late(tmp_path, seed=1)
    manifest = index.manifest["tokens"]
    with pytest.raises(ConfigError, match="made with the late-interaction model") as error:
        late.TokenEncoder(other).require(manifest, "ix")
    assert model in str(error.value) and other in str(error.value)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"token_bits": 3}, "bits 3: expected one of 1, 2, 4, 8"),
        ({"tokens": "nowhere/at-all"}, "nowhere/at-all: no late-interaction model that can be read"),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(tmp_path, model, options, line):
    with pytest.raises(InputError, match=line) as error:
        made(tmp_path / "ix", model, **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_an_index_lacks_is_said(tmp_path, model):
    index = SearchIndex.create(DOCUMENTS[:5], tmp_path / "ix", encoder=None, progress=False)
    with pytest.raises(ConfigError, match="an index without vectors of tokens; make one with --tokens MODEL"):
        Late(index)
    with pytest.raises(ConfigError, match=r"character 1: .*without vectors of tokens"):
        index.search("red", pipeline="late")
    with pytest.raises(ConfigError, match="without vectors of tokens"):
        index.search("red", pipeline="bm25 >> colbert_prf >> late")
    with pytest.raises(ConfigError, match="probe 0: expected 1 centroid or more"):
        index.search("red", pipeline="late(probe=0)")


# Feedback ---------------------------------------------------------------------------------------------


class Spoken:
    """Two documents of tokens that stand apart: [CLS] is in all ten, 2 and 3 are rare, 4 is in half."""

    ids = np.array([0, 2, 4, 2, 0, 3, 4])
    vectors = np.eye(8, dtype=np.float32)[[0, 2, 4, 2, 0, 3, 4]]

    def of(self, rows):
        where = {0: slice(0, 4), 1: slice(4, 7)}
        parts = [where[row] for row in rows]
        return np.concatenate([self.ids[p] for p in parts]), np.concatenate([self.vectors[p] for p in parts])

    def rarity(self, ids):
        return np.log(11 / (np.array([10, 0, 1, 2, 5])[ids] + 1))


def found(rows):
    return Found(Query("1", "red"), (Ranking(np.array(rows), np.ones(len(rows), np.float32)),))


def test_feedback_adds_the_rarest_of_what_the_first_documents_gather_around():
    own = (np.eye(8, dtype=np.float32)[:1], np.ones(1, np.float32))
    stage = ColbertPRF(lambda queries: [own] * len(queries), Spoken, first=2, clusters=7, terms=2, share=0.5)
    vectors, weights = stage.advance([found([0, 1, 9])])[0].query.tokens
    assert np.allclose(vectors, np.eye(8)[[0, 2, 3]], atol=1e-6)
    assert np.allclose(weights, [1, 0.5 * np.log(11 / 2), 0.5 * np.log(11 / 3)])
    wide = ColbertPRF(lambda queries: [own] * len(queries), Spoken, first=2, terms=99)
    assert len(wide.advance([found([0, 1])])[0].query.tokens[1]) == 1 + 3, "what all documents have says nothing"
    with pytest.raises(ConfigError, match="nothing found yet to learn from"):
        wide.advance([Found(Query("1", "red"))])
    with pytest.raises(ConfigError, match="clusters 0"):
        ColbertPRF(lambda queries: [], Spoken, clusters=0)


def test_a_model_that_pools_tokens_is_refused():
    class Pooled(Spoken):
        ids = np.full(7, -1)

    stage = ColbertPRF(lambda queries: [(np.ones((1, 8)), np.ones(1))], Pooled)
    with pytest.raises(ConfigError, match="the model pools tokens"):
        stage.advance([found([0])])


def test_a_wider_query_is_scored_by_all_of_its_vectors(index):
    first = index.pipeline("late % 5").run(QUERIES[:1])[0]
    steps = index.pipeline("late % 5 >> colbert_prf(first=2, terms=4)")
    query = steps.advance([Found(QUERIES[0])])[0].query
    vectors, weights = query.tokens
    own = index.encode_tokens(QUERIES[:1])[0][0]
    assert np.array_equal(vectors[: len(own)], own) and len(vectors) == len(own) + 4
    kept = IndexTokens(index).kept
    expected = sum(weight * kept.scores(v[None], np.ones(1), np.arange(80)) for v, weight in zip(vectors, weights))
    wider = index.pipeline("late % 5 >> colbert_prf(first=2, terms=4) >> late % 80").run(QUERIES[:1])[0]
    assert np.allclose(wider.scores, expected[wider.rows], atol=1e-4)
    assert wider.rows[0] in first.rows
    again = index.pipeline("bm25 % 9 >> colbert_prf >> bm25 % 9 >> late").run(QUERIES[:1])[0]
    assert len(again) <= 9


def test_what_is_damaged_is_one_line(tmp_path, model):
    index = made(tmp_path / "ix", model, DOCUMENTS[:6])
    index.search("red", pipeline="late")
    path = tmp_path / "ix/cache/late@1/nearest.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FolderError, match=r"late@1: .*remove it"):
        index.search("red", pipeline="late")
    (tmp_path / "ix/codec.safetensors").unlink()
    with pytest.raises(FolderError, match=r"codec\.safetensors"):
        index.search("red", pipeline="late")


def test_few_texts_are_read_at_a_time_and_nothing_else_changes(tmp_path, model, monkeypatch):
    whole = made(tmp_path / "whole", model, token_bits=8)
    monkeypatch.setattr(late, "_TEXTS_AT_ONCE", 7)
    read = []
    original = late.TokenEncoder.documents
    monkeypatch.setattr(late.TokenEncoder, "documents", lambda self, t: read.append(len(t)) or original(self, t))
    few = made(tmp_path / "few", model, token_bits=8)
    assert max(read) == 7
    rows = np.arange(80)
    assert few.take(rows, ["token_ids"]) == whole.take(rows, ["token_ids"])
    for query in QUERIES:
        assert np.allclose(Late(few).score(query, rows), Late(whole).score(query, rows), atol=1e-3)
