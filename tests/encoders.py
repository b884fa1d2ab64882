"""Tiny encoders of transformers with tokenizers of their own, made here."""

import torch
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    GPT2Config,
    LlamaConfig,
)

from hourglass.adapters.tokenizers import train_tokenizer

WIDTH, POSITIONS = 32, 96
WORDS = [
    "red",
    "green",
    "blue",
    "round",
    "square",
    "heavy",
    "light",
    "stone",
    "apple",
    "river",
    "bird",
    "engine",
    "paris",
    "london",
    "berlin",
    "anna",
    "peter",
    "maria",
]
KINDS = ("bert", "gpt2", "llama", "bart")


def make_pair(kind="bert", vocabulary=None, seed=0):
    """(network, tokenizer)."""
    texts = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))] * 3
    tokenizer = train_tokenizer(texts, 320, vocabulary or ("wordpiece" if kind == "bert" else "bpe"))
    sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = {
        "bert": lambda: BertConfig(
            **sizes,
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=POSITIONS,
        ),
        "gpt2": lambda: GPT2Config(**sizes, n_embd=WIDTH, n_layer=2, n_head=4, n_positions=POSITIONS),
        "llama": lambda: LlamaConfig(
            **sizes,
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            max_position_embeddings=POSITIONS,
        ),
        "bart": lambda: BartConfig(
            **sizes,
            d_model=WIDTH,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=POSITIONS,
        ),
    }[kind]()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AutoModel.from_config(config)
    return network.eval(), tokenizer
