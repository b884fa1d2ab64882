"""Trends against planted ones, and orders of columns."""

from dataclasses import asdict
from datetime import date, datetime

import numpy as np
import pytest

from hourglass.errors import ConfigError, InputError
from hourglass.metrics.trends import trends
from hourglass.systems.interpretable_embeddings import PAPER_TREND
from hourglass.uses.explore.ordering import ordered_bins
from workspaces import WIDTH, make_workspace


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """2,000 documents of five years. Feature 1 rises, 2 falls, 3 is noise, 4 peaks in the middle, 5 follows length.

    Documents grow longer over the years.
    """
    random = np.random.default_rng(0)
    year = random.integers(0, 5, 2000)
    tokens = (np.exp(random.normal(4, 0.5, 2000)) * (1 + 0.5 * year)).astype(int) + 1
    maxima = np.zeros((2000, WIDTH))
    maxima[:, 1] = random.random(2000) < 0.1 + 0.06 * year
    maxima[:, 2] = random.random(2000) < 0.5 - 0.08 * year
    maxima[:, 3] = random.random(2000) < 0.3
    maxima[:, 4] = random.random(2000) < np.array([0.1, 0.3, 0.5, 0.3, 0.1])[year]
    maxima[:, 5] = random.random(2000) < np.minimum(0.9, tokens / 400)
    texts = [f"text {'old' if y < 2 and i % 2 else 'new'} word" for i, y in enumerate(year)]
    columns = {
        "year": (2020 + year).tolist(),
        "day": [date(2020 + y, 1, 1 + i % 20) for i, y in enumerate(year)],
        "grade": np.array(["poor", "fair", "good", "great", "superb"])[year].tolist(),
        "same": ["x"] * 2000,
    }
    return make_workspace(tmp_path_factory.mktemp("moving") / "ws", texts, columns, maxima, tokens=tokens, shard=700), (
        year,
        maxima,
    )


def features(found):
    return found.table["feature"].dropna().tolist()


def test_what_rises_and_falls_is_found_with_its_size(moving):
    ws, _ = moving
    found = ws.trend("year")
    table = found.table.set_index("feature")
    assert set(features(found)) == {1, 2}
    assert table.loc[1, "low"] < 0.24 < table.loc[1, "high"]
    assert table.loc[2, "low"] < -0.32 < table.loc[2, "high"]
    assert (table["q"] <= 0.05).all()
    assert found.documents == 2000
    words = found.table[found.table["kind"] == "word"].set_index("label")
    assert words.loc["old", "change"] < -0.3
    assert found.table["change"].abs().is_monotonic_decreasing


def test_intervals_allow_for_what_was_looked_at(moving):
    ws, (year, maxima) = moving
    found = ws.trend("year", match_length=False)
    told_by_words = [word for word in ws.words if "old" in word or "new" in word]  # all documents have the others
    shown, tested = len(found.table), 5 + len(told_by_words)
    counts = np.array([[maxima[year == y, 2].sum() for y in range(5)]])[:, :, None]
    wanted = trends(counts, np.bincount(year)[None, :], 1 - 0.05 * shown / tested)
    row = found.table.set_index("feature").loc[2]
    assert (row["low"], row["high"]) == pytest.approx((4 * wanted.low[0], 4 * wanted.high[0]))


def test_documents_without_a_value_make_no_bin_too_small(tmp_path):
    maxima = np.zeros((900, WIDTH))
    maxima[20:40, 1] = 1
    years = [1] * 20 + [2] * 20 + [None] * 860
    found = make_workspace(tmp_path / "ws", ["a b"] * 900, {"n": years}, maxima).trend("n")
    assert found.bins["documents"].tolist() == [20, 20]
    assert features(found) == [1]


def test_the_shares_of_bins_are_those_of_the_documents(moving):
    ws, (year, maxima) = moving
    found = ws.trend("year")
    assert found.bins["name"].tolist() == ["2020", "2021", "2022", "2023", "2024"]
    assert found.bins["documents"].tolist() == np.bincount(year).tolist()
    row = found.table[found.table["feature"] == 1].iloc[0]
    shares = [maxima[year == y, 1].mean() for y in range(5)]
    assert row["frequencies"] == pytest.approx(shares)
    assert all(low < share < high for low, share, high in zip(row["lows"], shares, row["highs"]))
    assert row["against"] == pytest.approx(max(0, *(a - b for i, a in enumerate(shares) for b in shares[i:])))


def test_what_longer_documents_explain_shows_only_without_matching(moving):
    ws, _ = moving
    plain = ws.trend("year", match_length=False)
    assert 5 in features(plain)
    assert any("differ in length" in note for note in plain.notes)
    assert 5 not in features(ws.trend("year"))


def test_monotone_is_the_papers_rule(moving):
    ws, _ = moving
    found = ws.trend("year", monotone=True, threshold=0.1)
    assert set(features(found)) <= {1, 2}
    assert (found.table["against"] == 0).all()
    papers = ws.trend("year", **asdict(PAPER_TREND))
    assert {1, 2} <= set(features(papers))
    assert all(np.all(np.diff(f) >= 0) or np.all(np.diff(f) <= 0) for f in papers.table["frequencies"])


