"""The files that make sentence-transformers open a folder of transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hourglass.adapters.huggingface_loading import frame, quiet
from hourglass.errors import ConfigError
from hourglass.storage.atomic import atomic_folder, read_json

_MODES = {"cls": "cls_token", "mean": "mean_tokens", "weightedmean": "weightedmean_tokens", "lasttoken": "lasttoken"}
_ENCODER_STATES = {
    "modality_config": {"text": {"method": "forward", "method_output_name": "encoder_last_hidden_state"}},
    "module_output_name": "token_embeddings",
    "config_args": {"decoder_layers": 0},
}
"""Of a network that reads and writes, sentence-transformers would take what the decoder has, and run all of it."""
_OFF = -1e4
"""Bias of a token that is never to have a weight: the relu of its logit is 0 in every number format."""


def write_dense_files(
    folder: Path,
    *,
    width: int,
    pooling: str,
    max_tokens: int,
    encoder_decoder: bool = False,
    linear: Tensor | None = None,
    unit: bool = False,
) -> None:
    """For `SentenceTransformer(folder)`: pooled states ("cls", "mean", "weightedmean", "lasttoken"), mapped by linear [d', width], of length 1."""
    kind = "sentence_transformers.models."
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    of_text: dict[str, Any] = {"max_seq_length": max_tokens, "do_lower_case": False}
    files: dict[str, Any] = {
        "sentence_bert_config.json": of_text | (_ENCODER_STATES if encoder_decoder else {}),
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            **{f"pooling_mode_{mode}": name == pooling for name, mode in _MODES.items()},
            "pooling_mode_max_tokens": False,
        },
    }
    if linear is not None:
        modules.append(("2_Dense", "Dense"))
        files["2_Dense/config.json"] = {
            "in_features": width,
            "out_features": len(linear),
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
    if unit:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    files["modules.json"] = [
        {"idx": i, "name": str(i), "path": path, "type": kind + name} for i, (path, name) in enumerate(modules)
    ]
    _write(folder, files)
    if linear is not None:
        save_file({"linear.weight": linear.detach().contiguous()}, folder / "2_Dense" / "model.safetensors")


def save_sparse(folder: Path, network: Any, tokenizer: Any, max_tokens: int, k: int | None = None) -> None:
    """A folder for `SparseEncoder(folder)`, from version 6 on: log(1 + relu) of the largest logits, the k largest of a text.

    The special tokens around a text have no voice (a `MultiVectorMask` hides them from the pooling), and those of the
    vocabulary no weight (their bias in the saved head says so). Such a token that is written out within a text has no voice
    there either, while it has one here. Raises ConfigError for a head without a bias.
    """
    bias = network.get_output_embeddings().bias
    if bias is None:
        raise ConfigError(
            f"{type(network).__name__}: its head has no bias, by which special tokens are kept without weight"
        )
    around = sorted({number for part in frame(tokenizer, "none") for number in part})
    kind = "sentence_transformers."
    modules = {
        "": kind + "base.modules.transformer.Transformer",
        "1_MultiVectorMask": kind + "multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
        "2_SpladePooling": kind + "sparse_encoder.modules.splade_pooling.SpladePooling",
    }
    files = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": name} for i, (path, name) in enumerate(modules.items())
        ],
        "sentence_bert_config.json": {"transformer_task": "fill-mask", "max_seq_length": max_tokens},
        "1_MultiVectorMask/config.json": {
            "skiplist_words": tokenizer.convert_ids_to_tokens(around),
            "skiplist_tasks": ["query", "document"],
        },
        # "relu" is log(1 + relu) there; "log1p_relu" would take the logarithm twice.
        "2_SpladePooling/config.json": {
            "pooling_strategy": "max",
            "activation_function": "relu",
            "embedding_dimension": len(bias),
        },
        "config_sentence_transformers.json": {
            "model_type": "SparseEncoder",
            "similarity_fn_name": "dot",
            "max_active_dims": k,
        },
    }
    with atomic_folder(folder) as new:
        kept = bias.detach().clone()
        with torch.no_grad(), quiet():
            try:
                bias[tokenizer.all_special_ids] = _OFF
                network.save_pretrained(new)
            finally:
                bias.copy_(kept)
            tokenizer.save_pretrained(new)
        settings = read_json(new / "config.json")
        settings.pop("hourglass", None)  # of the model that the network came from: what is here is another
        _write(new, {"config.json": settings, **files})


def _write(folder: Path, files: Mapping[str, Any]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
