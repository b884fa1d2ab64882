"""What the pages say, without a browser; and the doors that are shut."""

import json
import socket
import sys
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hourglass.cli import main
from hourglass.errors import ConfigError, FolderError, InputError, MissingExtra
from hourglass.studio import across, differences, find, map, overview, together
from hourglass.studio.corpus import SHOWN, Corpus
from hourglass.studio.server import address as written
from hourglass.studio.server import is_loopback, listen
from hourglass.studio.shell import stages
from hourglass.studio.views import view
from workspaces import kinds_in_both


@pytest.fixture
def corpus(hostile):
    return Corpus(hostile)


def harmless(html):
    """What was filled in is text: no tag of a document's survives, whatever it holds."""
    assert "<script" not in html and "<img" not in html
    return html


def test_the_overview_shows_what_is_there_and_nothing_of_it_runs(corpus):
    html = harmless(overview.page(corpus))
    assert "<b>80</b> documents" in html
    assert html.count('class="card"') == 7
    assert "&lt;script&gt;alert(1)" in html


def test_concepts_are_found_by_every_word_and_by_number(corpus):
    assert corpus.named("invoice").index.tolist() == [2]
    assert corpus.named("5").index.tolist() == [5]
    assert corpus.named("late DELAY").index.tolist() == [4]
    assert not len(corpus.named("nothing"))
    assert corpus.named(order="common")["frequency"].is_monotonic_decreasing
    with pytest.raises(InputError, match="no feature 99; they go from 0 to 7"):
        corpus.check(99)


def test_a_text_is_read_token_by_token(corpus):
    reading = corpus.read("tax refunds")
    assert [(token.text, token.fires[:1]) for token in reading.tokens if token.text.strip()] == [
        ("tax", ((4, pytest.approx(2 / corpus.workspace.features["p90"][4])),)),
        ("refunds", ((1, 1.0),)),
    ]
    assert "".join(token.text for token in reading.tokens) == "tax refunds"
    with pytest.raises(InputError, match="nothing in this text"):
        corpus.read("   ")


def test_of_a_document_of_ten_megabytes_the_beginning_is_read(corpus):
    reading = corpus.read("word " * 2_000_000)
    assert reading.left_out == 10_000_000 - SHOWN
    assert f"{10_000_000 - SHOWN:,} more are not shown" in view("reading", reading)


def test_differences_lead_to_documents(corpus):
    found = corpus.workspace.diff("team")[0]
    html = harmless(differences.table(found, 0))
    assert "refund" in html and 'class="pick on"' in html
    first = harmless(differences.sides(corpus, found, 0))
    assert "40 of 40" in first and "0 of 40" in first
    assert "All together" in html and "are more like" in html
    ends = harmless(differences.typical(corpus, found, found.together))
    assert f"<bdi>most like {found.a}</bdi>" in ends and ends.count('class="eyebrow"') == 2
    alone = harmless(differences.table(replace(found, table=found.table.head(0))))
    assert "No single difference is larger than chance explains." in alone
    nothing = harmless(differences.table(replace(found, table=found.table.head(0), together=None)))
    assert "No difference is larger than chance explains." in nothing and "All together" not in nothing


def test_pairs_are_drawn(corpus):
    pairs = corpus.correlate(max_similarity=None, max_same_tokens=None)
    assert {(2, 3)} <= set(zip(pairs.table["a"], pairs.table["b"]))
    assert "customdata" in together.drawn(pairs)
    assert "Documents with both" in together.documents(corpus, pairs, 0)
    none = replace(pairs, table=pairs.table.head(0))
    assert together.drawn(none) == ""
    assert "No pair goes together" in together.table(none)


def test_a_word_of_a_pair_is_shown_as_one(corpus):
    pairs = corpus.correlate(max_similarity=None, max_same_tokens=None)
    row = pairs.table.iloc[[0]].assign(kind_b="word", b=pd.NA, label_b="please")
    with_word = replace(pairs, table=row.assign(b=row["b"].astype("Int64")))
    assert '<span class="tag">word</span><bdi>please</bdi>' in together.table(with_word)
    assert "word: please" in together.drawn(with_word)
    assert "<bdi>please</bdi></h3>" in together.documents(corpus, with_word, 0)


def test_pairs_of_two_texts_lead_to_both_texts(corpus, other_text):
    other = Corpus(other_text)
    found = across.compared(corpus, other)
    assert [(row["a"], row["b"]) for row in found.rows["pairs"]] == [(2, 3)]
    assert "replies" in harmless(view("across", found, "pairs", 0))
    assert across.names(corpus, corpus) == (str(corpus.workspace.folder),) * 2
    read = harmless(across.documents(corpus, other, found, "pairs", 0))
    assert read.count('class="row"') == together.DOCUMENTS and "says refund please" in read and "reply " in read
    nodes = json.loads(together.drawn(found.pairs, across=True))["data"][-1]
    assert len(set(nodes["marker"]["color"])) == 2
    assert [None if sent is None else json.loads(sent) for sent in nodes["customdata"]] == [{"concept": 2}, None]
    nothing = replace(found, rows={part: [] for part in found.rows})
    for part, said in (("pairs", "No pair"), ("predicted", "Nothing of either"), ("alike", "No documents are alike")):
        assert said in view("across", nothing, part, -1)


