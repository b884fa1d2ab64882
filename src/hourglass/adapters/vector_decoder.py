"""A causal network of transformers that reads vectors in place of tokens: its own forward, mask, positions and last norm.

    tokenizer, network, table = load_vector_decoder("facebook/opt-125m")
    network(inputs_embeds=vectors, attention_mask=mask).last_hidden_state          # as wide as the vectors

Its table of tokens is taken out, and given back beside it; it has no head. Of an OPT whose tokens are narrower than its layers
the vectors are as narrow: they go through its own projections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import loading_errors, resolve
from hourglass.adapters.pretrained import body, build_network, load_network
from hourglass.errors import ConfigError

KNOWN = ("gpt2", "llama", "mistral", "opt", "qwen2")


def load_vector_decoder(model: str) -> tuple[Any, Any, Tensor]:
    """(tokenizer, network, [V, d] its table of tokens) of a folder or a Hub id.

    Raises FolderError where there is no such model, ConfigError for one of another architecture.
    """
    from transformers import AutoConfig

    with loading_errors(model, "causal model"):
        config = AutoConfig.from_pretrained(resolve(model), trust_remote_code=False)
    _check(model, config.model_type)
    tokenizer, network = load_network(model, "causal")
    table = network.get_input_embeddings().weight.detach()
    return tokenizer, _without_table(body(network)), table


def build_vector_decoder(settings: Mapping[str, Any], tokenizer: Any) -> Any:
    """A new one, of settings as in config.json. Raises ConfigError for those of another architecture."""
    _check("network", str(settings.get("model_type")))
    return _without_table(body(build_network(settings, "causal", tokenizer)))


def vector_width(config: Any) -> int:
    """Numbers of a vector that goes in, and of one that comes out."""
    return int(getattr(config, "word_embed_proj_dim", config.hidden_size))


def kv_bytes(config: Any, bytes_of_number: int = 4) -> int:
    """Bytes of keys and values that the network keeps for each position."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    across = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * across * bytes_of_number)


def cache_bytes(cache: Any) -> int:
    """Bytes that a cache of transformers holds."""
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values) if tensor is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _check(model: str, kind: str) -> None:
    if kind not in KNOWN:
        raise ConfigError(f"{model}: its architecture is {kind!r}; expected one of {', '.join(KNOWN)}")


def _without_table(network: Any) -> Any:
    network.set_input_embeddings(nn.Identity())
    return network
