"""Tokenizers of a corpus: the same ones from the same texts, whole texts back, special tokens in place."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.errors import ConfigError

TEXTS = [f"The {a} {b}s over {c}, naïvely." for a in ("cat", "Dog", "émigré") for b in ("jump", "look") for c in "xyz"]


@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 120), ("bpe", 300)])
def test_the_same_texts_give_the_same(kind, size):
    made = [train_tokenizer(TEXTS, size, kind).backend_tokenizer.to_str() for _ in range(4)]
    assert len(set(made)) == 1


@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 120), ("bpe", 300)])
def test_saved_and_opened(tmp_path, kind, size):
    made = train_tokenizer(TEXTS, size, kind)
    assert len(made) <= size
    made.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    ids = again("The cat looks").input_ids
    assert ids == made("The cat looks").input_ids
    assert (ids[0], ids[-1]) == (made.cls_token_id, made.sep_token_id)
    assert again.mask_token_id not in (None, again.unk_token_id)
    assert len(again.all_special_ids) == 5
    assert again.unk_token_id not in ids
    plain = again.decode(ids, skip_special_tokens=True)
    assert plain == ("The cat looks" if kind == "bpe" else "the cat looks")


def test_bytes_know_every_text():
    made = train_tokenizer([], 300, "bpe")
    text = "日本 🙂 \x00"
    assert made.decode(made(text).input_ids, skip_special_tokens=True) == text
    with pytest.raises(ConfigError, match="261 or more"):
        train_tokenizer([], 100, "bpe")


def test_rare_letters_are_unknown_and_common_ones_need_room(monkeypatch):
    from hourglass.adapters import tokenizers

    monkeypatch.setattr(tokenizers, "_LETTERS", 3)
    made = [train_tokenizer(["ab ab ab ac ac ac ad", "ba e"], 20, "wordpiece") for _ in range(4)]
    assert len({one.backend_tokenizer.to_str() for one in made}) == 1
    assert made[0].unk_token_id in made[0]("dd").input_ids
    assert made[0].unk_token_id not in made[0]("abc").input_ids
    with pytest.raises(ConfigError, match="a vocabulary of 10: expected 11 or more, for 3 letters"):
        train_tokenizer(["ab ab ab ac ac ac ad", "ba e"], 10, "wordpiece")
