"""Token vectors in a few bits, and documents scored by the best of their tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.errors import ConfigError, FolderError
from hourglass.uses.search.late_interaction import KeptTokens, MaxSim, keep_tokens, max_sim, open_late
from hourglass.uses.search.residuals import BITS, Residuals, _packed, _unpacked, unit
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


@settings(max_examples=30)
@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 4), st.integers(0, 99))
def test_max_sim_is_the_sum_of_the_best(counts, words, seed):
    random = np.random.default_rng(seed)
    tokens = random.normal(size=(sum(counts), D)).astype("f4")
    query = random.normal(size=(words, D)).astype("f4")
    made = max_sim(query, tokens, np.array(counts, np.int64))
    start = 0
    for count, score in zip(counts, made):
        own = tokens[start : start + count]
        assert score == pytest.approx(sum((own @ token).max() for token in query) if count else 0, abs=1e-4)
        start += count


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


def test_a_few_centroids_find_what_all_documents_do(kept):
    query = [Query("q", "red river")]
    few, all_of_them = MaxSim(kept, Model(), probe=1).run(query)[0], MaxSim(kept, Model(), probe=None).run(query)[0]
    assert len(few) < len(all_of_them)
    assert few.rows[:2].tolist() == all_of_them.rows[:2].tolist()
    wide = MaxSim(kept, Model(), probe=99).run(query)[0]
    assert set(wide.rows.tolist()) == set(range(len(TEXTS))) - {2}  # the one without tokens is near nothing


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
