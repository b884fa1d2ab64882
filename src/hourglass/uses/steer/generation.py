"""What a model writes when it is steered, beside what it writes when it is not."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from hourglass.adapters.causal import CausalModel
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import ConfigError, nearest
from hourglass.training.randomness import seeded
from hourglass.uses.steer.edits import Edit, scaled
from hourglass.uses.steer.hook import steering

TOKENS = ("all", "generated")


@dataclass(frozen=True)
class Steered:
    """table: a row for each prompt and alpha, with the text and the unsteered text; and what made them.

    labels are the names of the edited features, None where there is none.
    """

    model: str
    layer: int
    edits: tuple[Edit, ...]
    labels: tuple[str | None, ...]
    table: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "model": self.model,
            "layer": self.layer,
            "edits": [{**dataclasses.asdict(e), "label": label} for e, label in zip(self.edits, self.labels)],
            "rows": json.loads(self.table.to_json(orient="records")),
        }


def generate(
    model: str,
    sae: SparseAutoencoder,
    layer: int,
    prompts: Sequence[str],
    edits: Sequence[Edit],
    *,
    alphas: Sequence[float] = (),
    tokens: Literal["all", "generated"] = "all",
    chat: bool = False,
    max_tokens: int = 40,
    temperature: float = 0.0,
    seed: int = 0,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
) -> Steered:
    """Let a causal model go on from each prompt, steered and not.

    model        a folder or a Hub id
    sae, layer   a sparse autoencoder of the raw output of block `layer`
    edits        what is changed, see `add`, `clamp` and `remove`
    alphas       strengths to try: each multiplies the alphas of all `add`; none: as the edits say
    tokens       edit "all" tokens, the prompt's included, or only the "generated" ones
    chat         the prompts are turns of a user
    temperature  0 is greedy; above it every variant draws from the same seed

    The table has the columns prompt, alpha (null where nothing is added), text, unsteered. Raises InputError, in one
    line, for what does not fit together.
    """
    if isinstance(prompts, str):
        prompts = [prompts]
    if tokens not in TOKENS:
        raise ConfigError(f"tokens {tokens!r}{nearest(tokens, TOKENS)}")
    if max_tokens < 1 or temperature < 0:
        raise ConfigError(f"max_tokens {max_tokens}, temperature {temperature}: expected at least 1 and at least 0")
    if not edits:
        raise ConfigError("no edits: name a feature to add, clamp or remove")
    adds = any(edit.kind == "add" for edit in edits)
    if alphas and not adds:
        raise ConfigError("alphas are strengths of what is added, and no edit adds; leave them out")
    writer = CausalModel(model, dtype=dtype)
    if sae.W_dec.device != writer.device:
        sae = copy.deepcopy(sae).to(writer.device)
    strengths: list[float | None] = [*(alphas or (1.0,))] if adds else [None]
    rows: list[tuple[int, dict[str, Any]]] = []
    first = 0
    for number, batch in enumerate(writer.batches(prompts, chat=chat)):
        after = batch["input_ids"].shape[1] if tokens == "generated" else 0
        with seeded(writer.device, seed, number):
            plain = writer.write(batch, max_tokens=max_tokens, temperature=temperature)
        for alpha in strengths:
            chosen = scaled(edits, 1.0 if alpha is None else alpha)
            with steering(writer.network, layer, sae, chosen, after=after), seeded(writer.device, seed, number):
                texts = writer.write(batch, max_tokens=max_tokens, temperature=temperature)
            rows += [
                (first + i, {"prompt": prompts[first + i], "alpha": alpha, "text": text, "unsteered": plain[i]})
                for i, text in enumerate(texts)
            ]
        first += len(plain)
    rows.sort(key=lambda row: row[0])  # stable: the alphas of a prompt stay in their order
    table = pd.DataFrame([row for _, row in rows], columns=["prompt", "alpha", "text", "unsteered"])
    return Steered(model, layer, tuple(edits), (None,) * len(edits), table)
