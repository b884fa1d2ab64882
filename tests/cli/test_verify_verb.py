"""`hourglass verify` and `hourglass relabel` as a person types them."""

import json
import shutil
import subprocess
import sys
import time
from signal import SIGINT

import pytest
from test_verbs import documented, fails, keys_of, run

from chat_server import chat_server
from corpus import COOKING, FOOTBALL, documents, write_csv
from hourglass.cli.output import out


def model(messages):
    """A model that knows cooking from football and names everything football."""
    prompt = messages[-1]["content"]
    if len(messages) == 2:
        statement, text = prompt.split("\n\nDocument: ")
        words = FOOTBALL if any(word in statement for word in FOOTBALL) else COOKING
        return json.dumps({"reason": "words", "answer": "yes" if sum(w in text for w in words) > 2 else "no"})
    if prompt.startswith("Statement"):
        texts = [json.loads(line)["text"] for line in prompt.splitlines() if line.startswith('{"number"')]
        return json.dumps({"answers": ["yes" if any(w in t for w in FOOTBALL) else "no" for t in texts]})
    if "hypotheses" in prompt:
        lines = [json.loads(line) for line in prompt.splitlines() if line.startswith('{"item"')]
        made = [
            {
                "group": group,
                "description": f"This document tells of {word}.",
                "items": [line["item"] for line in lines if line["group"] == group][:3],
                "examples": [],
                "confidence": 1,
            }
            for group, word in (("A", "x"), ("B", "y"))
        ]
        return json.dumps({"hypotheses": made})
    return json.dumps(
        {"label": "football", "brief_description": "This document tells of football.", "detailed_explanation": "So."}
    )


def test_a_table_for_people(explored):
    printed = run("verify", explored, "--by", "topic", "--a", "football", "--b", "cooking")
    assert "football against cooking: 40 and 40 fresh documents, judged by rule" in printed
    assert "verified (95 %)" in printed
    assert "of the hypotheses above 1 %" in printed
    printed = run("verify", explored, "--by", "topic", "--judge", "rule:goal|league|match", "--a", "football")
    assert "80 and 80 fresh documents" in printed


def test_the_local_judge(explored):
    got = json.loads(run("verify", explored, "--by", "topic", "--judge", "local", "--json"))
    assert got["judge"] == "local"
    assert all(0 <= row["quality"] <= 1 for row in got["hypotheses"])


def test_json_has_the_documented_keys(explored, tmp_path):
    folder = shutil.copytree(explored, tmp_path / "ws")
    more = write_csv(tmp_path / "more.csv", [{**d, "id": f"new{d['id']}"} for d in documents(20, seed=5)])
    with chat_server(model) as chat:
        ask = ("--by", "topic", "--judge", chat.url, "--model", "tiny", "--sample", 10, "--prices", "1/2", "--json")
        got = json.loads(run("verify", folder, *ask, "--documents", more))
        assert (got["documents_a"], got["documents_b"]) == (10, 10)
        assert got["usage"]["estimated_questions"] == 40
        assert got["usage"]["questions"] == len(chat.requests)
        assert got["usage"]["cost"] == pytest.approx(len(chat.requests) * 20e-6)
        assert keys_of(got) <= documented("verify")
        assert (folder / "answers.sqlite").is_file()
        label = ("relabel", folder, chat.url, "--model", "tiny", "--top", 5)
        got = json.loads(run(*label, "--json"))
        asked = len(got["rows"])  # fewer where fewer have a name
        assert 2 <= asked <= 5
        assert keys_of(got) <= documented("relabel")
        assert f"{asked} features asked" in run(*label)
        assert json.loads(run(*label, "--json"))["usage"]["questions"] == 0
    got = json.loads(run("features", folder, got["rows"][0]["feature"], "--json"))
    assert keys_of(got) <= documented("features DIR") | documented("features DIR N")
    run("features", folder)
    run("report", folder)


