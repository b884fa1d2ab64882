"""DupMAE, and RetroMAE within it (Xiao, Liu, Shao and Cao 2022, arXiv 2205.12035; Xiao and Liu 2022, arXiv 2211.08769).

In: texts. Out: for each text its [CLS] state [d], and what its other tokens say as a bag of words [V].

How it is learned:
1. The encoder reads the text with 30 % of its words hidden, and guesses them (loss "mlm").
2. A decoder of one layer rebuilds every token of the text. A row's query is the [CLS] state and the place of its token, its
   keys and values are [CLS] and the words that a mask of its own leaves visible, half of them, never the token itself
   (loss "decoder"): what it lacks must be in [CLS].
3. The largest logit of each token of the vocabulary over the text's ordinary tokens is to name the text's words (loss "bow").
4. The decoder shares embeddings and head with the encoder, and is not needed afterwards.

Differences from the paper:
- The vocabulary is mapped to by the network's own head, as in the authors' code; the paper has one matrix for it. Likewise
  `bow_weight` is 0.1 and a word weighs 1 over the number of tokens (the paper sums all losses with weight 1, over the set).
- Words come from any tokenizer: from its own borders and white space, not from the "##" of one.
- A text longer than the network is learned from in windows; [SEP] is not among the tokens that vote for the bag of words
  (in the authors' code it is).
- The lexical weights of a text are log(1 + relu) of those logits, as in SPLADE: the paper's fine-tuning was not published.
- Fine-tuning with labelled pairs is not in this file but in `uses.finetune.retriever`, for any masked language model: [CLS], the
  weights or both, reduced by a learned matrix and to the largest k. The scale between the two, which is learned, is ours.
- The distillation loss is a mean over queries; the authors' code divides by the documents as well, hence their weight of 1e-4.
- The query of RetroMAE is made without layer norm and token type (`query_norm` false), that of DupMAE with them, as in the code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hourglass.adapters.attending import attend
from hourglass.adapters.pretrained import body
from hourglass.adapters.sentence_transformers_files import save_sparse
from hourglass.bottlenecks.masking import choose_words, corrupt
from hourglass.errors import ConfigError
from hourglass.nn.language_head import token_loss
from hourglass.nn.lexical import keep_largest, largest_logits, lexical_weights
from hourglass.nn.text_model import Pooling, TextConfig, TextModel
from hourglass.waist import Batch, Losses

Objective = Literal["mlm", "retromae", "dupmae", "bow"]


def _bert(layers: int, width: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
    }


@dataclass(frozen=True, kw_only=True)
class DupMAEConfig(TextConfig):
    """Network and objective.

    objective       "mlm" alone; "retromae": with the decoder; "dupmae": with decoder and bag of words; "bow": mlm and bag of
                    words
    encoder_ratio   share of the tokens that is hidden from the encoder; masked, random: of these, what becomes the mask
                    token, and any token; the rest stays
    decoding        "enhanced": each row sees words of its own, and all are rebuilt; "basic": all rows see the same, and what
                    is hidden is rebuilt
    decoder_ratio   share of the tokens that is hidden from a row of the decoder
    decoder_layers  of which the first has the two streams
    decoder_masks   masks drawn for a text, of which each row takes one; None: one for each row
    query_norm      the decoder's query goes through the embeddings' layer norm
    bow_weight      of the loss "bow"
    """

    network: dict[str, Any] = field(default_factory=lambda: _bert(4, 256, 4))
    pooling: Pooling = "cls"
    objective: Objective = "dupmae"
    encoder_ratio: float = 0.3
    masked: float = 0.8
    random: float = 0.1
    decoding: Literal["enhanced", "basic"] = "enhanced"
    decoder_ratio: float = 0.5
    decoder_layers: int = 1
    decoder_masks: int | None = 256
    query_norm: bool = True
    bow_weight: float = 0.1

    presets = {  # noqa: RUF012  (a ClassVar of the base)
        "tiny": {"network": _bert(2, 32, 4), "max_tokens": 48},
        "base": {},
        "paper": {"network": _bert(12, 768, 12), "max_tokens": 512},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in get_args(Objective):
            raise ConfigError(f"objective {self.objective!r}: expected one of {', '.join(get_args(Objective))}")
        if self.decoding not in ("enhanced", "basic"):
            raise ConfigError(f"decoding {self.decoding!r}: expected enhanced or basic")
        for name in ("encoder_ratio", "decoder_ratio"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: expected a share between 0 and 1")
        if self.decoder_layers < 1:
            raise ConfigError(f"decoder_layers {self.decoder_layers}: expected 1 or more")


class DupMAE(TextModel):
    """An encoder whose [CLS] state and bag of words both hold the text; see the module's docstring."""

    Config = DupMAEConfig
    head = "masked"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"steps": 200, "batch_size": 16, "lr": 1e-3},
        "base": {
            "steps": 4000,
            "batch_size": 32,
            "lr": 5e-4,
            "schedule": "linear",
            "warmup": 0.1,
            "weight_decay": 0.01,
        },
        "paper": {
            "steps": 200_000,
            "batch_size": 256,
            "lr": 1e-4,
            "schedule": "linear",
            "warmup": 0.1,
            "weight_decay": 0.01,
        },
        "init": {
            "steps": 1000,
            "batch_size": 32,
            "lr": 3e-5,
            "schedule": "linear",
            "warmup": 0.1,
            "weight_decay": 0.01,
        },
    }

    def __init__(self, config: DupMAEConfig, tokenizer: Any = None, network: Any = None) -> None:
        super().__init__(config, tokenizer, network)
        self._mask_id = self.require_mask()
        if not hasattr(self._embeddings, "position_embeddings"):
            raise ConfigError(
                f"{type(self.network).__name__}: the decoder needs learned positions, as in BERT and RoBERTa; "
                "start from a model of that kind"
            )
        known = self.network.config
        layers = [
            _DecoderLayer(self.width, known.num_attention_heads, known.intermediate_size, known.layer_norm_eps)
            for _ in range(config.decoder_layers)
        ]
        self.decoder = nn.ModuleList(layers)

    @property
    def _embeddings(self) -> Any:
        return getattr(body(self.network), "embeddings", None)

    # A step ---------------------------------------------------------------------------------------

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Texts to {"ids", "mask", "words", "corrupted", "hidden" [n, L]; "visible" [n, L, L], true where row i of the decoder
        sees token j, or [n, 1, L]; "of_mlm", "of_decoder" [n], targets a row in the batch}."""
        tokens = self.tokens(examples)
        config: DupMAEConfig = self.config
        hidden = choose_words(tokens.words, config.encoder_ratio)
        corrupted = corrupt(
            tokens.ids, hidden, self._mask_id, len(self.tokenizer), masked=config.masked, random=config.random
        )
        visible = torch.stack([self._visible(words, mask) for words, mask in zip(tokens.words, tokens.mask)])
        targets = tokens.words >= 0 if config.decoding == "enhanced" else (tokens.words >= 0) & ~visible[:, 0]
        return {
            "ids": tokens.ids,
            "mask": tokens.mask,
            "words": tokens.words,
            "corrupted": corrupted,
            "hidden": hidden,
            "visible": visible,
            "rebuilt": targets,
            # Over the whole batch, so that a part of it has its share of the mean over tokens.
            "of_mlm": hidden.sum().float().div(len(hidden)).expand(len(hidden)).clone(),
            "of_decoder": targets.sum().float().div(len(hidden)).expand(len(hidden)).clone(),
        }

    def _visible(self, words: Tensor, mask: Tensor) -> Tensor:
        """[L, L] of one text, or [1, L] for basic decoding; no more than that is ever there."""
        length = len(words)
        if self.config.decoding == "basic":
            return (mask & ~choose_words(words, self.config.decoder_ratio))[None]
        drawn = min(length, self.config.decoder_masks or length)
        masks = choose_words(words.expand(drawn, -1), self.config.decoder_ratio)
        of_row = torch.arange(length) if drawn == length else torch.randint(drawn, (length,))
        visible = mask & ~masks[of_row]
        visible[:, 0] = True
        visible.fill_diagonal_(False)
        return visible

    def loss(self, batch: Batch) -> Losses:
        """Those of the objective among "mlm", "decoder" (means over tokens) and "bow" (a mean over texts), in nats."""
        objective = self.config.objective
        states = self.states(batch["corrupted"], batch["mask"])
        hidden = batch["hidden"]
        losses = {
            "mlm": token_loss(self.network, states[hidden], batch["ids"][hidden]) / batch["of_mlm"].sum().clamp(min=1)
        }
        if objective in ("retromae", "dupmae"):
            rebuilt = batch["rebuilt"]
            decoded = self.decode_rows(states[:, 0], batch)[rebuilt]
            of = batch["of_decoder"].sum().clamp(min=1)
            losses["decoder"] = token_loss(self.network, decoded, batch["ids"][rebuilt]) / of
        if objective in ("dupmae", "bow"):
            losses["bow"] = self.config.bow_weight * self._bow(states, batch)
        return losses

    def decode_rows(self, sentence: Tensor, batch: Batch) -> Tensor:
        """[n, L, d] what the decoder makes of the sentence vectors [n, d] and what its rows see of the texts."""
        ids, visible = batch["ids"], batch["visible"]
        context = self._embeddings(input_ids=ids)
        context = torch.cat([sentence[:, None].to(context.dtype), context[:, 1:]], 1)
        if self.config.decoding == "basic":
            query = context
        elif self.config.query_norm:
            query = self._embeddings(inputs_embeds=sentence[:, None].expand(-1, ids.shape[1], -1))
        else:
            positions = self._embeddings.position_embeddings
            first = 0 if positions.padding_idx is None else positions.padding_idx + 1
            query = sentence[:, None] + positions.weight[first : first + ids.shape[1]]
        first_layer, *more = self.decoder
        made: Tensor = first_layer(query, context, visible)
        for layer in more:
            made = layer(made, made, batch["mask"][:, None])
        return made

    def _bow(self, states: Tensor, batch: Batch) -> Tensor:
        """Mean over the texts of -sum over their words of log softmax(largest logits), each over the number of tokens."""
        ordinary = batch["words"] >= 0
        named = largest_logits(self.network, states, ordinary)
        weights = torch.zeros_like(named)
        weights.scatter_(1, batch["ids"], (ordinary / ordinary.sum(1, keepdim=True).clamp(min=1)).to(named.dtype))
        weights[:, self.tokenizer.all_special_ids] = 0  # written in special places, and those of padding
        some = ordinary.any(1)
        of_text = -(weights[some] * named[some].log_softmax(1)).sum(1)
        return of_text.sum() / len(states)

    # What it is for -------------------------------------------------------------------------------

    def lexical(self, batch: Batch, k: int | None = 384) -> Tensor:
        """[n, V] how much each token of the vocabulary says of a text, 0 or more; all but the largest k are 0."""
        states = self.states(batch["ids"], batch["mask"])
        largest = largest_logits(self.network, states, batch["words"] >= 0)
        return keep_largest(lexical_weights(largest, self.tokenizer.all_special_ids), k)

    def save_sparse(self, folder: str | Path, k: int | None = None) -> None:
        """A folder that `SparseEncoder` of sentence-transformers opens, and that gives the weights of `lexical`."""
        save_sparse(Path(folder), self.network, self.tokenizer, self.config.max_tokens, k)


class _DecoderLayer(nn.Module):
    """One layer of BERT whose queries come from one stream, keys and values from another."""

    def __init__(self, width: int, heads: int, inner: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.mixed = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm, self.last_norm = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, query: Tensor, context: Tensor, visible: Tensor) -> Tensor:
        """[n, L, d] of the streams [n, L, d]; visible [n, L or 1, L]. The residual is the query's."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(query), self.key(context), self.value(context))
        )
        seen = attend(q, k, v, visible[:, None]).transpose(1, 2).flatten(2)
        made = self.norm(query + self.mixed(seen))
        last: Tensor = self.last_norm(made + self.narrow(F.gelu(self.wide(made))))
        return last
