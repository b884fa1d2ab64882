"""A judge that never answers: one line after a bounded wait, what was answered is kept, the workspace is as it was."""

import time

import pytest

import hourglass as hg
from chat_server import chat_server
from corpus import documents
from hourglass.adapters.chat_endpoint import ChatEndpoint
from hourglass.errors import EndpointError

DEAD = "http://127.0.0.1:9/v1"  # the port of "discard", where nobody listens


@pytest.fixture(scope="module")
def ws(tmp_path_factory):
    folder = tmp_path_factory.mktemp("silent") / "ws"
    return hg.explore(documents(80), out=folder, text="body", by="topic", width=32, k=4, progress=False)


def verify(ws, endpoint):
    ws.verify("topic", "cooking", judge=endpoint, writer="names", sample=10, progress=False)


def relabel(ws, endpoint):
    ws.relabel(endpoint, top=8, progress=False)


def content(folder):
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name != ".lock"}


@pytest.mark.parametrize("verb", [verify, relabel])
@pytest.mark.parametrize("where", ["silent", DEAD])
def test_every_verb_that_asks_ends_in_one_line(ws, verb, where):
    before = content(ws.folder)
    with chat_server() as chat:
        chat.faults = ["silent"] * 100
        url = chat.url if where == "silent" else where
        started = time.monotonic()
        with pytest.raises(EndpointError) as error:
            verb(ws, ChatEndpoint(url, "m", timeout=0.2, pause=0.01, at_once=4))
        assert time.monotonic() - started < 8
    said = "no answer in 0.2 s, after 2 tries" if where == "silent" else "after 5 tries"
    assert said in str(error.value) and "\n" not in str(error.value)
    assert content(ws.folder) == before


def test_answers_before_the_silence_are_kept(ws, tmp_path):
    with chat_server(lambda messages: "yes") as chat:
        chat.faults = [None] * 8 + ["silent"] * 100
        endpoint = ChatEndpoint(chat.url, "m", answers=tmp_path / "a.sqlite", timeout=0.2, pause=0.01, at_once=1)
        with pytest.raises(EndpointError, match="8 answers are kept, the same call goes on from there"):
            verify(ws, endpoint)
        chat.faults, chat.requests = [], []
        again = ChatEndpoint(chat.url, "m", answers=tmp_path / "a.sqlite")
        verify(ws, again)
        assert again.usage.kept >= 8