def test_mistakes_are_one_line(explored, capsys, monkeypatch):
    by = ("verify", explored, "--by", "topic")
    for arguments, said in [
        (("verify", explored, "--by", "tpic"), "did you mean 'topic'"),
        (("verify", explored, "--by", "source"), "has 3 groups"),
        ((*by, "--b", "football"), "group b is given without group a"),
        ((*by, "--judge", "http://127.0.0.1:9/v1"), "which model"),
        ((*by, "--judge", "nobody"), "no judge 'nobody'"),
        ((*by, "--judge", "rule", "--prices", "1/2"), "prices belongs to a chat endpoint"),
        ((*by, "--judge", "http://127.0.0.1:9/v1", "--model", "m", "--prices", "cheap"), "prices 'cheap': expected"),
        ((*by, "--documents", "gone.csv"), "no such file"),
        (("relabel", explored, "there", "--model", "m"), "expected the base address"),
        (("relabel", explored, "http://127.0.0.1:9/v1", "--model", "m", "--feature", 9999), "no feature 9999"),
    ]:
        code, line = fails(capsys, monkeypatch, *arguments)
        assert code == 2, line
        assert said in line, line


def test_a_judge_that_goes_away(explored, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(explored, tmp_path / "ws")
    with chat_server(model) as chat:
        chat.faults = [403] * 999
        code, line = fails(
            capsys,
            monkeypatch,
            "verify",
            folder,
            "--by",
            "topic",
            "--judge",
            chat.url,
            "--model",
            "m",
            "--writer",
            "names",
        )
    assert code == 2
    assert "HTTP 403" in line
    assert "the same call goes on from there" in line


def test_a_stop_by_the_user_leaves_the_answers(explored, tmp_path):
    folder = shutil.copytree(explored, tmp_path / "ws")

    def slow(messages):
        time.sleep(0.02)
        return model(messages)

    with chat_server(slow) as chat:
        command = (
            "verify",
            folder,
            "--by",
            "topic",
            "--judge",
            chat.url,
            "--model",
            "m",
            "--writer",
            "names",
            "--json",
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "hourglass", *map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        while len(chat.requests) < 20 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 130
        assert said.decode().strip() == "hourglass: stopped; the same command goes on from here"
        got = json.loads(run(*command))
        assert got["usage"]["kept"] > 5
        assert got["usage"]["questions"] + got["usage"]["kept"] >= 80


def test_pairs_are_judged(explored, monkeypatch):
    monkeypatch.setattr(out, "_width", 200)  # no cell breaks over lines
    loose = ("--max-similarity", 1, "--max-same-tokens", 1, "--no-split", "--top", 20)
    printed = run("correlate", explored, *loose, "--judge", "rule", "--pairs", 2)
    assert "judged" in printed and "not judged" in printed
    with chat_server(model) as chat:
        call = ("correlate", explored, *loose, "--judge", chat.url, "--model", "m", "--pairs", 1, "--sample", 5)
        got = json.loads(run(*call, "--json"))
        assert not keys_of(got) - documented("correlate")
        asked = len(chat.requests)
        assert got["usage"]["questions"] == asked in (5, 10)  # two features of one name are one question
        again = json.loads(run(*call, "--budget", 100_000, "--prices", "1/2", "--json"))
        assert len(chat.requests) == asked and again["usage"]["estimated_cost"] == 0


def test_a_model_picks_the_features_of_a_query(explored):
    def pick(messages):
        known = [json.loads(line)["feature"] for line in messages[0]["content"].splitlines() if line.startswith('{"f')]
        return json.dumps({"features": known[:2]})

    with chat_server(pick) as chat:
        got = json.loads(run("find", explored, "a match", "--rerank", chat.url, "--model", "m", "--json"))
    assert len(got["features"]) == 2
    assert not keys_of(got) - documented("find")


def test_what_belongs_to_a_judge_is_refused_without_one(explored, capsys, monkeypatch):
    code, line = fails(capsys, monkeypatch, "correlate", explored, "--budget", 5)
    assert (code, line) == (2, "hourglass: --budget belongs to a judge (--judge)")
    code, line = fails(capsys, monkeypatch, "find", explored, "x", "--rerank", "gpt")
    assert code == 2 and "expected the address of a chat endpoint" in line
