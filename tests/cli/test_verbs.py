"""Every verb as a person types it: tables, JSON with the documented keys, and one line for every mistake."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hourglass as hg
from corpus import COOKING, FOOTBALL, documents, write_csv
from hourglass.cli import app, main
from workspaces import kind_that_is_told, kinds_in_both, two_texts

DOCS = Path(__file__).parents[2] / "docs"


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(capsys, monkeypatch, *arguments):
    """(exit code, the one line on standard error)."""
    monkeypatch.setattr(sys, "argv", ["hourglass", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return exit.value.code, lines[0]


def documented(verb):
    """The keys that docs/json.md names for a verb."""
    line = next(x for x in (DOCS / "json.md").read_text().splitlines() if x.startswith(f"| `{verb}` "))
    return set(re.findall(r"[a-z_0-9]{2,}", line.split("|", 2)[2])) | {"p", "q", "a", "b"}


def keys_of(value):
    if isinstance(value, dict):
        return set(value) | {k for v in value.values() for k in keys_of(v)}
    return {k for v in value for k in keys_of(v)} if isinstance(value, list) else set()


def test_explore_ends_with_the_report(tmp_path):
    source = write_csv(tmp_path / "texts.csv", documents(60))
    printed = run(
        "explore", source, "--text", "body", "--by", "topic", "--out", tmp_path / "ws", "--width", 64, "--k", 8
    )
    path = Path(printed.rsplit("Report: ", 1)[1].strip().replace("\n", ""))
    assert path == tmp_path / "ws" / "report.html"
    assert "topic" in path.read_text() or "cooking" in path.read_text()
    assert not (tmp_path / "ws" / "sample").exists()


def test_json_has_the_documented_keys(explored, tmp_path):
    more = write_csv(tmp_path / "more.csv", [{**d, "id": f"new{d['id']}"} for d in documents(4, seed=5)])
    grown = shutil.copytree(explored, tmp_path / "grown")  # all others read what was explored
    calls = {
        "diff": ("diff", explored, "--by", "topic"),
        "correlate": ("correlate", explored, "--max-similarity", 1, "--no-split"),
        "trend": ("trend", explored, "--by", "topic", "--order", "football,cooking"),
        "find": ("find", explored, "penalty in the match"),
        "cluster": ("cluster", explored, "--axis", "a match in the stadium", "-n", 2),
        "features DIR": ("features", explored, "--unnamed"),
        "features DIR N": ("features", explored, 3),
        "report": ("report", grown),
        "embed": ("embed", grown, more),
        "export": ("export", grown, tmp_path / "grown.parquet"),
    }
    for verb, call in calls.items():
        got = json.loads(run(*call, "--json"))
        assert verb not in ("correlate", "trend") or got["rows"]
        extra = keys_of(got) - documented(verb) - documented("features DIR")
        assert not extra, (verb, extra)
    source = write_csv(tmp_path / "texts.csv", documents(30))
    got = json.loads(
        run("explore", source, "--out", tmp_path / "ws", "--text", "body", "--width", 32, "--k", 4, "--json")
    )
    assert keys_of(got) <= documented("explore")


def test_what_all_of_the_other_text_predicts_is_shown(tmp_path):
    two_texts(tmp_path, True)
    call = ("correlate", tmp_path / "first", "--with", tmp_path / "second", "--max-similarity", 1)
    printed = run(*call).split("Predicted by all of the other text")[1].split("Documents that are alike")[0]
    (line,) = [line for line in printed.splitlines() if line.startswith("b ")]
    assert "second0" in line and "first" in line
    assert "also:" not in printed  # the group around a document says it once more, by the same names
    got = json.loads(run(*call, "--json"))
    assert got["predicted"]["rows"][0]["label"] == "second0"
    assert not keys_of(got) - documented("correlate")


def test_a_group_that_all_of_the_other_text_predicts_is_shown_by_its_names(tmp_path):
    kind_that_is_told(tmp_path, True)
    call = ("correlate", tmp_path / "first", "--with", tmp_path / "second", "--max-similarity", 1)
    printed = run(*call).split("Predicted by all of the other text")[1].split("Documents that are alike")[0]
    got = json.loads(run(*call, "--json"))
    groups = [row["label"] for row in got["predicted"]["rows"] if row["kind"] == "group"]
    rows = [line.split()[1] for line in printed.splitlines() if line[:2] in ("a ", "b ")]
    assert len(groups) == 2 and rows[:2] == ["group"] * 2 and "group" not in rows[2:]
    assert all(name in printed for label in groups for name in label.split("; "))
    assert not keys_of(got) - documented("correlate")


def test_groups_that_are_alike_in_both_texts_are_shown(tmp_path):
    kinds_in_both(tmp_path, True)
    call = ("correlate", tmp_path / "first", "--with", tmp_path / "second", "--max-similarity", 1)
    printed = run(*call).split("Documents that are alike in both texts (600 documents, 15 neighbours of each)")[1]
    printed_rows = [line.split() for line in printed.splitlines() if line[:9].strip().isdigit()]
    assert len(printed_rows) >= 2 and all(
        "first" in " ".join(row) and "second" in " ".join(row) for row in printed_rows
    )
    rows = json.loads(run(*call, "--json"))["alike_in_both"]["rows"]
    assert [[str(row["documents"]), str(row["shared"])] for row in rows] == [row[:2] for row in printed_rows]


def test_the_axis_is_shown_before_the_clusters(explored):
    printed = run("cluster", explored, "--axis", "a match in the stadium", "-n", 2)
    assert printed.index("Features of the axis") < printed.index("documents in 2 clusters")


def test_a_limit_is_told_and_a_sample_is_spread(tmp_path, capsys, monkeypatch):
    source = write_csv(tmp_path / "sorted.csv", sorted(documents(60), key=lambda d: d["topic"]))
    small = ("--text", "body", "--by", "topic", "--width", 32, "--k", 4)
    got = json.loads(run("explore", source, *small, "--limit", 20, "--out", tmp_path / "first", "--json"))
    assert got["trouble"] == [f"{source}: the first 20 documents were read (limit); sample draws from all of them"]
    assert len(set(hg.open(tmp_path / "first").column("topic"))) == 1
    got = json.loads(run("explore", source, *small, "--sample", 20, "--out", tmp_path / "drawn", "--json"))
    assert got["documents"] == 20 and not got["trouble"]
    assert len(set(hg.open(tmp_path / "drawn").column("topic"))) == 2
    code, line = fails(capsys, monkeypatch, "explore", source, "--sample", 5, "--limit", 5, "--out", tmp_path / "no")
    assert code == 2 and "give one of the two" in line


def test_tables_are_for_people(explored):
    told = run("diff", explored, "--by", "topic")
    assert "football" in told and "taken together: 100 % of the documents" in told
    assert "go together" in run("correlate", explored, "--max-similarity", 1, "--no-split")
    assert "Nothing goes together." in run("correlate", explored, "--min-npmi", 1.1)
    moving = run("trend", explored, "--by", "topic", "--order", "football,cooking")
    rising, falling = moving[moving.index("Rising") :].split("Falling")
    assert any(word in rising for word in COOKING) and any(word in falling for word in FOOTBALL)
    assert "Documents" in run("find", explored, "penalty in the match", "--top", 3)
    assert "Feature 3" in run("features", explored, 3)
    run("features", explored, "--search", "goal")


def test_find_by_examples_and_features(explored):
    found = json.loads(run("find", explored, "--like", "d0", "--like", "d2", "--unlike", "d1", "--top", 10, "--json"))
    assert all(int(d["id"].removeprefix("d")) % 2 == 0 for d in found["documents"][:5])
    assert found["learned"] and set(found["votes"]) == {"features", "dense", "words"}
    shown = run("find", explored, "--like", "d0", "--like", "d2", "--no-learn")
    assert "Votes of the rankings (equal): features 0.33, dense 0.33, words 0.33" in shown
    found = json.loads(run("find", explored, "--feature", "3=0.5", "--feature", "4", "--json"))
    assert [f["weight"] for f in found["features"]] == [0.5, 1.0]


def test_find_after_an_edit_shows_what_was_before(explored):
    call = ("find", explored, "penalty in the match", "--top", 5)
    first = json.loads(run(*call, "--json"))
    dropped = first["features"][0]["feature"]
    edit = ("--feature", "3=2.0", "--without", dropped)
    found = json.loads(run(*call, *edit, "--json"))
    assert keys_of(found) <= documented("find")
    weights = {f["feature"]: f["weight"] for f in found["features"]}
    assert (weights[3], weights[dropped]) == (2.0, 0.0)
    assert 0 < found["overlap"] <= 1
    assert all(d["rank_before"] >= 1 for d in found["documents"])
    assert "before" in run(*call, *edit)
    assert "by_words" not in json.loads(run(*call, "--fuse", "dense", "--json"))["documents"][0]


def test_clusters_follow_the_topic(explored):
    found = json.loads(run("cluster", explored, "-n", 2, "--json"))
    topics = {d["id"]: int(d["id"].removeprefix("d").removeprefix("new")[-1]) % 2 for d in found["assignment"]}
    together = sum((d["cluster"] == 1) == topics[d["id"]] for d in found["assignment"]) / len(topics)
    assert max(together, 1 - together) > 0.9
    table = run("cluster", explored, "--features", "1,2,3,4,5,6", "-n", 2)
    assert "in 2 clusters" in table
    assert "held-out" in table


def test_every_mistake_is_one_line_and_exit_code_2(explored, tmp_path, capsys, monkeypatch):
    source = write_csv(tmp_path / "texts.csv", documents(10))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    cases = [
        (("explore", source, "--text", "bdy", "--out", tmp_path / "x"), "no column 'bdy' (did you mean 'body'?)"),
        (("explore", source, "--by", "topci", "--text", "body", "--out", tmp_path / "x"), "did you mean 'topic'"),
        (("explore", tmp_path / "gone.csv", "--out", tmp_path / "x"), "no such file"),
        (("explore", source, "--text", "body", "--out", explored), "holds a finished workspace"),
        (("explore", source, "--text", "body", "--out", tmp_path / "taken"), "exists and is not a workspace"),
        (("explore", source, "--text", "body", "--out", tmp_path / "taken", "--force"), "--force will not replace it"),
        (("explore", source, "--text", "body", "--out", tmp_path / "x", "--k", "9", "--width", "4"), "expected 1 <= k"),
        (("diff", tmp_path, "--by", "topic"), "not a workspace"),
        (("diff", explored, "--by", "tpic"), "did you mean 'topic'"),
        (("diff", explored, "--by", "topic", "--a", "x"), "no group 'x'"),
        (("correlate", explored, "--with", explored), "the other workspace is the same one"),
        (("trend", explored, "--by", "tpic"), "did you mean 'topic'"),
        (("trend", explored, "--by", "topic"), "text without an order"),
        (("trend", explored, "--by", "topic", "--order", "cooking,x"), "no value 'x'"),
        (("find", explored), "exactly one of"),
        (("find", explored, "--feature", "x=1"), "expected a feature's number"),
        (("find", explored, "--like", "nobody"), "no document with id 'nobody'"),
        (("find", explored, "x", "--fuse", "wrds"), "did you mean 'words'"),
        (("find", explored, "--feature", "3", "--without", "4"), "can only be left out"),
        (("cluster", explored, "--features", "1;2"), "expected numbers with commas"),
        (("cluster", explored, "--features", "9999"), "no feature 9999"),
        (("cluster", explored, "-n", "1"), "expected 2 clusters or more"),
        (("features", explored, "9999"), "no feature 9999"),
        (("claim", "x", "--budget", "huge"), "no budget 'huge'"),
    ]
    for arguments, said in cases:
        code, line = fails(capsys, monkeypatch, *arguments)
        assert code == 2, line
        assert said in line, line
    assert (tmp_path / "taken" / "file").exists()
    assert not (tmp_path / "x").exists()


def test_help_is_quick_and_imports_nothing_heavy():
    code = "import sys, hourglass.cli; print([m for m in ('torch', 'transformers', 'numpy', 'pandas') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
    code = "import sys, hourglass; hourglass.__all__; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "hourglass", "--help"], capture_output=True, check=True)
    assert time.perf_counter() - started < 3  # the benchmark holds it to 0.3 s on a quiet machine
