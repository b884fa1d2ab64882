"""Networks of transformers that go on learning: built from a config or loaded with their head, and the folder of a model around one.

`huggingface_loading` loads frozen ones, without heads, to be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import loading_errors, open_tokenizer, quiet, resolve
from hourglass.errors import ConfigError, FolderError
from hourglass.storage.atomic import read_json

Head = Literal["masked", "causal", "seq2seq"]
"""What a network predicts with: hidden tokens, the next token, or another text."""

_NOT_SETTINGS = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype", "hourglass"}


def load_network(model: str, head: Head) -> tuple[Any, Any]:
    """(fast tokenizer, network with its head) of "minilm", a folder or a Hub id, in float32.

    A head that the folder lacks is new; weights of the body that it lacks are an error. Raises FolderError, in one line, when
    there is no such model or its architecture has no such head.
    """
    folder = resolve(model)
    with loading_errors(model, "model"):
        tokenizer = open_tokenizer(folder)
        kind = _auto(head)
        try:
            network, report = kind.from_pretrained(
                folder, dtype="float32", trust_remote_code=False, output_loading_info=True
            )
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            kind_of = str(error).split("Unrecognized configuration class ")[1].split(" for this kind")[0]
            raise FolderError(
                f"{model}: {kind_of.rsplit('.', 1)[-1].rstrip(chr(39) + '>')} has no network with a {head} head; name a model of another architecture"
            ) from None
    if network.config.is_encoder_decoder != (head == "seq2seq"):
        raise FolderError(f"{model}: {type(network).__name__} has no {head} head; name a model of another architecture")
    body = f"{network.base_model_prefix}."
    missing = sorted(name for name in report["missing_keys"] if name.startswith(body) and "pooler" not in name)
    if missing:
        raise FolderError(
            f"{model}: its weights lack {len(missing)} tensors of {type(network).__name__}, {missing[0]} first; "
            "config.json and weights are not of the same model"
        )
    return tokenizer, network


def build_network(settings: Mapping[str, Any], head: Head, tokenizer: Any) -> Any:
    """A new network: {"model_type": "bert", ...} as in its config.json; what concerns the tokenizer comes from there.

    Raises ConfigError for settings that transformers does not know.
    """
    from transformers import AutoConfig

    values = dict(settings)
    kind = values.pop("model_type", None)
    values.setdefault("vocab_size", len(tokenizer))
    if values["vocab_size"] < len(tokenizer):
        raise ConfigError(f"vocab_size {values['vocab_size']}: the tokenizer has {len(tokenizer)} tokens")
    for name in ("pad", "bos", "eos"):
        values.setdefault(f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    try:
        return _auto(head).from_config(AutoConfig.for_model(kind, **values))
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"network {kind!r}: transformers cannot build it ({reason})") from None


def settings_of(network: Any) -> dict[str, Any]:
    """What `build_network` builds it from again, as JSON has it."""
    settings = {k: v for k, v in network.config.to_dict().items() if k not in _NOT_SETTINGS}
    return dict(json.loads(json.dumps(settings)))


def body(network: Any) -> Any:
    """The network without its head; of one that reads and writes, the part that reads."""
    inner = network.base_model
    return inner.get_encoder() if network.config.is_encoder_decoder else inner


def attention_mask(network: Any, sees: Tensor) -> Tensor:
    """[n, 1, L, L] in the form that the network's attention takes, of a mask [n, L, L] that is true where token i sees token j."""
    if network.config._attn_implementation == "sdpa":
        return sees[:, None]
    dtype = next(network.parameters()).dtype
    shut = torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
    return shut[:, None]


# A folder of transformers that holds a model of ours ---------------------------------------------------------

_BESIDE = "hourglass.safetensors"


def save_around(
    folder: Path, network: Any, tokenizer: Any, system: str, settings: Mapping[str, Any], beside: Mapping[str, Tensor]
) -> None:
    """Network and tokenizer as transformers saves them; the settings under "hourglass" in config.json, what the model has beside
    its network in hourglass.safetensors."""
    with quiet():
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = {**read_json(path), "hourglass": {"system": system, **settings}}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if beside:
        save_file({name: tensor.contiguous() for name, tensor in beside.items()}, folder / _BESIDE)


def settings_in(folder: Path, system: str) -> dict[str, Any]:
    """The settings of the model of ours that a folder holds; FolderError where it holds another or none."""
    settings: dict[str, Any] = read_json(folder / "config.json").get("hourglass", {})
    found = settings.pop("system", None)
    if found != system:
        raise FolderError(f"{folder / 'config.json'}: holds the system {found!r}, expected {system!r}")
    return settings


def load_beside(folder: Path, model: nn.Module, beside: Mapping[str, Tensor]) -> None:
    """Into `model` what it has beside its network, tensors of these names and shapes; FolderError for others."""
    if not beside:
        return
    path = folder / _BESIDE
    try:
        saved = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FolderError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if saved.keys() != beside.keys() or any(saved[name].shape != beside[name].shape for name in saved):
        raise FolderError(f"{path}: does not fit {folder / 'config.json'}")
    model.load_state_dict(saved, strict=False)


def _auto(head: Head) -> Any:
    import transformers

    return {
        "masked": transformers.AutoModelForMaskedLM,
        "causal": transformers.AutoModelForCausalLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
    }[head]
