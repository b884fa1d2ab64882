"""States of a corpus on disk: the same bytes whatever happened on the way."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from hourglass.adapters.huggingface import HuggingFaceReader
from hourglass.data import states
from hourglass.errors import FolderError, StatesError
from hourglass.waist import TokenStates

TEXTS = [f"text {i} " + "word " * (i * 7 % 23) for i in range(300)]
TEXTS[40] = "long " * 300
TEXTS[50] = " "


class Reader:
    """A state for each word: its length, and a number that depends on all that is read with it, as rounding does."""

    width = 2

    def __init__(self, layer=1):
        self.layer, self.texts = layer, 0

    def describe(self):
        return {"layer": self.layer}

    def read(self, texts):
        self.texts += len(texts)
        words = [[word.span() for word in re.finditer(r"\S+", text)] for text in texts]
        spans = torch.tensor(list(chain.from_iterable(words))).reshape(-1, 2)
        together = torch.full((len(spans),), sum(map(len, texts)) % 1000)
        offsets = torch.tensor([0, *np.cumsum([len(some) for some in words]).tolist()])
        return TokenStates(torch.stack([spans.diff()[:, 0], together], 1), offsets, spans)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(states, "WINDOW_CHARACTERS", 400)


def test_every_token_has_its_document_and_place(tmp_path):
    rows = states.cache_states(Reader(), TEXTS, tmp_path / "r")
    expected = [(i, word) for i, text in enumerate(TEXTS, 1) for word in text.split()]
    assert len(rows) == len(expected)
    for (i, word), document, (first, last), state in zip(expected, rows.documents, rows.spans, rows.rows[:]):
        assert document == i
        assert TEXTS[i - 1][first:last] == word
        assert state[0] == len(word)


def test_a_finished_cache_is_not_read_again(tmp_path):
    states.cache_states(Reader(), TEXTS, tmp_path / "r")
    before = content(tmp_path / "r")
    reader = Reader()
    assert len(states.cache_states(reader, TEXTS, tmp_path / "r")) > 0
    assert reader.texts == 0
    assert content(tmp_path / "r") == before


def test_after_a_failure_only_what_lacks_is_read(tmp_path):
    whole = Reader()
    states.cache_states(whole, TEXTS, tmp_path / "whole")

    class Failing(Reader):
        def read(self, texts):
            if self.texts > 100:
                raise KeyboardInterrupt
            return super().read(texts)

    with pytest.raises(KeyboardInterrupt):
        states.cache_states(Failing(), TEXTS, tmp_path / "r")
    rest = Reader()
    states.cache_states(rest, TEXTS, tmp_path / "r")
    assert rest.texts < whole.texts - 100
    assert content(tmp_path / "r") == content(tmp_path / "whole")


def test_after_kills_the_files_are_the_same(tmp_path):
    states.cache_states(Reader(), TEXTS, tmp_path / "whole")
    command = [sys.executable, __file__, str(tmp_path / "killed"), "6"]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads do not survive the fork
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=alone)
    assert int(done.stdout) >= 2, "hardly ever killed on the way: the test shows nothing"
    assert len(states.RowFile(tmp_path / "killed")) > 0
    states.cache_states(Reader(), TEXTS, tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_other_states_are_not_mixed_in(tmp_path):
    states.cache_states(Reader(), TEXTS, tmp_path / "r")
    with pytest.raises(FolderError, match="holds states with layer 1, now 2; choose another folder"):
        states.cache_states(Reader(layer=2), TEXTS, tmp_path / "r")
    with pytest.raises(FolderError, match="holds states with beginning"):
        states.cache_states(Reader(), TEXTS[1:], tmp_path / "r")
    (tmp_path / "r" / "states.json").unlink()
    with pytest.raises(FolderError, match="holds rows of something else"):
        states.cache_states(Reader(), TEXTS, tmp_path / "r")


def test_a_second_writer_is_kept_out(tmp_path):
    (tmp_path / "r").mkdir()
    with FileLock(tmp_path / "r" / ".lock"), pytest.raises(FolderError, match="another process is writing"):
        states.cache_states(Reader(), TEXTS, tmp_path / "r")


def test_an_error_names_the_document(tmp_path):
    class Overflowing(Reader):
        def read(self, texts):
            for i, text in enumerate(texts):
                if text.startswith("text 76 "):
                    raise StatesError("layer 1, site 'mlp'", i)
            return super().read(texts)

    with pytest.raises(StatesError, match="layer 1, site 'mlp': text 77 gives"):
        states.cache_states(Overflowing(), TEXTS, tmp_path / "r")


def test_the_states_are_those_of_the_model(tmp_path):
    reader = HuggingFaceReader("minilm", layer=2, site="head:1", dtype="float32", special=True)
    texts = ["one two", "a longer text than that"]
    rows = states.cache_states(reader, texts, tmp_path / "r")
    read = reader.read(texts)
    assert np.array_equal(rows.rows[:], read.states.half().numpy())
    assert np.array_equal(rows.spans, read.spans.numpy())
    assert rows.documents.tolist() == np.repeat([1, 2], read.lengths.numpy()).tolist()


if __name__ == "__main__":  # writes to a folder, and is killed so many times at random; prints how often in time
    states.WINDOW_CHARACTERS = 400
    folder = Path(sys.argv[1])
    for name in ("first", "second"):  # the first also imports what it needs
        begun = time.monotonic()
        states.cache_states(Reader(), TEXTS, folder.with_name(name))
        whole = time.monotonic() - begun

    def appended():
        return (folder / "rows.json").read_text() if (folder / "rows.json").exists() else ""

    killed = 0
    for _ in range(int(sys.argv[2])):
        before = appended()
        child = os.fork()
        if not child:
            states.cache_states(Reader(), TEXTS, folder)
            os._exit(0)
        # Some way in, but nobody knows where: after one append at least.
        while appended() == before and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.0005)
        time.sleep(random.uniform(0, whole / 40))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    print(killed)
