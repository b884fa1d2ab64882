"""States of a corpus on disk: the same bytes whatever happened on the way."""

import json
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


SITES = [(3, "residual"), (2, "mlp_in"), (2, "head:1")]


def folders(root):
    return {(layer, site): root / f"{layer}-{site}" for layer, site in SITES}


def test_several_sites_come_from_one_pass(causal_folder, tmp_path):
    model = str(causal_folder / "gpt2")
    reader = HuggingFaceReader(model, layer=3, dtype="float32")
    passes = []
    reader._runs.module.register_forward_pre_hook(lambda *_: passes.append(1))
    found = states.cache_sites(reader, TEXTS[:20], folders(tmp_path))
    together = len(passes)
    for (layer, site), rows in found.items():
        alone = HuggingFaceReader(model, layer=layer, site=site, dtype="float32")
        expected = states.cache_states(alone, TEXTS[:20], tmp_path / "alone" / site)
        assert np.abs(rows.rows[:].astype(float) - expected.rows[:]).max() < 0.02  # other texts are read together
        assert np.array_equal(rows.spans, expected.spans) and np.array_equal(rows.documents, expected.documents)
        described = json.loads((tmp_path / f"{layer}-{site}" / "states.json").read_text())
        assert (described["layer"], described["site"], described["finished"]) == (layer, site, True)
    states.cache_states(reader, TEXTS[:20], tmp_path / "one")
    assert len(passes) - together <= together  # one site takes as many
    states.cache_sites(reader, TEXTS[:20], folders(tmp_path))
    assert len(passes) <= 2 * together


def test_several_sites_after_any_interruption_are_the_same(causal_folder, tmp_path, monkeypatch):
    reader = HuggingFaceReader(str(causal_folder / "gpt2"), layer=3, dtype="float32")
    appended = []
    states.cache_sites(reader, TEXTS[:40], folders(tmp_path / "whole"))
    append = states.append_states

    def counted(*arguments, **named):
        appended.append(1)
        if len(appended) == stop:
            raise KeyboardInterrupt
        append(*arguments, **named)

    monkeypatch.setattr(states, "append_states", counted)
    for stop in (2, 3, 4, 9):  # before the first window of the second site, ..., before one of the last
        root = tmp_path / str(stop)
        appended.clear()
        with pytest.raises(KeyboardInterrupt):
            states.cache_sites(reader, TEXTS[:40], folders(root))
        states.cache_sites(reader, TEXTS[:40], folders(root))
        for name, folder in folders(root).items():
            assert content(folder) == content(folders(tmp_path / "whole")[name])


def test_aligned_sites_leave_out_the_same_tokens(causal_folder, tmp_path):
    reader = HuggingFaceReader(str(causal_folder / "gpt2"), layer=3, dtype="float32", max_norm=1.05)
    loose = states.cache_sites(reader, TEXTS[:20], folders(tmp_path / "loose"))
    tight = states.cache_sites(reader, TEXTS[:20], folders(tmp_path / "tight"), aligned=True)
    assert len({len(rows) for rows in loose.values()}) > 1
    first, *others = tight.values()
    assert 0 < len(first) < min(len(rows) for rows in loose.values())
    assert all(np.array_equal(first.spans, rows.spans) for rows in others)
    with pytest.raises(FolderError, match="holds states with aligned None"):
        states.cache_sites(reader, TEXTS[:20], folders(tmp_path / "loose"), aligned=True)


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
