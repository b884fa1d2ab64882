"""Tokenizers made of a corpus, in the form that transformers saves and opens.

tokenizer = train_tokenizer(texts, 2000, "wordpiece")    # BERT's kind, lower case
tokenizer = train_tokenizer(texts, 2000, "bpe")          # GPT-2's kind, of bytes: knows every text
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hourglass.adapters.huggingface_loading import open_tokenizer
from hourglass.errors import ConfigError
from hourglass.storage.atomic import atomic_folder

Kind = Literal["wordpiece", "bpe"]
_SPECIAL = {
    "wordpiece": {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    "bpe": {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "cls_token": "<s>",
        "sep_token": "</s>",
    },
}
_BYTES = 256
_LETTERS = 1000
"""Most letters of a WordPiece vocabulary, the commonest; others are unknown."""


def train_tokenizer(texts: Sequence[str], size: int, kind: Kind) -> Any:
    """A fast tokenizer of at most `size` tokens, with mask and padding; the same texts give the same one.

    The texts are read twice, one after another. Without any, "bpe" knows the bytes alone. Raises ConfigError when `size` has no room for them.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    names = _SPECIAL[kind]
    # Of bytes, a space belongs to the word after it: that before a mask is hidden with the word.
    mask = AddedToken(names["mask_token"], lstrip=kind == "bpe", special=True)
    special = [mask if name == mask.content else name for name in dict.fromkeys(names.values())]
    if kind == "bpe" and size < _BYTES + len(special):
        raise ConfigError(
            f"a vocabulary of {size}: expected {_BYTES + len(special)} or more, the bytes and {len(special)} special tokens"
        )
    if kind == "wordpiece":
        made = _wordpiece(names["unk_token"])
        # Pieces are numbered in no fixed order, and numbers decide between pairs that are as frequent: so these are given.
        letters = _letters(made.normalizer, texts)
        pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
        if size < len(pieces):
            raise ConfigError(
                f"a vocabulary of {size}: expected {len(pieces)} or more, for {len(letters)} letters at the beginning and "
                f"inside of words and {len(special)} special tokens"
            )
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=pieces, limit_alphabet=len(letters), show_progress=False
        )
    else:
        made = Tokenizer(models.BPE(unk_token=names["unk_token"]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    made.train_from_iterator(texts, trainer)
    if kind == "wordpiece":  # again, without the letters among the special tokens
        made = _wordpiece(names["unk_token"], made.get_vocab())
        made.add_special_tokens(special)
    first, last = names["cls_token"], names["sep_token"]
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(name, made.token_to_id(name)) for name in (first, last)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, **{**names, "mask_token": mask})


def keep_tokenizer(texts: Sequence[str], size: int, kind: Kind, folder: Path) -> Any:
    """One that is made of the texts and kept in `folder`; where one is kept there, that one. Raises ConfigError as `train_tokenizer`."""
    if not folder.exists():
        made = train_tokenizer(texts, size, kind)
        if made.unk_token_id is not None and len(made) <= len(made.all_special_ids):
            raise ConfigError(f"{folder.parent / 'corpus'}: no word is in it often enough for a vocabulary")
        with atomic_folder(folder) as new:
            made.save_pretrained(new)
    return open_tokenizer(str(folder))


def _letters(normalizer: Any, texts: Sequence[str]) -> list[str]:
    """The commonest letters, `_LETTERS` at most and so many that the last is commoner than the first left out."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    common = [(letter, count) for letter, count in counts.most_common() if not letter.isspace()]
    least = common[_LETTERS][1] if len(common) > _LETTERS else 0
    return sorted(letter for letter, count in common if count > least)


def _wordpiece(unknown: str, vocabulary: Mapping[str, int] | None = None) -> Any:
    """BERT's, lower case."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    made = Tokenizer(models.WordPiece(vocab=dict(vocabulary or {}), unk_token=unknown))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made
