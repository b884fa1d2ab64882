"""A claim at the size of a test: every part is measured, and what is kept of real runs is left alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hourglass.cli import app
from hourglass.errors import InputError

ROOT = Path(__file__).parents[2]


BASELINES = ("dense", "bm25")
FOUND_IN = ("answers", "questions", "statements", "essays", "questions_by_words", "statements_by_words")
SURVEYED = ("fused", "cross", "cascade", "cascade_cost", "deepct", "rm3")
DRAWN = ("full_over_ce", "over_masked_diffusion", "over_autoregressive", "eighth_as_whole")
CLUSTERED = ("news_question", "news_comment", "essays", "requests", "interests")


@pytest.mark.parametrize(
    ("name", "only_with_data"),
    [
        ("interpretable_embeddings", {"class_feature"}),
        ("fast_sae", set()),
        ("explore_diff", {"found_where_told"}),
        ("explore_correlate", {"found_where_named"}),
        ("explore_injected", set()),
        ("explore_find", {f"{corpus}_above_{baseline}" for corpus in FOUND_IN for baseline in BASELINES}),
        ("explore_cluster", {f"{corpus}_above_{b}" for corpus in CLUSTERED for b in ("kmeans", "phrases")}),
        ("dupmae", set()),
        ("text2token", set()),
        ("clm_mlm", set()),
        ("bart", set()),
        ("binary_paragraph_vector", set()),
        ("sentencevae", set()),
        ("bert_ir", {f"{part} {name}" for part in SURVEYED for name in ("cranfield", "npl_vaswani")}),
        ("cosmos", {f"mauve_{part}" for part in DRAWN}),
        ("adapt", {"cranfield", "npl_vaswani", "squad_questions"}),
    ],
)
def test_a_smoke_run_measures_every_part_and_keeps_nothing(name, only_with_data, monkeypatch):
    monkeypatch.chdir(ROOT)
    kept = {path: path.read_bytes() for path in (ROOT / "claims" / "results").glob("*.json")}
    arguments = ["claim", name, "--budget", "smoke", "--json"]
    result = CliRunner(env={"HOURGLASS_DATA": None}).invoke(app, arguments, catch_exceptions=False)
    found = json.loads(result.stdout)
    assert set(found["statement"]) - only_with_data <= set(found["verdict"])
    for part in found["verdict"].values():
        assert part["units"] >= 1  # a planting of which nothing is reported has no row in some parts
        assert part["low"] <= part["difference"] <= part["high"]
        assert part["verdict"] in ("holds", "does not hold", "inconclusive")
    assert kept == {path: path.read_bytes() for path in (ROOT / "claims" / "results").glob("*.json")}


def test_the_claim_of_fast_falls_when_its_flow_is_the_baselines(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from claims import base, fast_sae

    monkeypatch.setitem(fast_sae.FLOWS, "fast", fast_sae.FLOWS["bt_f"])
    monkeypatch.setitem(fast_sae.SIZES, "smoke", replace(fast_sae.SIZES["smoke"], readers=1))
    monkeypatch.setitem(fast_sae.SEEDS, "smoke", (0,))
    found = base.run("fast_sae", ROOT, "smoke", "command --data DIR")
    assert found["command"] == "command"  # there is no use for public data
    for part in ("special_flow", "special_after_first", "special_flow_relu", "special_flow_jumprelu", "masked_states"):
        assert found["verdict"][part]["verdict"] == "does not hold"
    assert found["verdict"]["special_flow"]["difference"] == 0
    assert found["verdict"]["masked_states"]["mean_ours"] < 2  # blocks are not what masks give


def test_seeds_that_are_there_are_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from claims import base

    def measure(data, seeds, budget):
        asked.extend(seeds)
        if 2 in seeds and len(asked) == 3:
            raise KeyboardInterrupt
        return [base.Row(part="a", unit="0", seed=seeds[0], ours=1.0, baseline=float(seeds[0]))]

    asked = []
    with pytest.raises(KeyboardInterrupt):
        base._seed_by_seed(measure, None, (0, 1, 2), "laptop", tmp_path)
    rows = base._seed_by_seed(measure, None, (0, 1, 2), "laptop", tmp_path)
    assert asked == [0, 1, 2, 2]
    assert [row.baseline for row in rows] == [0.0, 1.0, 2.0]
    kept = tmp_path / "1.json"
    kept.write_text(kept.read_text().replace('"code": "', '"code": "other'))  # by other code
    base._seed_by_seed(measure, None, (0, 1, 2), "laptop", tmp_path)
    assert asked[4:] == [1]


def test_packages_of_the_chat_reader_stay_apart(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from claims.readers.chat import SPLITS, chat_corpus

    rows = [
        {
            "package": p,
            "module": f"{p}.m",
            "name": f"{p}_{i}",
            "text": f"{p} says the {i}th thing, in a long sentence of its own.",
        }
        for p, size in {"a": 200, "b": 160, "c": 60, "d": 40, "e": 25, "f": 15}.items()
        for i in range(size)
    ]
    for seed in range(5):
        corpus = chat_corpus(rows, seed)
        assert corpus.text
        inside = [{text.split()[0] for text in corpus.text}]
        for split in ("train", "validation", "test"):
            dialogues = getattr(corpus, split)
            assert {len(d) // 2 for d in dialogues} <= {1, 2, 3}
            assert all([t["role"] for t in d] == ["user", "assistant"] * (len(d) // 2) for d in dialogues)
            inside.append({turn["content"].split()[0] for d in dialogues for turn in d if turn["role"] == "assistant"})
        assert sum(map(len, inside)) == len(set.union(*inside)) == 6
    assert sum(SPLITS.values()) == pytest.approx(1)


def test_an_unknown_claim_is_named(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match="no claim 'interpretable'"):
        CliRunner().invoke(app, ["claim", "interpretable"], catch_exceptions=False)
