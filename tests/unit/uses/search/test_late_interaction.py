"""Token vectors in a few bits, and documents scored by the best of their tokens."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.errors import ConfigError, FolderError
from hourglass.uses.search.late_interaction import KeptTokens, MaxSim, keep_tokens, lay_tokens, open_late
from hourglass.uses.search.residuals import BITS, Compressed, Residuals, _packed, _unpacked, centres, unit
from hourglass.uses.search.stages import Query

D = 16


class Model:
    """A vector of its own for every word."""

    def _made(self, texts):
        return [
            np.array([np.random.default_rng(sum(map(ord, word))).normal(size=D) for word in text.split()]).reshape(
                -1, D
            )
            for text in texts
        ]

    encode_query = encode_document = _made


TEXTS = ["red stone", "blue river red", "", "green apple apple", *(f"bird{i} tree{i % 7} sky" for i in range(60))]


def clustered(n, seed=0, spread=0.1):
    random = np.random.default_rng(seed)
    return unit(
        (random.normal(size=(8, D))[random.integers(0, 8, n)] + spread * random.normal(size=(n, D))).astype("f4")
    )


@given(st.sampled_from(BITS), st.integers(0, 5), st.integers(0, 10))
def test_packing_loses_nothing(bits, n, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, (n, D)).astype(np.uint8)
    packed = _packed(codes, bits)
    assert packed.shape == (n, D * bits // 8)
    assert (_unpacked(packed, bits) == codes).all()


def test_more_bits_come_nearer():
    vectors = clustered(2000)
    errors = []
    for bits in BITS:
        codec = Residuals.fit(vectors, bits, 8)
        made = codec.decode(codec.encode(vectors * 3))  # lengths do not count
        assert made == pytest.approx(unit(made), abs=1e-5)
        errors.append(1 - float((made * vectors).sum(1).mean()))
    assert errors == sorted(errors, reverse=True) and errors[0] < 0.03 and errors[2] < 0.002


def test_a_dimension_has_the_value_of_its_bucket():
    vectors = clustered(500)
    codec = Residuals.fit(vectors, 2, 4)
    kept = codec.encode(vectors)
    near = (vectors @ codec.centroids.T).argmax(1)
    assert kept.nearest.tolist() == near.tolist()
    expected = np.empty_like(vectors)
    for i, vector in enumerate(vectors):
        for j in range(D):
            rest = vector[j] - codec.centroids[near[i], j]
            expected[i, j] = codec.centroids[near[i], j] + codec.values[(codec.cuts <= rest).sum()]
    assert codec.decode(kept) == pytest.approx(unit(expected), abs=1e-6)


def test_the_codec_is_kept_and_a_foreign_file_is_refused(tmp_path):
    codec = Residuals.fit(clustered(200), 4, 4)
    codec.save(tmp_path / "codec.safetensors")
    again = Residuals.load(tmp_path / "codec.safetensors")
    vectors = clustered(50, seed=1)
    assert (again.decode(again.encode(vectors)) == codec.decode(codec.encode(vectors))).all()
    (tmp_path / "other.safetensors").write_bytes(b"no")
    for name in ("other.safetensors", "none.safetensors"):
        with pytest.raises(FolderError, match=name):
            Residuals.load(tmp_path / name)


@pytest.mark.parametrize(
    ("shape", "arguments", "said"),
    [
        ((9, D), {"bits": 3}, "bits 3: expected one of 1, 2, 4, 8"),
        ((9, 5), {"bits": 1}, "bits 1 of 5 dimensions"),
        ((0, D), {}, "no vector"),
        ((9, D), {"centroids": 10}, "more than the 9 vectors"),
    ],
)
def test_settings_that_do_not_fit_are_named(shape, arguments, said):
    with pytest.raises(ConfigError, match=said):
        Residuals.fit(np.ones(shape), **arguments)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 4), st.sampled_from(BITS), st.integers(0, 99), st.data())
def test_a_score_is_the_weighed_sum_of_the_best(counts, words, bits, seed, data):
    random = np.random.default_rng(seed)
    codec = Residuals.fit(clustered(64), bits, 4)
    tokens = codec.encode(clustered(sum(counts), seed)) if sum(counts) else codec.encode(np.zeros((0, D)))
    query = random.normal(size=(words, D)).astype("f4")
    weights = random.uniform(0, 2, words).astype("f4")
    with tempfile.TemporaryDirectory() as folder:
        lay_tokens([(tokens, np.array(counts, np.int64))], Path(folder), codec)
        kept = KeptTokens(Path(folder), codec)
        rows = np.array(data.draw(st.permutations(range(len(counts)))), np.int64)
        made, ranked = kept.scores(query, weights, rows), kept.best(query, weights, 3)
    vectors, ends = codec.decode(tokens), np.cumsum([0, *counts])
    expected = np.zeros(len(counts))
    for row, (a, b) in enumerate(pairwise(ends)):
        if b > a:
            expected[row] = sum(weight * (vectors[a:b] @ token).max() for weight, token in zip(weights, query))
    assert made == pytest.approx(expected[rows], abs=1e-4)
    assert ranked.scores == pytest.approx(np.sort(expected)[::-1][:3], abs=1e-4)


def test_pruning_takes_each_token_for_its_centroid(tmp_path, monkeypatch):
    codec = Residuals.fit(clustered(500), 2, 16)
    counts = np.random.default_rng(1).integers(0, 6, 200)
    tokens = codec.encode(clustered(int(counts.sum()), 3))
    lay_tokens([(Compressed(*(part[:7] for part in tokens)), np.array([7])), (tokens, counts)], tmp_path, codec)
    kept, query = KeptTokens(tmp_path, codec), unit(np.random.default_rng(2).normal(size=(5, D)).astype("f4"))
    monkeypatch.setattr("hourglass.uses.search.late_interaction._SCORED", 20)
    found = kept.best(query, np.ones(5), 5, probe=16)
    places, lengths = kept.places(np.arange(201))
    near, ends = np.concatenate([tokens.nearest[:7], tokens.nearest])[places], np.cumsum(np.append(0, lengths))
    roughly = [(codec.centroids[near[a:b]] @ query.T).max(0).sum() if b > a else -np.inf for a, b in pairwise(ends)]
    best = np.argsort(-np.array(roughly), kind="stable")[:20]
    scores = kept.scores(query, np.ones(5), best)
    assert found.rows.tolist() == best[np.lexsort((best, -scores))][:5].tolist()


def test_centres_of_rows_that_are_alike_come_without_a_word():
    assert centres(np.ones((5, 3), np.float32), 2).tolist() == [[1, 1, 1]] * 2


@pytest.fixture
def kept(tmp_path):
    return keep_tokens(iter(TEXTS), Model(), tmp_path / "tokens", bits=8, centroids=32)


def test_documents_come_back_by_their_words(kept):
    assert len(kept) == len(TEXTS)
    search = MaxSim(kept, Model(), probe=None)
    found = search.run([Query("q", "red river"), Query("r", "tree3 sky bird3")])
    assert found[0].rows[0] == 1 and found[0].scores[0] == pytest.approx(2, abs=0.05)
    assert TEXTS[found[1].rows[0]] == "bird3 tree3 sky"
    assert len(found[0]) == len(TEXTS) and dict(zip(*vars(found[0]).values()))[2] == 0
    rows = np.array([5, 1, 2])
    by_row = dict(zip(found[0].rows.tolist(), found[0].scores.tolist()))
    assert search.score(Query("q", "red river"), rows) == pytest.approx([by_row[row] for row in rows.tolist()])


def test_a_few_centroids_find_what_all_documents_do(kept, monkeypatch):
    monkeypatch.setattr("hourglass.uses.search.late_interaction._SCORED", 8)
    query = [Query("q", "red river")]
    few, everything = ((MaxSim(kept, Model(), probe=probe) % 2).run(query)[0] for probe in (1, None))
    assert few.rows.tolist() == everything.rows.tolist()
    asked = unit(Model().encode_query(["red river"])[0].astype("f4"))
    assert len(kept.near(asked, 1)) < len(TEXTS)
    assert set(kept.near(asked, 99).tolist()) == set(range(len(TEXTS))) - {2}  # the one without tokens is near nothing


def test_a_query_without_tokens_finds_everything_alike(kept):
    assert set(MaxSim(kept, Model()).run([Query("q", "")])[0].scores.tolist()) == {0.0}


def test_what_is_kept_is_there_whole_or_not_at_all(tmp_path):
    class Breaks(Model):
        def encode_document(self, texts):
            raise RuntimeError("gone")

    with pytest.raises(RuntimeError):
        keep_tokens(TEXTS, Breaks(), tmp_path / "tokens")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="none of the first 2 texts"):
        keep_tokens(["", " "], Model(), tmp_path / "tokens")
    keep_tokens(TEXTS, Model(), tmp_path / "tokens")
    path = tmp_path / "tokens" / "nearest.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FolderError, match="cannot be read"):
        KeptTokens(tmp_path / "tokens")


def test_probe_is_checked(kept):
    with pytest.raises(ConfigError, match="probe 0"):
        MaxSim(kept, Model(), probe=0)


def test_a_plain_encoder_opens_as_a_late_one(tmp_path):
    from encoders import make_pair

    network, tokenizer = make_pair("bert")
    network.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    model = open_late(str(tmp_path / "encoder"), device="cpu")
    kept = keep_tokens(["red stone", "blue river", "green apple"], model, tmp_path / "tokens", bits=8, centroids=2)
    found = MaxSim(kept, model, probe=None).run([Query("q", "blue river")])[0]
    assert sorted(found.rows.tolist()) == [0, 1, 2]
    with pytest.raises(FolderError, match="no late-interaction model"):
        open_late(str(tmp_path / "nowhere"))
