"""A small chat model out of nothing: what claims about chat models learn from where none can be had.

    corpus = chat_corpus(docstring_rows(40_000), seed=0)
    make_reader(folder, corpus, seed=0, steps=(700, 300))      # a folder that transformers opens: 0.53 M parameters

The data are docstrings of the installed packages of 60 to 900 characters. One half is plain text to learn language from;
of the other half dialogues are made, of one to three turns about one module: the user asks what a function or class does,
and the assistant says the first paragraph of its docstring. A package is all in one of the four splits, and a dialogue that
shares 20 words in a row with one before it is left out, test dialogues last: none of them repeats one that was learned from.

The model is a Llama of three blocks of width 96. It learns the text in rows of 160 tokens, documents one after another, then
dialogues in ChatML, each alone, with the loss on what the assistant says.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hourglass.data import open_texts
from hourglass.data.repeats import Repeats
from hourglass.storage.atomic import atomic_folder
from hourglass.training import TrainConfig
from hourglass.training.randomness import seeded
from hourglass.training.schedules import factor

Dialogue = list[dict[str, str]]

SPLITS = {"text": 0.5, "train": 0.36, "validation": 0.05, "test": 0.09}
"""Shares of the docstrings, as far as whole packages allow."""
VOCABULARY, LONGEST = 2048, 160
END, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (START_OF_TURN, END_OF_TURN, "user", "assistant")
"""The template's tokens that the paper counts as special."""

# What the assistant says stands between generation marks, which transformers turns into the mask of the loss.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_FIRST = (
    "What does {0} do?",
    "Explain {0}.",
    "What is {0} for?",
    "Tell me about {0} in {1}.",
    "How would you describe {0}?",
)
_NEXT = ("And {0}?", "What about {0}?", "Now {0}, please.", "Thanks. What is {0}?")


@dataclass(frozen=True)
class ChatCorpus:
    """Texts to learn language from, and dialogues to learn from, choose by and measure on."""

    text: list[str]
    train: list[Dialogue]
    validation: list[Dialogue]
    test: list[Dialogue]


def docstring_rows(number: int) -> list[dict[str, str]]:
    """The first so many docstrings of 60 to 900 characters: package, module, name, text."""
    rows: list[dict[str, str]] = []
    for batch in open_texts("docstrings:").batches():
        rows += [row for row in batch.to_pylist() if 60 <= len(row["text"]) <= 900]
        if len(rows) >= number:
            break
    return rows[:number]


def chat_corpus(rows: Sequence[dict[str, str]], seed: int) -> ChatCorpus:
    """Splits by package, drawn by `seed`, and the dialogues of each."""
    random = np.random.default_rng(seed)
    of_package = defaultdict(list)
    for row in rows:
        of_package[row["package"]].append(row)
    room = {split: share * len(rows) for split, share in SPLITS.items()}
    inside: dict[str, list[dict[str, str]]] = {split: [] for split in SPLITS}
    for package in sorted(of_package, key=lambda name: (-len(of_package[name]), name)):
        size = len(of_package[package])
        fits = [split for split in SPLITS if room[split] >= size] or [max(room, key=lambda split: room[split])]
        weights = np.array([max(room[split], 1.0) for split in fits])
        split = fits[random.choice(len(fits), p=weights / weights.sum())]
        room[split] -= size
        inside[split] += of_package[package]
    text = [row["text"] for row in inside["text"]]
    random.shuffle(text)
    repeats = Repeats(20)
    made = {}
    for split in ("train", "validation", "test"):
        made[split] = [d for d in _dialogues(inside[split], random) if repeats.is_new([turn["content"] for turn in d])]
        random.shuffle(made[split])
    return ChatCorpus(text, **made)


