"""Texts packed into rows: nothing lost, nothing added but what the tokenizer puts around a text, boundaries where they are."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.data import packing
from hourglass.data.packing import PackedRows, keep_packed
from hourglass.errors import ConfigError, FolderError, SourceError

TOKENIZER = train_tokenizer([], 300, "bpe")
TEXTS = ["one", "two and a half, which is longer than a row", "", "three", "4"]


def column(rows, name):
    return np.concatenate([getattr(row, name) for row in rows])


def test_rows_are_the_texts_one_after_another(tmp_path):
    rows = keep_packed(TEXTS, TOKENIZER, 8, tmp_path / "rows")
    whole = [TOKENIZER(text)["input_ids"] for text in TEXTS]
    flat = [number for ids in whole for number in ids]
    real = column(rows, "real")
    assert len(rows) == -(-len(flat) // 8)
    assert real.tolist() == [True] * len(flat) + [False] * (8 * len(rows) - len(flat))
    assert column(rows, "ids")[real].tolist() == flat
    assert (column(rows, "ids")[~real] == TOKENIZER.pad_token_id).all()
    starts = np.cumsum([0, *map(len, whole)])[:-1]
    assert np.flatnonzero(column(rows, "begins")).tolist() == starts.tolist()
    special = [place in (0, len(ids) - 1) for ids in whole for place in range(len(ids))]
    assert column(rows, "special")[real].tolist() == special
    assert [row.ids.tolist() for row in rows[1:3]] == [rows[1].ids.tolist(), rows[2].ids.tolist()]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=9), st.integers(1, 4), st.integers(4, 20))
def test_rows_do_not_depend_on_how_many_texts_are_in_memory(texts, at_once, length):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        whole = keep_packed(texts, TOKENIZER, length, Path(folder) / "whole")
        patch.setattr(packing, "_AT_ONCE", at_once)
        parts = keep_packed(texts, TOKENIZER, length, Path(folder) / "parts")
        for name in ("ids", "special", "begins", "real"):
            assert (column(whole, name) == column(parts, name)).all()


def test_where_the_tokenizer_puts_nothing_around_a_text_its_end_comes_after_it(tmp_path):
    from tokenizers.processors import TemplateProcessing

    bare = copy.deepcopy(TOKENIZER)
    bare.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    rows = keep_packed(["ab", "c"], bare, 5, tmp_path / "rows")
    a, b, c = (bare(letter, add_special_tokens=False)["input_ids"][0] for letter in "abc")
    assert rows[0].ids.tolist() == [a, b, bare.eos_token_id, c, bare.eos_token_id]
    assert np.flatnonzero(rows[0].begins).tolist() == [0, 3]
    bare.eos_token = None
    with pytest.raises(ConfigError, match="no token that ends a text"):
        keep_packed(["ab"], bare, 5, tmp_path / "none")


def test_rows_that_are_there_are_taken_and_others_refused(tmp_path):
    keep_packed(TEXTS, TOKENIZER, 8, tmp_path / "rows")
    again = keep_packed(TEXTS, TOKENIZER, 8, tmp_path / "rows")
    assert (column(again, "ids") == column(PackedRows(tmp_path / "rows"), "ids")).all()
    with pytest.raises(FolderError, match="holds rows made with"):
        keep_packed(TEXTS, TOKENIZER, 9, tmp_path / "rows")
    with pytest.raises(FolderError, match="holds rows made with"):
        keep_packed(TEXTS[1:], TOKENIZER, 8, tmp_path / "rows")
    with pytest.raises(SourceError, match="no text to pack"):
        keep_packed([], TOKENIZER, 8, tmp_path / "none")
    with pytest.raises(IndexError):
        again[len(again)]
