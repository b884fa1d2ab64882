"""Tiny late-interaction models, made here."""

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

from encoders import make_pair


def save_late(folder, seed=0, width=16, length=None):
    """A model of ColBERT's kind, with vectors of `width` numbers, that reads documents of `length` tokens and skips "london"."""
    plain = folder / "plain"
    for part in make_pair(seed=seed):
        part.save_pretrained(plain)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        name = "token_embeddings"
        dense = Dense(32, width, bias=False, activation_function=torch.nn.Identity(), module_input_name=name)
        reader = Transformer(str(plain), document_length=length)
        modules = [reader, dense, MultiVectorMask(skiplist_words=["london"]), Normalize(module_input_name=name)]
        MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(folder / "late"))
    return str(folder / "late")
