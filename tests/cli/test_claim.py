"""A claim at the size of a test: every part is measured, and what is kept of real runs is left alone."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hourglass.cli import app
from hourglass.errors import InputError

ROOT = Path(__file__).parents[2]


def test_a_smoke_run_measures_every_part_and_keeps_nothing(monkeypatch):
    monkeypatch.chdir(ROOT)
    kept = {path: path.read_bytes() for path in (ROOT / "claims" / "results").glob("*.json")}
    arguments = ["claim", "interpretable_embeddings", "--budget", "smoke", "--json"]
    result = CliRunner(env={"HOURGLASS_DATA": None}).invoke(app, arguments, catch_exceptions=False)
    found = json.loads(result.stdout)
    without_data = {part for part in found["statement"] if part != "class_feature"}
    assert set(found["verdict"]) == without_data
    for part in found["verdict"].values():
        assert part["units"] > 1
        assert part["low"] <= part["difference"] <= part["high"]
        assert part["verdict"] in ("holds", "does not hold", "inconclusive")
    assert kept == {path: path.read_bytes() for path in (ROOT / "claims" / "results").glob("*.json")}


def test_an_unknown_claim_is_named(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match="no claim 'interpretable'"):
        CliRunner().invoke(app, ["claim", "interpretable"], catch_exceptions=False)