def _dialogues(rows: Iterable[dict[str, str]], random: np.random.Generator) -> Iterator[Dialogue]:
    for module, inside in groupby(rows, key=lambda row: row["module"]):
        waiting = [
            (row["name"] or module, answer) for row in inside if 30 <= len(answer := _first_paragraph(row)) <= 250
        ]
        while waiting:
            dialogue: Dialogue = []
            for name, answer in waiting[: random.integers(1, 4)]:
                asked = _NEXT if dialogue else _FIRST
                question = asked[random.integers(len(asked))].format(name, module)
                dialogue += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            waiting = waiting[len(dialogue) // 2 :]
            yield dialogue


def _first_paragraph(row: dict[str, str]) -> str:
    return " ".join(row["text"].split("\n\n")[0].split())


# The model -------------------------------------------------------------------------------------------


def make_reader(folder: Path, corpus: ChatCorpus, *, seed: int, steps: tuple[int, int], batch_size: int = 8) -> Path:
    """A folder with model, tokenizer and chat template; the one that is there already, if it is.

    steps  on the text, and on the dialogues
    """
    if folder.is_dir():
        return folder
    tokenizer = _tokenizer(corpus)
    with seeded(torch.device("cpu"), seed):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=96,
                intermediate_size=256,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=512,
                tie_word_embeddings=True,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    random = np.random.default_rng(seed)
    losses = [
        _learn(model, _text_batches(tokenizer, corpus.text, batch_size, random), steps[0], lr=3e-3),
        _learn(model, _dialogue_batches(tokenizer, corpus.train, batch_size, random), steps[1], lr=1e-3),
    ]
    print(f"reader {seed}: loss {losses[0]:.2f} on text, {losses[1]:.2f} on what the assistant says", file=sys.stderr)
    with atomic_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return folder


def fits(tokenizer: Any, dialogue: Dialogue) -> bool:
    """Whether a dialogue has at most LONGEST tokens."""
    return len(tokenizer.apply_chat_template(dialogue, return_dict=True)["input_ids"]) <= LONGEST


def _tokenizer(corpus: ChatCorpus) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 2,048 tokens, learned on the text and the training dialogues, role words included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    said = [f"{turn['role']}\n{turn['content']}" for dialogue in corpus.train for turn in dialogue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [END, START_OF_TURN, END_OF_TURN]
    tokenizer.train_from_iterator(
        [*corpus.text, *said],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END_OF_TURN,
        pad_token=END,
        chat_template=CHATML,
    )


def _text_batches(
    tokenizer: Any, texts: Sequence[str], size: int, random: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of LONGEST tokens of the texts one after another, drawn anew for each pass."""
    ids = np.concatenate([np.array(one) for one in tokenizer(list(texts))["input_ids"]])
    rows = torch.from_numpy(ids[: len(ids) // LONGEST * LONGEST].reshape(-1, LONGEST))
    while True:
        order = torch.from_numpy(random.permutation(len(rows)))
        for chosen in order.split(size):
            yield rows[chosen], rows[chosen]


def _dialogue_batches(
    tokenizer: Any, dialogues: Sequence[Dialogue], size: int, random: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Dialogues padded on the right, of which only what the assistant says has labels."""
    encoded = tokenizer.apply_chat_template(list(dialogues), return_dict=True, return_assistant_tokens_mask=True)
    pairs = [
        (torch.tensor(ids), torch.tensor(mask))
        for ids, mask in zip(encoded["input_ids"], encoded["assistant_masks"])
        if len(ids) <= LONGEST
    ]
    while True:
        order = random.permutation(len(pairs))
        for start in range(0, len(order), size):
            chosen = [pairs[i] for i in order[start : start + size]]
            ids = torch.nn.utils.rnn.pad_sequence([one for one, _ in chosen], batch_first=True)
            said = torch.nn.utils.rnn.pad_sequence([mask for _, mask in chosen], batch_first=True)
            yield ids, torch.where(said == 1, ids, -100)


def _learn(model: Any, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], steps: int, lr: float) -> float:
    """AdamW with a cosine; returns the mean loss of the last tenth of the steps.

    What is padded stands on the right, where a causal model does not see it, and has no label.
    """
    plan = TrainConfig(steps=steps, lr=lr)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    losses = []
    model.train()
    for step in range(1, steps + 1):
        ids, labels = next(batches)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = lr * factor(step, plan)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    model.eval()
    return float(torch.stack(losses[-math.ceil(steps / 10) :]).mean())
