"""Networks of transformers that go on learning: built from a config or loaded with their head, and the folder of a model around one.

`huggingface_loading` loads frozen ones, without heads, to be read.

Two ways make a decoder an encoder: `as_encoder` gives it the architecture of one, so that AutoModelForMaskedLM opens its folder too
and no setting has to be heeded, for three architectures; `is_causal` in its settings (Text2Token) keeps it a causal language model
that can be gone on from as one, for every architecture that heeds it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import loading_errors, open_tokenizer, quiet, resolve
from hourglass.errors import ConfigError, FolderError
from hourglass.storage.atomic import read_json

Head = Literal["masked", "causal", "seq2seq", "language", "score"]
"""What a network predicts with: hidden tokens, the next token, another text, or scores of a text or a pair; "language": either of
the first two (`head_of`)."""

_NOT_SETTINGS = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype", "hourglass"}


def load_network(model: str, head: Head) -> tuple[Any, Any]:
    """(fast tokenizer, network with its head) of "minilm", a folder or a Hub id, in float32.

    A head that the folder lacks is new (and the network's `new_head` true); weights of the body that it lacks are an error. Raises FolderError, in one line, when
    there is no such model or its architecture has no such head.
    """
    from transformers import AutoConfig

    folder = resolve(model)
    with loading_errors(model, "model"):
        tokenizer = open_tokenizer(folder)
        try:
            kind = _auto(head, AutoConfig.from_pretrained(folder, trust_remote_code=False))
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
    network.new_head = any(not name.startswith(body) for name in report["missing_keys"])
    return tokenizer, network


def load_encoder(model: str) -> tuple[Any, Any]:
    """The same, with a masked head; of a decoder too, which becomes an encoder (`as_encoder`) and gets a mask token if it has none.

    A new mask token takes a row of the embeddings that no token has, or a new one. Raises ConfigError as `as_encoder` besides.
    """
    from transformers import AutoConfig

    with loading_errors(model, "model"):
        config = AutoConfig.from_pretrained(resolve(model), trust_remote_code=False)
    if head_of(config) == "masked" or config.is_encoder_decoder:
        return load_network(model, "masked")
    tokenizer, network = load_network(model, "causal")
    if tokenizer.mask_token_id is None:
        tokenizer.add_special_tokens({"mask_token": "<mask>"})
        if len(tokenizer) > len(network.get_input_embeddings().weight):
            with quiet():
                network.resize_token_embeddings(len(tokenizer))
    network.config.mask_token_id = tokenizer.mask_token_id
    return tokenizer, as_encoder(network)


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
    if tokenizer.mask_token_id is not None:
        values.setdefault("mask_token_id", tokenizer.mask_token_id)
    try:
        config = AutoConfig.for_model(kind, **values)
        return _auto(head, config).from_config(config)
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"network {kind!r}: transformers cannot build it ({reason})") from None


def with_score(network: Any) -> Any:
    """The network as it is where it gives scores (a sequence classifier), else one with the same body and a new head that gives one."""
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KINDS

    if type(network).__name__ in KINDS.values():
        return network
    config = copy.deepcopy(network.config)
    config.num_labels = 1
    try:
        made = AutoModelForSequenceClassification.from_config(config)
    except ValueError:
        raise ConfigError(
            f"{type(network).__name__}: its architecture has no head that gives scores; start from another model"
        ) from None
    made.base_model.load_state_dict(body(network).state_dict(), strict=False)
    return made.to(device=network.device, dtype=network.dtype).train(network.training)


def settings_of(network: Any) -> dict[str, Any]:
    """What `build_network` builds it from again, as JSON has it."""
    settings = {k: v for k, v in network.config.to_dict().items() if k not in _NOT_SETTINGS}
    return dict(json.loads(json.dumps(settings)))


def body(network: Any) -> Any:
    """The network without its head; of one that reads and writes, the part that reads."""
    inner = network.base_model
    return inner.get_encoder() if network.config.is_encoder_decoder else inner


def as_encoder(network: Any) -> Any:
    """A decoder with the same weights whose own attention sees both ways, so that whoever opens its folder reads it so.

    Llama, Mistral and Qwen2 become EuroBERT, which is their architecture without the causal mask. What is no decoder is given
    back as it is. Raises ConfigError for other decoders, and for a window.
    """
    config = network.config
    if not _is_decoder(network):
        return network
    if config.model_type not in _TWINS:
        raise ConfigError(
            f"{type(network).__name__}: no architecture of transformers reads its weights in both directions; "
            f"start from one of {', '.join(_TWINS)}"
        )
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise ConfigError(
            f"{type(network).__name__}: its attention has a window of {config.sliding_window} tokens, "
            "which EuroBERT has not; start from a model without one"
        )
    return _as_eurobert(network).train(network.training)


_TWINS = ("llama", "mistral", "qwen2")


def _as_eurobert(network: Any) -> Any:
    from transformers import EuroBertConfig, EuroBertForMaskedLM

    old = network.config
    biased = any(name.endswith("self_attn.q_proj.bias") for name in network.state_dict())
    names = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim"),
        *("num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps"),
        *("pad_token_id", "bos_token_id", "eos_token_id", "mask_token_id", "tie_word_embeddings", "rope_parameters"),
        *("attention_dropout", "mlp_bias"),
    )
    settings = {name: getattr(old, name) for name in names if hasattr(old, name)}
    made = EuroBertForMaskedLM(EuroBertConfig(**settings, attention_bias=biased))
    missing, unexpected = made.load_state_dict(network.state_dict(), strict=False)
    # Qwen2 has no bias after its attention.
    if unexpected or any(not name.endswith("o_proj.bias") for name in missing):
        raise ConfigError(f"{type(network).__name__}: its weights do not fit EuroBERT ({[*unexpected, *missing][0]})")
    for name in missing:
        made.get_parameter(name).data.zero_()
    return made


def _is_decoder(network: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KINDS

    return type(network).__name__ in KINDS.values() and not network.config.is_encoder_decoder


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


def head_of(config: Any) -> Literal["masked", "causal"]:
    """What a network of these settings predicts best: hidden tokens where its architecture can, unless it is made a decoder."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as KINDS

    return "masked" if config.model_type in KINDS and not getattr(config, "is_decoder", False) else "causal"


def _auto(head: Head, config: Any) -> Any:
    import transformers

    return {
        "masked": transformers.AutoModelForMaskedLM,
        "causal": transformers.AutoModelForCausalLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
        "score": transformers.AutoModelForSequenceClassification,
    }[head_of(config) if head == "language" else head]