def test_a_peak_is_no_trend_though_a_line_through_it_has_a_slope(tmp_path):
    """A small first bin without it, a full second, less and less after: the line falls, the feature does not just fall."""
    random = np.random.default_rng(0)
    bins = np.repeat([1, 2, 3, 4], [100, 1000, 500, 200])
    maxima = np.zeros((1800, WIDTH))
    maxima[:, 1] = random.random(1800) < np.array([0.1, 0.8, 0.5, 0.2])[bins - 1]
    maxima[:, 2] = random.random(1800) < np.array([0.8, 0.8, 0.5, 0.2])[bins - 1]
    ws = make_workspace(tmp_path / "ws", ["a b"] * 1800, {"n": bins.tolist()}, maxima, shard=700)
    assert features(ws.trend("n")) == [2]


def test_an_order_may_be_given(moving):
    ws, _ = moving
    with pytest.raises(InputError, match=r"holds text without an order \('fair', 'good', 'great' ...\).*--order A,B,C"):
        ws.trend("grade")
    order = ("poor", "fair", "good", "great", "superb")
    assert features(ws.trend("grade", order=order)) == features(ws.trend("year"))
    turned = ws.trend("grade", order=order[::-1])
    assert turned.table.set_index("feature").loc[1, "change"] < 0
    some = ws.trend("grade", order=("poor", "superb"))
    assert any("are left out" in note for note in some.notes)
    with pytest.raises(InputError, match=r"no value 'bad'.*there are"):
        ws.trend("grade", order=("bad", "good"))


def test_dates_are_cut_into_bins_of_like_size(moving):
    ws, _ = moving
    found = ws.trend("day", bins=4)
    assert found.bins["documents"].between(400, 600).all()
    assert found.bins["name"].iloc[0].startswith("2020-01-01 … 202")
    assert set(features(found)) == {1, 2}


def test_noise_does_not_move(tmp_path):
    false = 0
    for seed in range(8):
        random = np.random.default_rng(seed)
        maxima = (random.random((600, 60)) < random.uniform(0.03, 0.6, 60)).astype(float)
        bins = np.minimum(random.geometric(0.5, 600), 6)  # the last ones small
        ws = make_workspace(tmp_path / str(seed), ["a b"] * 600, {"n": bins.tolist()}, maxima, shard=300)
        false += len(ws.trend("n", threshold=0).table)
    assert false <= 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"by": "yaer"}, "no column 'yaer' .did you mean 'year'"),
        ({"by": "same"}, "holds text without an order"),
        ({"by": "text"}, "holds text without an order"),
        ({"by": "grade", "order": ("poor", "poor")}, "one value"),
    ],
)
def test_mistakes_are_named(moving, call, said):
    ws, _ = moving
    with pytest.raises(InputError, match=said):
        ws.trend(**call)


def test_options_are_checked(moving):
    ws, _ = moving
    with pytest.raises(ConfigError, match="bins 1: a trend needs 2 or more"):
        ws.trend("year", bins=1)


def test_few_documents(tmp_path):
    maxima = np.zeros((60, WIDTH))
    maxima[30:, 1] = 1
    years = [1] * 30 + [2] * 30
    found = make_workspace(tmp_path / "ws", ["a b"] * 60, {"n": years}, maxima).trend("n")
    assert features(found) == [1]
    assert found.table["change"].iloc[0] == pytest.approx(1)
    few = make_workspace(tmp_path / "few", ["a b"] * 60, {"n": [1, 2] * 5 + [None] * 50}, maxima)
    with pytest.raises(InputError, match="cannot be cut into two bins of 10 documents"):
        few.trend("n")


# Orders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([3, 1, 2, 1], ["1", "2", "3"]),
        ([0.5, None, float("nan"), -1.0], ["-1.0", "0.5"]),
        (["10", "9", "", "1"], ["1", "9", "10"]),
        (["v2", "v10", "v1"], ["v1", "v2", "v10"]),
        (["2021-Q4", "2022-Q1", "2021-Q2"], ["2021-Q2", "2021-Q4", "2022-Q1"]),
        (["2021-03-01", "2020-12-31"], ["2020-12-31", "2021-03-01"]),
        ([datetime(2021, 1, 2), datetime(2021, 1, 1, 12)], ["2021-01-01 12:00:00", "2021-01-02"]),
        ([date(2021, 1, 2), date(2020, 1, 1)], ["2020-01-01", "2021-01-02"]),
    ],
)
def test_values_are_put_in_their_order(values, names):
    bins = ordered_bins(values, 10, 1, "c")
    assert bins.names == names
    assert [bins.names[b] if b >= 0 else None for b in bins.of] == [
        str(v.date()) if isinstance(v, datetime) and v.hour == 0 else str(v) if v not in (None, "") and v == v else None
        for v in values
    ]


def test_many_values_are_cut_evenly():
    bins = ordered_bins(list(range(100)), 4, 1, "c")
    assert bins.names == ["0 … 24", "25 … 49", "50 … 74", "75 … 99"]
    assert np.bincount(bins.of).tolist() == [25, 25, 25, 25]
    heavy = ordered_bins([0] * 90 + list(range(1, 11)), 4, 1, "c")
    assert heavy.names == ["0", "1 … 10"]


def test_values_that_few_documents_have_go_with_their_neighbours():
    bins = ordered_bins([1] * 20 + [2] * 3 + [3] * 20 + [4] * 2, 10, 5, "c")
    assert bins.names == ["1", "2 … 4"]
    assert np.bincount(bins.of).tolist() == [20, 25]


@pytest.mark.parametrize("values", [[1, 1, 1], [None, None], ["a"] * 3, []])
def test_no_order_is_refused(values):
    with pytest.raises(InputError, match="column"):
        ordered_bins(values, 10, 2, "column 'c'")
