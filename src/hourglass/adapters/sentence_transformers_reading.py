"""How a model of sentence-transformers is made to read faster, with the vectors that it gives otherwise."""

from __future__ import annotations

from typing import Any

import torch


def compute_in(model: Any, dtype: torch.dtype) -> None:
    """Let the network of a frozen `SentenceTransformer` compute in `dtype`; what comes after it (pooling, length 1) stays in float32.

    In bfloat16, on processors that multiply it, a text takes a third of the time or less; of MiniLM's vectors the cosine to those
    of float32 is 0.9999. A model that does not begin with a network of transformers stays as it is.
    """
    network = getattr(model[0], "auto_model", None)
    if network is None or dtype == torch.float32:
        return
    network.to(dtype)
    if dtype == torch.bfloat16:
        # Here, since it takes seconds: who only searches words does not wait for transformers.
        from hourglass.adapters.cpu_attention import use_cpu_attention

        use_cpu_attention(network)
    model[0].register_forward_hook(_in_single)


def _in_single(module: Any, inputs: Any, features: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in features.items()
    }