def test_what_two_texts_predict_and_share_leads_to_documents(tmp_path):
    first, second, groups = kinds_in_both(tmp_path, True)
    corpora = Corpus(first), Corpus(second)
    shown = []
    bar = stages(lambda step, desc: shown.append((desc, *step)))
    found = across.compared(*corpora, bar, max_similarity=None)
    assert {"Counting pairs", "Comparing names", "Comparing documents", "Predicting"} == {stage for stage, *_ in shown}
    assert shown[-1] == ("Predicting", 4, 4)  # the bar is full
    for part in ("predicted", "alike"):
        html = view("across", found, part, 0)
        assert html.count('class="pick') == len(found.rows[part]) > 0 and html.count('class="pick on"') == 1
        assert groups[found.rows[part][0]["positions"]].any()
        assert "second text" in across.documents(*corpora, found, part, 0)
    assert found.rows["alike"][0]["has_a"].startswith("first")
    assert across._unnamed({"kind": "feature", "feature": 3}) == "feature 3"


def test_places_that_pull_each_other_end_closer():
    place = together.spread(6, np.array([[0, 1], [2, 3], [4, 5]]))
    apart = np.linalg.norm(place[:, None] - place[None], axis=-1)
    assert np.isfinite(place).all()
    assert apart[0, 1] < min(apart[0, 2:])


def test_a_selection_is_described_by_what_it_has_more_of(corpus):
    html = harmless(map.selection(corpus, np.arange(1, 40, 2)))
    assert "20 documents selected" in html
    assert "refund" in html.split("What they have more often")[1]


def test_edits_of_a_question_add_up():
    corpus = type("Any", (), {"check": staticmethod(int)})
    question = {"query": "late", "weights": {}, "without": []}
    question = find.edit(corpus, question, {"weight": [3, 2.5]})
    question = find.edit(corpus, question, {"drop": 4})
    assert question == {"query": "late", "weights": {3: 2.5}, "without": [4]}
    question = find.edit(corpus, question, {"add": 4})
    assert question == {"query": "late", "weights": {3: 2.5, 4: 1.0}, "without": []}
    assert find.edit(corpus, question, {"reset": True})["weights"] == {}


# Doors ------------------------------------------------------------------------------------------------


def answer(url, host=None, data=None):
    """(status, body) of a request."""
    request = urllib.request.Request(url, headers={"host": host} if host else {}, data=data)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=workspace.json",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api//file=/etc/passwd",
        "/gradio_api/proxy=https://example.org/",
        "/static/../../../../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/plotly.js/../../../etc/passwd",
    ],
)
def test_no_file_is_served(address, path):
    status, body = answer(address + path)
    assert status in (403, 404)
    assert "root:" not in body and '"stage"' not in body


def test_nothing_can_be_uploaded_and_no_other_name_leads_here(address):
    assert answer(address + "/gradio_api/upload", data=b"x")[0] == 403
    assert answer(address + "/", host="evil.example")[0] == 400


def test_the_page_asks_for_nothing_outside(address):
    status, page = answer(address + "/")
    assert status == 200
    assert "fonts.googleapis" not in page
    with urllib.request.urlopen(address, timeout=10) as response:
        assert "default-src 'self'" in response.headers["content-security-policy"]


def test_a_port_in_use_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^port {port} of 127.0.0.1 is in use; choose another with --port"):
            listen("127.0.0.1", port)


def test_addresses():
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org")
    with listen("127.0.0.1", 0) as open_port:
        assert written(open_port).startswith("http://127.0.0.1:")
    with pytest.raises(ConfigError, match="port 70000: expected 0 to 65535"):
        listen("127.0.0.1", 70000)
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1, port 0: "):
        listen("192.0.2.1", 0)


def test_a_folder_that_is_no_workspace(tmp_path):
    from hourglass.studio.app import Studio

    with pytest.raises(FolderError, match="not a workspace"):
        Studio(tmp_path)


def test_without_gradio_the_install_line_is_told(hostile, monkeypatch):
    from hourglass.studio.app import Studio

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtra, match=r"pip install 'hourglass-ai\[studio\]'"):
        Studio(hostile.folder)


def test_the_command_tells_a_mistake_in_one_line(hostile, tmp_path, monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, said in (
            ((str(tmp_path),), "not a workspace"),
            ((str(hostile.folder), "--port", port), "in use"),
            ((str(hostile.folder), "--with", str(tmp_path)), "not a workspace"),
        ):
            monkeypatch.setattr(sys, "argv", ["hourglass", "studio", *arguments])
            with pytest.raises(SystemExit) as stopped:
                main()
            lines = capsys.readouterr().err.splitlines()
            assert stopped.value.code == 2
            assert len(lines) == 1 and said in lines[0]
