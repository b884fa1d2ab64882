"""Tiny cross-encoders of several architectures, with random weights that are large enough to tell texts apart."""

import torch
from transformers import (
    BertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from encoders import POSITIONS, WIDTH, make_pair

LAYERS = 4


def typed(tokenizer):
    """As BERT's own, one that tells the types of tokens, when it is opened again as well."""
    names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names


def cross(kind="bert", labels=1):
    """(network, tokenizer)"""
    network, tokenizer = make_pair("bert")
    if kind != "roberta":
        typed(tokenizer)
    sizes = {
        **{"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "num_labels": labels},
        **{"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 64},
        **{"max_position_embeddings": POSITIONS, "initializer_range": 0.2},
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if kind == "bert":
            for name, value in sizes.items():
                setattr(network.config, name, value)
            made = BertForSequenceClassification(network.config)
        elif kind == "roberta":
            made = RobertaForSequenceClassification(RobertaConfig(**sizes, type_vocab_size=2))
        else:
            made = ElectraForSequenceClassification(ElectraConfig(**sizes, embedding_size=16))
    return made.eval(), tokenizer


def saved(folder, kind="bert", labels=1):
    for part in cross(kind, labels):
        part.save_pretrained(folder)
    return str(folder)
