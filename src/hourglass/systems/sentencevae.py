"""SentenceVAE: every sentence becomes one position of a language model, which says the next sentence's vector.

An, Guo, Wang, Wei and Wang, *SentenceVAE: Enable Next-sentence Prediction for Large Language Models with Faster Speed, Higher
Accuracy and Longer Context*, 2024 (arXiv 2408.00655). In: texts. Out: a model that goes on from a text sentence by sentence, and
for each text a vector [d], the mean of its sentences'; `decode` gives back the sentence of a vector.

1. A text is cut into clauses (`data/sentences.py`); joined they are the text.
2. Stage 1, the autoencoder: e = LayerNorm(sum of an encoder's states); a decoder says the sentence from e. There is nothing
   variational in it: no noise, no KL.
3. Stage 2, the language model: a causal network reads e_1 .. e_i in place of tokens; the same decoder says sentence i + 1 from
   its state g_i, and a stop head whether there is one.
4. Losses are focal cross-entropies, the mean of -(1 - p)^2 log(p + 1e-6); the stop head's has no part once it is below 0.01.
5. It writes with two caches: of the network a position a sentence, of the decoder the tokens of the sentence it is at.

`legacy_attention` and `legacy_targets` do what the released code does and the paper does not say: without a causal mask g_i sees
the sentence that it is to say, and the tokens of sentence i + 1 are counted by the length of sentence i, so that padding is
counted and what is longer is not. The published perplexities rest on both.

Differences from the paper:
- a mark cuts where white space follows, so that 3.14, e.g. and a URL stay whole, and what follows the last mark is kept; the
  authors' rule is sentences="paper". A sentence with more tokens than there is room for is parted, theirs is cut off;
- the network's own forward reads the vectors, with its projections and its last norm, which the paper leaves out; of OPT-350m
  they have 512 numbers, where the paper has 1024;
- the decoder's attention to its one vector is written as what it comes to, and its weights have no dropout;
- a stage-2 batch has several passages, of which each counts the same, in the paper it has one; a passage that a text has more
  sentences than begins with the last of the one before it, and its stop target is that of the text;
- cosine once, where the authors' falls and rises every 20,000 steps; one share of warm-up for both stages; the decay of the
  average of the weights is our choice, and the last weights are kept, not the best;
- a network of Llama's, Mistral's, Qwen2's or GPT-2's kind will do as well; the presets begin with new ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import blocks, loading_errors, local_folder, open_tokenizer
from hourglass.adapters.pretrained import settings_of
from hourglass.adapters.tokenizers import keep_tokenizer, train_tokenizer
from hourglass.adapters.vector_decoder import build_vector_decoder, load_vector_decoder, vector_width
from hourglass.data.passages import Passage, SentenceCutter, keep_sentences
from hourglass.data.sentences import Rule, ended
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.metrics.writing import Likelihood, Written
from hourglass.nn.attention import attention_mask
from hourglass.nn.cross_entropy import focal, linear_cross_entropy
from hourglass.nn.text_system import Lesson, TextSystem
from hourglass.storage.atomic import read_json
from hourglass.systems.sentencevae_parts import (
    Limits,
    Picker,
    SentenceDecoder,
    SentenceEncoder,
    Writing,
    as_long_as,
    by_length,
    pieces_of,
    sentences_of,
    shifted,
)
from hourglass.waist import Batch, Losses, WaistConfig

_log = logging.getLogger("hourglass")
_BYTES = 300  # a vocabulary without a corpus: the bytes, and the special tokens
_PROMPTS_AT_ONCE = 16
_TEXTS_AT_ONCE = 32


def _opt(layers: int, width: int, heads: int, positions: int = 2048, narrow: int | None = None) -> dict[str, Any]:
    return {
        "model_type": "opt",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "word_embed_proj_dim": narrow or width,
        "ffn_dim": 4 * width,
        "num_attention_heads": heads,
        "max_position_embeddings": positions,
        **({"do_layer_norm_before": False} if narrow else {}),
    }


_PAPER = {"layers": 1, "first_stage": 300_000, "first_batch": 128, "first_lr": 1.28e-5}


@dataclass(frozen=True, kw_only=True)
class SentenceVAEConfig(WaistConfig):
    """The network, the autoencoder around it, and how both learn.

    network           settings of the network of transformers, {"model_type": "opt", ...}; from a checkpoint those of the checkpoint
    layers            of the encoder, and of the decoder: H1, H2, H4 in the paper
    max_tokens        of a sentence, its end included
    max_sentences     of a passage that is learned from
    sentences         what ends a sentence: "clause", "sentence" or "paper" (`data/sentences.py`)
    gamma             of the focal losses; 0: cross-entropy
    stop_floor        the stop head's loss has no part below it
    learnable_add     the states of a sentence are weighed before they are added up
    dropout           of encoder and decoder
    tables            of tokens, in encoder and decoder: "learned", "copied" from the network's (of a checkpoint), or "frozen" copies
    tune_autoencoder  whether stage 2 trains encoder and decoder
    tune_layers       stage 2 trains the first and the last so many layers of the network, and nothing else of it; None: all of it
    first_stage       steps of stage 1: a share of all, up to 1, or their number
    first_batch, first_lr  sentences of a step of it, and its learning rate; None: as in stage 2
    legacy_attention  no causal mask while learning; not while writing
    legacy_targets    a sentence's tokens are counted by the length of the one before
    """

    network: dict[str, Any] = field(default_factory=lambda: _opt(4, 256, 4, 256))
    layers: int = 1
    max_tokens: int = 32
    max_sentences: int = 32
    sentences: Rule = "clause"
    gamma: float = 2.0
    stop_floor: float = 0.01
    learnable_add: bool = False
    dropout: float = 0.1
    tables: Literal["learned", "copied", "frozen"] = "learned"
    tune_autoencoder: bool = True
    tune_layers: int | None = None
    first_stage: float = 0.5
    first_batch: int | None = None
    first_lr: float | None = None
    legacy_attention: bool = False
    legacy_targets: bool = False

    presets = {  # noqa: RUF012  (a ClassVar of the base)
        "tiny": {
            "network": {**_opt(2, 32, 4, 64), "dropout": 0.0},
            "max_tokens": 24,
            "max_sentences": 8,
            "dropout": 0.0,
        },
        "base": {"first_batch": 256},
        "paper": {"network": _opt(12, 768, 12), "max_tokens": 64, "max_sentences": 64, **_PAPER},
        "paper-350m": {"network": _opt(24, 1024, 16, narrow=512), "max_tokens": 64, "max_sentences": 64, **_PAPER},
        "paper-1.3b": {"network": _opt(24, 2048, 32), "max_tokens": 64, "max_sentences": 64, **_PAPER},
    }

    def __post_init__(self) -> None:
        for name, choices in (("sentences", get_args(Rule)), ("tables", ("learned", "copied", "frozen"))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(choices)}")
        for name, least in (("layers", 1), ("max_tokens", 8), ("max_sentences", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} {getattr(self, name)}: expected {least} or more")
        if self.gamma != 0 and self.gamma < 1:
            raise ConfigError(f"gamma {self.gamma}: expected 0, or 1 or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout}: expected a share from 0 to below 1")
        if self.tune_layers is not None and self.tune_layers < 0:
            raise ConfigError(f"tune_layers {self.tune_layers}: expected 0 or more, or null for all")
        if self.first_stage < 0 or (self.first_stage > 1 and not float(self.first_stage).is_integer()):
            raise ConfigError(f"first_stage {self.first_stage}: expected a share up to 1, or a whole number of steps")

    def first_steps(self, steps: int) -> int:
        """Of so many steps, those of stage 1."""
        first = round(steps * self.first_stage) if self.first_stage <= 1 else int(self.first_stage)
        if first > steps:
            raise ConfigError(f"first_stage {first}: expected at most the {steps} steps of the training")
        return first


_ADAM = {"weight_decay": 0.01, "clip": 1.0}
_LARGE = {
    **_ADAM,
    "steps": 1_900_000,
    "batch_size": 1,
    "lr": 1e-6,
    "warmup": 0.003,
    "ema": 0.9998,
    "precision": "auto",
}


class SentenceVAE(TextSystem):
    """A language model that reads and writes sentence by sentence, each a vector; see the module's docstring.

    tokenizer, network    ready ones; by default one of bytes, and a new network by the config
    table                 [V, d] of the network's tokens, for `tables` "copied" and "frozen"
    """

    Config = SentenceVAEConfig
    tags = frozenset({"decodes"})
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {**_ADAM, "steps": 200, "batch_size": 16, "lr": 3e-3},
        "base": {**_ADAM, "steps": 6000, "batch_size": 16, "lr": 1e-3},
        **dict.fromkeys(("paper", "paper-350m", "paper-1.3b"), _LARGE),
        "init": {**_ADAM, "steps": 4000, "batch_size": 16, "lr": 1e-4},
    }
    config: SentenceVAEConfig
    learned: Tensor
    banned: Tensor

    def __init__(
        self, config: SentenceVAEConfig, tokenizer: Any = None, network: Any = None, table: Tensor | None = None
    ) -> None:
        super().__init__(config)
        self.tokenizer = train_tokenizer([], _BYTES, "bpe") if tokenizer is None else tokenizer
        if self.tokenizer.eos_token_id is None:
            raise ConfigError(
                f"{type(self.tokenizer).__name__}: its tokenizer has no end token, and sentencevae ends a sentence with one; "
                "start from a model with an end token"
            )
        self.end: int = self.tokenizer.eos_token_id
        self.network = build_vector_decoder(config.network, self.tokenizer) if network is None else network
        settings = self.network.config
        positions = getattr(settings, "max_position_embeddings", config.max_sentences)
        if config.max_sentences > positions:
            raise ConfigError(f"max_sentences {config.max_sentences}: the network has {positions} positions")
        heads = settings.num_attention_heads
        if self.width % (2 * heads):
            raise ConfigError(f"network: {heads} heads do not part vectors of {self.width} numbers evenly")
        tokens = settings.vocab_size
        size = tokens, self.width, config.layers, heads, config.max_tokens, config.dropout
        self.encoder = SentenceEncoder(*size, config.learnable_add)
        self.decoder = SentenceDecoder(*size)
        self.stop = nn.Linear(self.width, 2)
        if config.tables != "learned" and table is not None:
            for reader in (self.encoder, self.decoder):
                reader.embed.weight.data.copy_(table)
        self._pad = self.end if self.tokenizer.pad_token_id is None else int(self.tokenizer.pad_token_id)
        special = {i for i in self.tokenizer.all_special_ids if i < tokens} | set(range(len(self.tokenizer), tokens))
        self.register_buffer("banned", torch.tensor(sorted(special - {self.end}), dtype=torch.int64), persistent=False)
        # The last stage that was learned: one that knows sentences alone does not write.
        self.register_buffer("learned", torch.zeros((), dtype=torch.int64))
        self._unknown = 0.0
        self.begin(2)

    @classmethod
    def from_checkpoint(cls, model: str, **settings: Any) -> Self:
        """A system around a causal model, a folder or a Hub id; or a trained one of its own, which goes on with stage 2 alone unless
        `first_stage` says otherwise.

        Raises FolderError where there is no such model, ConfigError for one of another architecture and settings that do not fit.
        """
        path = Path(model) / "config.json"
        if path.is_file() and read_json(path).get("system") == cls.system_name():
            before = cls.from_pretrained(model)
            config = cls.Config.from_dict({**before.config.to_dict(), "first_stage": 0.0, **settings})
            after = cls(config, before.tokenizer, before.network)
            try:
                after.load_state_dict(before.state_dict())
            except RuntimeError as error:
                raise ConfigError(
                    f"{model}: does not fit these settings ({str(error).splitlines()[-1].strip()})"
                ) from None
            return after
        tokenizer, network, table = load_vector_decoder(model)
        # The autoencoder is new, whatever the network knows: it learns as one from scratch.
        values = {"tables": "copied", "first_batch": 128, "first_lr": 1e-3, **settings}
        config = cls.Config.from_dict({**values, "network": settings_of(network)})
        return cls(config, tokenizer, network, table)

    def with_corpus(self, texts: Sequence[str], folder: Path, vocabulary: int) -> Self:
        """The system with a tokenizer of the corpus."""
        if self.config.tables != "learned":
            raise ConfigError(
                f"tables {self.config.tables!r}: there is no model to copy them from; start from one (--init)"
            )
        return type(self)(self.config, keep_tokenizer(texts, vocabulary, "bpe", folder / "tokenizer"))

    @property
    def width(self) -> int:
        """Numbers of a sentence's vector."""
        return vector_width(self.network.config)

    @cached_property
    def cutter(self) -> SentenceCutter:
        """Texts to sentences of tokens."""
        return SentenceCutter(self.tokenizer, self.config.sentences, self.config.max_tokens - 1)

    # Stages ---------------------------------------------------------------------------------------

    def begin(self, stage: Literal[1, 2]) -> None:
        """From here on `loss` is that of a stage, and what the stage does not train is frozen."""
        self.stage = stage
        config = self.config
        autoencoder = stage == 1 or config.tune_autoencoder
        for reader in (self.encoder, self.decoder):
            reader.requires_grad_(autoencoder)
            reader.embed.weight.requires_grad_(autoencoder and config.tables != "frozen")
        self.stop.requires_grad_(stage == 2)
        self.network.requires_grad_(stage == 2 and config.tune_layers is None)
        if stage == 2 and config.tune_layers:
            _, _, layers = blocks(self.network)
            for layer in (*layers[: config.tune_layers], *layers[-config.tune_layers :]):
                layer.requires_grad_(True)

    def lessons(
        self, texts: Sequence[str], held_out: Sequence[str], folder: Path, steps: int, progress: bool = False
    ) -> Iterator[Lesson]:
        """Stage 1 on sentences, stage 2 on passages; both kinds are kept in `folder`."""
        config = self.config
        first = config.first_steps(steps)
        kept = keep_sentences(texts, self.cutter, folder / "sentences")
        self._unknown = kept.unknown / kept.tokens
        if kept.unknown:
            _log.warning("%.2g of the tokens are unknown to the tokenizer, and cannot be restored", self._unknown)
        held = keep_sentences(held_out, self.cutter, folder / "sentences-held-out") if len(held_out) else None
        if first:
            self.begin(1)
            given = {"batch_size": config.first_batch, "lr": config.first_lr}
            train = {name: value for name, value in given.items() if value is not None}
            name = "stage-1" if first < steps else ""
            yield Lesson(name, first, kept.sentences(), held.sentences() if held else [], train)
        if first < steps:
            passages = kept.passages(config.max_sentences)
            if len(kept) == kept.texts:
                raise SourceError(
                    "no text has two sentences, so that none comes next: set sentences to 'clause', or first_stage to 1"
                )
            self.begin(2)
            yield Lesson("", steps - first, passages, held.passages(config.max_sentences) if held else [])

    def after_step(self, step: int) -> None:
        self.learned.fill_(self.stage)

    # Texts to tensors -----------------------------------------------------------------------------

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Texts, or passages of `data.passages`, to sentences of tokens.

        ids       [n, S, L] the words of each sentence and its end, padded
        lengths   [n, S] tokens of each, 0 for padding
        follows   [n, S] bool, whether another sentence comes after it in its text
        tokens    [n] mean number of tokens of an example, over the whole batch
        followed  [n] share of the examples with two sentences or more, likewise

        While learning, a text of more than `max_sentences` is a window of it; otherwise the vector is of all of its sentences, and
        the losses of the first so many. Raises SourceError for an empty batch and for what is no text.
        """
        if not len(examples):
            raise SourceError("an empty batch: expected at least one text")
        for i, example in enumerate(examples):
            if not isinstance(example, str | Passage):
                raise SourceError(f"example {i}: expected a text, found {type(example).__name__}")
        made = iter(self.cutter.ids([example for example in examples if isinstance(example, str)]))
        passages = [
            example if isinstance(example, Passage) else self._window(Passage(next(made), ends=True))
            for example in examples
        ]
        n = len(passages)
        most = max(1, max(len(passage.sentences) for passage in passages))
        longest = 1 + max([len(ids) for passage in passages for ids in passage.sentences], default=0)
        ids = torch.full((n, most, longest), self._pad)
        lengths = torch.zeros(n, most, dtype=torch.int64)
        follows = torch.zeros(n, most, dtype=torch.bool)
        for i, passage in enumerate(passages):
            for j, words in enumerate(passage.sentences):
                ids[i, j, : len(words)] = torch.from_numpy(words)
                ids[i, j, len(words)] = self.end
                lengths[i, j] = len(words) + 1
                follows[i, j] = j + 1 < len(passage.sentences) or not passage.ends
        followed = sum(len(passage.sentences) > 1 for passage in passages)
        return {
            "ids": ids,
            "lengths": lengths,
            "follows": follows,
            "tokens": torch.full((n,), max(1, int(lengths.sum())) / n),
            "followed": torch.full((n,), max(1, followed) / n),
        }

    def _window(self, passage: Passage) -> Passage:
        size, most = len(passage.sentences), self.config.max_sentences
        if not self.training or size <= most:
            return passage
        start = int(torch.randint(size - most + 1, ()))
        return Passage(passage.sentences[start : start + most], ends=start + most == size)

    def parts(self, text: str) -> Iterator[str]:
        """The sentences, which a text is made of without a gap."""
        return iter(self.cutter.parts([text])[0])

    # Sentences to vectors and back ----------------------------------------------------------------

    def encode(self, batch: Batch) -> Tensor:
        """[n, d] the mean of the vectors of a text's sentences; of a text without one zeros."""
        real = batch["lengths"] > 0
        vectors = self._vectors(batch["ids"], batch["lengths"])
        return vectors.sum(1) / real.sum(1, keepdim=True).clamp(min=1)

    def _vectors(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """[n, S, d] of sentences [n, S, L]; zeros for padding."""
        real = lengths > 0
        flat, sizes = ids[real], lengths[real]
        found = torch.zeros(*lengths.shape, self.width, device=ids.device)
        parts, order = [], []
        for rows, longest in by_length(sizes):
            parts.append(self.encoder(shifted(flat[rows, :longest], self.end), sizes[rows]))
            order.append(rows)
        if not parts:
            return found
        return found.masked_scatter(real[..., None], torch.cat(parts)[torch.cat(order).argsort()])

    def vectors_of(self, sentences: Sequence[Any]) -> Tensor:
        """[S, d] of the token ids of each sentence."""
        batch = self.collate([Passage(sentences, ends=True)])
        device = self.stop.weight.device
        return self._vectors(batch["ids"].to(device), batch["lengths"].to(device))[0]

    @torch.no_grad()
    def decode(self, latent: Tensor) -> list[str]:
        """The likeliest words, one after another, of the sentence of each vector [n, d]."""
        self.eval()
        found: list[str] = []
        for memory in latent.split(_TEXTS_AT_ONCE):
            most = torch.full((len(memory),), self.config.max_tokens - 1, device=memory.device)
            spelled = self.decoder.spell(memory, self.end, self.banned, most, lambda logits, _: logits.argmax(1))
            written = torch.stack([ids for ids, _ in spelled], 1)
            found += [self._text(row[row >= 0].tolist()) for row in written]
        return found

    def reconstruct(self, texts: Sequence[str]) -> list[str]:
        """Each text, its sentences restored one by one from their vectors."""
        self.eval()
        found = []
        for sentences in self.cutter.ids(_checked(texts)):
            with torch.no_grad():
                found.append("".join(self.decode(self.vectors_of(sentences))) if sentences else "")
        return found

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    # Learning -------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Losses:
        """Stage 1: {"sentence"}, mean over tokens. Stage 2: {"next", "stop"}, mean over passages of the mean over their tokens
        (from the second sentence on) and sentences. Focal, in nats."""
        if self.stage == 1:
            ids, lengths = batch["ids"], batch["lengths"]
            memory = self._vectors(ids, lengths)
            return {"sentence": self._said(memory, ids, lengths, 1 / batch["tokens"].sum())}
        ids, lengths, follows = (batch[name][:, : self.config.max_sentences] for name in ("ids", "lengths", "follows"))
        states = self._states(ids, lengths)
        real = lengths > 0
        said = self.stop(states).float().log_softmax(2).gather(2, follows.long()[..., None])[..., 0]
        of_passage = (focal(said, self.config.gamma) * real).sum(1) / real.sum(1).clamp(min=1)
        stop = of_passage.mean()
        counted = self._as_released(lengths) if self.config.legacy_targets else lengths[:, 1:]
        shares = 1 / (counted.sum(1, keepdim=True).clamp(min=1) * batch["followed"].sum())
        following = self._said(states[:, :-1], ids[:, 1:], lengths[:, 1:], shares, counted)
        return {"next": following, "stop": stop.where(stop >= self.config.stop_floor, stop.detach())}

    def _states(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """[n, S, d] the network's states: of sentence i what the next is said from."""
        real = lengths > 0
        mask = (
            attention_mask(real, "bidirectional", self.network.dtype) if self.config.legacy_attention else real.long()
        )
        made = self.network(
            inputs_embeds=self._vectors(ids, lengths),
            attention_mask=mask,
            position_ids=torch.arange(lengths.shape[1], device=ids.device).expand_as(lengths),
            use_cache=False,
        )
        states: Tensor = made.last_hidden_state
        return states

    def _as_released(self, lengths: Tensor) -> Tensor:
        """[n, S - 1] how many tokens of sentences 2 .. S the released code counts: as many as the one before has."""
        return lengths[:, :-1].where(lengths[:, 1:] > 0, 0)

    def _said(
        self,
        memory: Tensor,
        ids: Tensor,
        lengths: Tensor,
        shares: Tensor | float,
        counted: Tensor | None = None,
        gamma: float | None = None,
    ) -> Tensor:
        """The sum over tokens of share x loss, of sentences [n, S, L] said from vectors [n, S, d].

        shares    of the tokens of each sentence [n, S], or of all
        counted   [n, S] as how long each is taken to be: its end is put there, padding before it is to be said, what is behind it
                  not; None: as long as it is
        """
        real = lengths > 0
        memory, flat, sizes = memory[real], ids[real], lengths[real]
        weights = torch.as_tensor(shares, dtype=memory.dtype, device=memory.device).expand_as(lengths)[real]
        read, targets = shifted(flat, self.end), flat
        if counted is not None:
            read, targets = as_long_as(flat, sizes, counted[real], self._pad, self.end)
            sizes = counted[real]
        states, wanted, share = [], [], []
        for rows, longest in by_length(sizes):
            here = torch.arange(longest, device=ids.device) < sizes[rows, None]
            states.append(self.decoder(read[rows, :longest], memory[rows])[here])
            wanted.append(targets[rows, :longest][here])
            share.append(weights[rows, None].expand_as(here)[here])
        if not states:
            return memory.sum()
        head = self.decoder.head
        rate = self.config.gamma if gamma is None else gamma
        of_tokens = torch.cat(wanted)[:, None], torch.cat(share)[:, None]
        return linear_cross_entropy(torch.cat(states), head.weight, head.bias, *of_tokens, rate)

    @torch.no_grad()
    def score(self, texts: Sequence[str], *, released: bool = False) -> list[Likelihood]:
        """Of each text with two sentences or more, how likely those after the first are, up to `max_sentences` in all.

        nats of their tokens, of their ends and of the stop head's word that they follow; tokens are theirs without the ends.
        released   what the authors' formula counts instead: see `legacy_targets`
        """
        self.eval()
        device = self.stop.weight.device
        found = []
        for cut in self.cutter.cut(_checked(texts)):
            cut = cut[: self.config.max_sentences]
            if len(cut) < 2:
                continue
            made = self.collate([Passage([ids for _, ids in cut], ends=True)])
            batch = {name: tensor.to(device) for name, tensor in made.items()}
            ids, lengths = batch["ids"], batch["lengths"]
            states = self._states(ids, lengths)
            counted = self._as_released(lengths) if released else None
            nats = self._said(states[:, :-1], ids[:, 1:], lengths[:, 1:], 1.0, counted, gamma=0.0)
            if not released:
                nats = nats - self.stop(states[:, :-1]).log_softmax(2)[..., 1].sum()
            tokens = int((lengths[:, 1:] - 1).sum()) if counted is None else int(counted.sum())
            found.append(Likelihood(float(nats), tokens, len("".join(part for part, _ in cut[1:]).encode())))
        return found

    # Writing --------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_sentences: int = 8,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_tokens: int | None = None,
        stop: bool = True,
        seed: int = 0,
    ) -> list[str]:
        """What comes after each prompt, without it: sentences until the stop head ends the text, `max_sentences` at most.

        temperature   0: the likeliest token each time; above it tokens are drawn, of the likeliest that have `top_p` together
        max_tokens    of what is written for a prompt
        stop          false: the stop head is not asked

        A prompt that ends without white space has a space after it, which comes first in what is written. What is written for a
        prompt is the same whatever the others are. Raises SourceError for an empty prompt and one whose script the tokenizer
        does not know, ConfigError for a prompt of more sentences than the network has positions for.
        """
        found = []
        limits = self._limits(max_sentences, max_tokens, stop)
        pick = Picker(_checked(prompts), temperature, top_p, seed)
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            here = prompts[start : start + _PROMPTS_AT_ONCE]
            writing = self.writing(here, limits, pick.part(start, start + len(here)))
            for prompt, sentences in zip(here, sentences_of(writing)):
                text = "".join(map(self._text, sentences))
                found.append(_space(prompt) + text if text else "")
        return found

    def stream(
        self,
        prompt: str,
        *,
        max_sentences: int = 8,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_tokens: int | None = None,
        stop: bool = True,
        seed: int = 0,
    ) -> Iterator[str]:
        """The same for one prompt in pieces, each as soon as its characters are there; joined they are what `generate` gives."""
        pick = Picker([prompt], temperature, top_p, seed)
        writing = self.writing([prompt], self._limits(max_sentences, max_tokens, stop), pick)
        return pieces_of(writing, self._text, _space(prompt))

    def write(self, prompt: str, tokens: int, *, words: int | None = None) -> Written:
        """What it costs to write `tokens` tokens after a prompt, in sentences of at most `words` (None: as it is); the stop head is not
        asked, and the likeliest token is taken."""
        limits = replace(self._limits(tokens, tokens, stop=False), words=words or self.config.max_tokens - 1)
        writing = self.writing([prompt], limits, Picker([prompt], 0.0, 1.0, 0))
        began = time.perf_counter()
        writing.begin()
        read = time.perf_counter()
        (sentences,) = sentences_of(writing)
        done = time.perf_counter()
        size = len("".join(map(self._text, sentences)).encode())
        return Written(sum(map(len, sentences)), size, read - began, done - read, writing.kv_bytes())

    def kv_bytes(self, text: str) -> int:
        """Bytes of keys and values that it holds to go on from a text: the network's cache of it, and the decoder's of a sentence as
        long as the longest in it."""
        writing = self.writing([text], self._limits(1, None, stop=False), Picker([text], 0.0, 1.0, 0))
        writing.begin()
        longest = max(map(len, writing.prompts[0]))
        kept = 2 * self.config.layers * self.width * self.stop.weight.element_size()
        return writing.kv_bytes() + longest * kept

    def writing(self, prompts: Sequence[str], limits: Limits, pick: Any) -> Writing:
        """The writing after several prompts at once, token by token, with what it keeps in its caches."""
        if int(self.learned) != 2:
            known = "single sentences" if int(self.learned) else "nothing"
            raise ConfigError(f"sentencevae: has learned {known} yet; train its second stage to write")
        for i, prompt in enumerate(prompts):
            if not prompt.strip():
                raise SourceError(f"prompt {i} is empty: expected some text to go on from")
        rows = self.cutter.ids([ended(prompt) for prompt in prompts])
        positions = getattr(self.network.config, "max_position_embeddings", None)
        unknown = self.tokenizer.unk_token_id
        for i, sentences in enumerate(rows):
            if unknown is not None and all((ids == unknown).all() for ids in sentences):
                raise SourceError(f"prompt {i} ({prompts[i][:40]!r}): the tokenizer knows none of its script")
            if positions and len(sentences) + limits.sentences - 1 > positions:
                raise ConfigError(
                    f"prompt {i}: {len(sentences)} sentences and {limits.sentences} to come are more than the network's {positions} "
                    "positions; give the end of it, or ask for fewer"
                )
        self.eval()
        return Writing(self, rows, limits, pick)

    def _limits(self, sentences: int, tokens: int | None, stop: bool) -> Limits:
        for name, value in (("max_sentences", sentences), ("max_tokens", 1 if tokens is None else tokens)):
            if value < 1:
                raise ConfigError(f"{name} {value}: expected 1 or more")
        return Limits(sentences, self.config.max_tokens - 1, tokens, stop)

    # The folder -----------------------------------------------------------------------------------

    def card_rows(self) -> dict[str, str]:
        network = self.network.config
        return {
            "network": f"{network.model_type}, {network.num_hidden_layers} layers; encoder and decoder {self.config.layers} each",
            "sentences": f"{self.config.sentences}, up to {self.config.max_tokens} tokens; passages of up to {self.config.max_sentences}",
            **({"unknown tokens": f"{self._unknown:.2g} of all, which cannot be restored"} if self._unknown else {}),
            "stages": "both" if int(self.learned) == 2 else "sentences alone",
        }

    def card_vector(self) -> str:
        return f"{self.width} numbers, the mean of those of a text's sentences"

    def card_use(self) -> str:
        return """import hourglass as hg

model = hg.load("DIR")
model.generate(["It was a dark night."], max_sentences=4)"""

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        self.tokenizer.save_pretrained(save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: Any = None, **hub: Any) -> Self:
        folder = local_folder(model_id, hub)
        values = read_json(folder / "config.json")
        if (system := values.pop("system", None)) != cls.system_name():
            raise FolderError(f"{folder / 'config.json'}: holds the system {system!r}, expected {cls.system_name()!r}")
        with loading_errors(str(folder), "tokenizer"):
            tokenizer = open_tokenizer(str(folder))
        model = cls(cls.Config.from_dict(values), tokenizer)
        try:
            load_model(model, folder / "model.safetensors")
        except (OSError, RuntimeError, SafetensorError) as error:
            raise FolderError(
                f"{folder}: its weights do not fit config.json: {str(error).splitlines()[-1].strip()}"
            ) from None
        return model.eval()


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise SourceError("a single text: expected a list of them, as ['...']")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise SourceError(f"example {i}: expected a text, found {type(text).__name__}")
    return list(texts)


def _space(prompt: str) -> str:
    return ended(prompt)[len(prompt) :]
