"""Sentences of tokens: nothing of a text is lost, none is too long, passages meet at their ends."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.data.passages import SentenceCutter, keep_sentences
from hourglass.errors import FolderError, SourceError

TOKENIZER = train_tokenizer(["a red stone, a green apple; hello 3.14, there. " * 20], 320, "bpe")
CUTTER = SentenceCutter(TOKENIZER, "clause", 7)
TEXTS = ["One, two, three, four, five. ", "Alone", "a. b. c. d."]


def decoded(ids):
    return TOKENIZER.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@settings(max_examples=60, deadline=None)
@given(text=st.one_of(st.text(), st.text(alphabet="ab é漢.,\n😀</s>", max_size=80)))
def test_no_sentence_is_too_long_and_joined_they_are_the_text(text):
    (parts,), (ids,) = CUTTER.parts([text]), CUTTER.ids([text])
    assert "".join(parts) == text
    assert all(0 < len(row) <= 7 for row in ids)
    assert [decoded(row.tolist()) for row in ids] == parts


def test_a_long_sentence_is_parted_between_words_where_it_can_be():
    (parts,) = CUTTER.parts(["a red stone a green apple a red stone"])
    assert len(parts) > 1
    assert all(left[-1].isspace() or right[0].isspace() for left, right in pairwise(parts))


def test_a_book_without_a_mark_is_parted_too():
    book = "stone" * 4000 + "ก" * 4000
    (parts,) = CUTTER.parts([book])
    assert "".join(parts) == book


def test_a_character_that_has_no_room_is_named():
    with pytest.raises(SourceError, match=r"'漢' alone is more than the 2 tokens .* raise max_tokens"):
        SentenceCutter(TOKENIZER, "clause", 2).parts(["漢"])


def test_special_tokens_that_a_text_spells_out_are_text():
    (ids,) = CUTTER.ids(["</s>"])
    assert TOKENIZER.eos_token_id not in np.concatenate(ids)


def test_every_sentence_but_the_first_follows_another_in_one_passage(tmp_path):
    kept = keep_sentences(TEXTS, CUTTER, tmp_path / "sentences")
    rows = CUTTER.ids(TEXTS)
    assert len(kept) == sum(map(len, rows)) and kept.tokens == sum(len(ids) for row in rows for ids in row)
    singles = kept.sentences()
    assert [s.sentences[0].tolist() for s in singles] == [ids.tolist() for row in rows for ids in row]
    for most in (2, 3, 64):
        passages = list(kept.passages(most))
        assert max(len(p.sentences) for p in passages) <= most
        follow = [s.tolist() for p in passages for s in p.sentences[1:]]
        assert follow == [ids.tolist() for row in rows for ids in row[1:]]
        assert sum(p.ends for p in passages) == len(TEXTS)
    assert [p.ends for p in kept.passages(3)] == [False, True, True, True]


def test_a_folder_is_taken_as_it_is_or_refused(tmp_path):
    folder = tmp_path / "sentences"
    keep_sentences(TEXTS, CUTTER, folder)
    before = (folder / "ids.i32").stat().st_mtime_ns
    keep_sentences(TEXTS, CUTTER, folder)
    assert (folder / "ids.i32").stat().st_mtime_ns == before
    with pytest.raises(FolderError, match="holds sentences made with"):
        keep_sentences(TEXTS, SentenceCutter(TOKENIZER, "sentence", 7), folder)
    with pytest.raises(SourceError, match="no sentence to learn from"):
        keep_sentences([""], CUTTER, tmp_path / "other")


def test_a_script_that_the_tokenizer_does_not_know_is_refused(tmp_path):
    words = Tokenizer(models.WordLevel({"<unk>": 0, "red": 1, "</s>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    cutter = SentenceCutter(tokenizer, "clause", 7)
    assert keep_sentences(["red red blue"], cutter, tmp_path / "known").unknown == 1
    with pytest.raises(SourceError, match="100% of the tokens are unknown to the tokenizer, and would be lost"):
        keep_sentences(["снег идёт"], cutter, tmp_path / "unknown")
