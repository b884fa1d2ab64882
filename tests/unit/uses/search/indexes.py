"""A corpus of random sentences, an encoder that counts words, and what brute force finds."""

import math
from collections import Counter

import numpy as np
import torch
from transformers import BertForMaskedLM

from encoders import make_pair

WORDS = ("red", "green", "blue", "stone", "apple", "river", "bird", "engine", "paris", "london", "anna", "peter")


def documents(number, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "id": f"d{i}",
            "text": " ".join(rng.choice(WORDS, rng.integers(2, 14))) + ".",
            "year": 2000 + i % 20,
            "lang": "en" if i % 3 else "de",
        }
        for i in range(number)
    ]


def counting(texts):
    """[n, 12] words that a text has, and how long it is."""
    return np.array([[text.lower().count(word) + len(text) / 100 for word in WORDS] for text in texts], np.float32)


def bm25(texts, query, k1=1.5, b=0.75):
    """[n] scores as the formula of Lucene has them, word by word."""
    split = [text.lower().replace(".", "").split() for text in texts]
    mean = np.mean([len(words) for words in split])
    scores = np.zeros(len(texts))
    for term, times in Counter(query.split()).items():
        having = sum(term in words for words in split)
        idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        for i, words in enumerate(split):
            tf = words.count(term)
            if not tf:
                continue
            scores[i] += times * idf * tf / (tf + k1 * (1 - b + b * len(words) / mean))
    return scores


def ordered(scores, depth, rows=None):
    """Rows by score, of equal ones the smaller first."""
    rows = np.arange(len(scores)) if rows is None else rows
    return rows[np.lexsort((rows, -scores[rows]))][:depth]


def masked_model(folder):
    """The folder of a tiny masked language model."""
    network, tokenizer = make_pair("bert")
    tokenizer.model_max_length = 96
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForMaskedLM(network.config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
