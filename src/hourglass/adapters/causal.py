"""Any Hugging Face causal model with its head, to write with.

    model = CausalModel("gpt2")                      # a folder or a Hub id
    for batch in model.batches(["Once upon a time"]):
        model.write(batch, max_tokens=20)            # ["..."], what comes after each prompt

`model.network` is the plain transformers model, for whoever wants to put a hook on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from hourglass.adapters import huggingface_loading as loading
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.waist import as_device

_PROMPTS_AT_ONCE = 16


class CausalModel:
    """A frozen causal model and its tokenizer.

    model   a model folder or a Hub id
    dtype   "auto" takes bfloat16 where the hardware has it

    Raises FolderError for a model that cannot be had, ConfigError for one that reads but does not write.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        device: str | torch.device | None = None,
    ) -> None:
        self.name = model
        self.device = as_device(device)
        self.tokenizer, network = _load(model, loading.compute_dtype(dtype, self.device))
        self.network = network.to(self.device).eval().requires_grad_(False)
        self._pad = next((i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id) if i is not None), 0)
        _plain(network)

    def batches(self, prompts: Sequence[str], *, chat: bool = False) -> list[dict[str, Tensor]]:
        """Prompts in their order as batches {"input_ids", "attention_mask"}, both [n, longest], padded on the left.

        `chat` makes each prompt a turn of the user and opens the turn of the assistant.
        """
        ids = [self._tokens(prompt, chat) for prompt in prompts]
        for i, tokens in enumerate(ids):
            if not tokens:
                raise SourceError(f"prompt {i} ({prompts[i]!r}) makes no token; expected some text to go on from")
        return [self._padded(ids[i : i + _PROMPTS_AT_ONCE]) for i in range(0, len(ids), _PROMPTS_AT_ONCE)]

    @torch.inference_mode()
    def write(self, batch: Mapping[str, Tensor], *, max_tokens: int, temperature: float = 0.0) -> list[str]:
        """What the model writes after each prompt of a batch, `max_tokens` at most, without special tokens.

        Temperature 0 takes the likeliest token each time; above it tokens are drawn from torch's generator.
        """
        length = batch["input_ids"].shape[1]
        most = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        if most and length + max_tokens > most:
            raise ConfigError(
                f"max_tokens {max_tokens}: {self.name} takes {most} tokens, and {length} are the prompt's"
            )
        sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
        written = self.network.generate(
            **{name: tensor.to(self.device) for name, tensor in batch.items()},
            max_new_tokens=max_tokens,
            pad_token_id=self._pad,
            **sampling,
        )
        return list(self.tokenizer.batch_decode(written[:, length:], skip_special_tokens=True))

    def _tokens(self, prompt: str, chat: bool) -> list[int]:
        if not chat:
            return list(self.tokenizer(prompt)["input_ids"])
        if not getattr(self.tokenizer, "chat_template", None):
            raise ConfigError(f"{self.name}: its tokenizer has no chat template; steer the plain prompt")
        turn = [{"role": "user", "content": prompt}]
        try:
            text = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program of its author's, and may refuse
            raise ConfigError(f"{self.name}: its chat template refuses the prompt ({error})") from None
        # The template brings its own special tokens, the first one included.
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _padded(self, ids: list[list[int]]) -> dict[str, Tensor]:
        longest = max(map(len, ids))
        return {
            "input_ids": torch.tensor([[self._pad] * (longest - len(row)) + row for row in ids]),
            "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids]),
        }


def require_causal(model: str) -> None:
    """Raise in one line where `model` is not a causal model; reads its config.json alone."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    config = _config(model)
    kind = type(config)
    both = getattr(config, "is_encoder_decoder", False)
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if both or masked or kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(
            f"{model}: a {config.model_type} model is an encoder{'-decoder' if both else ''}; only a causal model (gpt2, llama, "
            "qwen ...) goes on from a prompt and can be steered; `hourglass explore --encoder MODEL --layer N` explores with one"
        )


def _config(model: str) -> Any:
    if model == "minilm":
        from transformers import BertConfig

        return BertConfig()
    from transformers import AutoConfig

    with loading.loading_errors(model, "causal model"):
        return AutoConfig.from_pretrained(model, trust_remote_code=False)


def _load(model: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """(tokenizer, network with its head). Code that comes with a model is never run."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    require_causal(model)
    network_of: Any = AutoModelForCausalLM
    with loading.loading_errors(model, "causal model"):
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        network, report = network_of.from_pretrained(
            model, dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise FolderError(
            f"{model}: its weights lack {len(missing)} tensors of {type(network).__name__}, {missing[0]} first; "
            "a model without its head can be read, not written with"
        )
    return tokenizer, network


def _plain(network: Any) -> None:
    """Leave of the model's own habits of generation only the tokens that end a text, so that greedy means greedy."""
    from transformers import GenerationConfig

    habits = network.generation_config
    network.generation_config = GenerationConfig(
        bos_token_id=habits.bos_token_id, eos_token_id=habits.eos_token_id, pad_token_id=habits.pad_token_id
    )
