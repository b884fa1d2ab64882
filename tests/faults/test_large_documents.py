"""A document of 10 MB among others: nothing is cut, nothing else is lost, and every verb answers."""

import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import hourglass as hg
from corpus import documents, write_csv
from hourglass.cli import app

# Few tokens in many characters, so that it is large for everything but the encoder's time.
LARGE = ("The goal of the striker in the match. " + "=" * 20 + "x" * 99_942) * 100


@pytest.fixture(scope="module")
def rows():
    whole = documents(90)
    whole[7]["body"] = LARGE
    return whole


@pytest.fixture(scope="module")
def ws(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    source = write_csv(folder / "texts.csv", rows)
    return hg.explore(source, out=folder / "ws", text="body", by="topic", width=64, k=8, progress=False)


def says(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_all_of_it_is_coded_and_so_are_the_others(ws):
    tokens = np.concatenate([coded.codes.tokens for coded in ws.coded()])
    assert len(LARGE) == 10_000_000
    assert len(tokens) == 90
    assert (tokens > 0).all()
    assert tokens[7] > 100 * 9  # the sentences of every part
    assert (ws.folder / "report.html").stat().st_size < 5_000_000


@pytest.mark.parametrize(
    "call",
    [
        ("find", "the goal of the striker"),
        ("find", "--like", "d7"),
        ("diff", "--by", "topic"),
        ("verify", "--by", "topic", "--a", "cooking", "--b", "football"),
        ("verify", "--by", "topic", "--a", "cooking", "--b", "football", "--judge", "local"),
        ("correlate",),
        ("cluster", "-n", "2"),
    ],
)
def test_every_verb_answers_in_a_page(ws, call):
    verb, *rest = call
    assert 0 < len(says(verb, ws.folder, *rest)) < 50_000


def test_it_is_a_fresh_document_to_verify_on_and_one_to_add(ws, rows, tmp_path):
    fresh = write_csv(tmp_path / "fresh.csv", [{**r, "id": f"f{r['id']}", "body": r["body"] + " So."} for r in rows])
    call = ("verify", ws.folder, "--by", "topic", "--a", "cooking", "--b", "football", "--documents", fresh)
    assert "45 and 45 fresh documents" in says(*call)
    assert "90 documents added" in says("embed", shutil.copytree(ws.folder, tmp_path / "grown"), fresh)
