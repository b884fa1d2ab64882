"""A BART tuned to a task, in the four ways of its paper (Lewis et al., 2019, section 3).

    task = Classifier.from_folder("run/model", classes=2)          # a folder or Hub id of a BART
    fit(task, [(text, label), ...], TUNING)
    task.predict(texts)

    Classifier       (text, class): the text goes into encoder and decoder, the decoder's state at the last </s> is classified
    TokenClassifier  (words, classes): the text goes into both, the decoder's state of each token is classified
    Writer           (source, target): summaries, answers, rewritten texts
    Translator       (source, target): a new encoder with a vocabulary of its own stands in the place of the embeddings of
                     BART's encoder; two stages

Each is trained by `fit` and saved as a folder of transformers; the networks of Classifier and Writer are transformers' own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BartModel,
)
from transformers.models.bart.modeling_bart import BartEncoder, BartPreTrainedModel

from hourglass.adapters.huggingface_loading import loading_errors
from hourglass.errors import ConfigError, SourceError
from hourglass.metrics.estimates import Estimate
from hourglass.metrics.rouge import rouge
from hourglass.training import TrainConfig
from hourglass.waist import Batch, Losses, Waist, WaistConfig

TUNING = TrainConfig(steps=2000, lr=2e-5, betas=(0.9, 0.98), weight_decay=0.01, schedule="linear", warmup=0.06)
"""For classes, as the authors tuned on GLUE (5e-6 to 2e-5)."""
WRITING = TrainConfig(
    steps=20_000, lr=3e-5, weight_decay=0.01, betas=(0.9, 0.999), schedule="linear", warmup=0.025, clip=0.1
)
"""For summaries, as the authors tuned on CNN/DailyMail: 500 steps of warm-up of 20,000."""


@dataclass(frozen=True, kw_only=True)
class TuneConfig(WaistConfig):
    """What a task needs to know.

    max_tokens       where texts are cut, special tokens included
    label_smoothing  of what is written (the paper: 0.1)
    """

    max_tokens: int = 512
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if self.max_tokens < 3:
            raise ConfigError(f"max_tokens {self.max_tokens}: expected at least 3")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing {self.label_smoothing}: expected a share below 1")


class _Task(Waist):
    """A network and a tokenizer of transformers, learning from pairs."""

    Config = TuneConfig
    modality = "labelled"
    network_class: ClassVar[Any]
    config: TuneConfig

    def __init__(self, config: TuneConfig, tokenizer: Any, network: Any) -> None:
        super().__init__(config)
        self.tokenizer, self.network = tokenizer, network

    @classmethod
    def _load(cls, folder: str | Path, settings: Mapping[str, Any], **of_network: Any) -> Self:
        with loading_errors(str(folder), "BART"):
            tokenizer = AutoTokenizer.from_pretrained(folder)
            network = cls.network_class.from_pretrained(folder, **of_network)
        return cls(TuneConfig.from_dict(settings), tokenizer, network)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.network.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(save_directory)

    def _read(self, texts: Sequence[Any], tokenizer: Any = None, **how: Any) -> Any:
        return (tokenizer or self.tokenizer)(
            texts, truncation=True, max_length=self.config.max_tokens, padding=True, return_tensors="pt", **how
        )

    def encode(self, batch: Batch) -> Tensor:
        """[n, L, d] the encoder's last states."""
        encoder = self.network.get_encoder()
        states: Tensor = encoder(input_ids=batch["ids"], attention_mask=batch["mask"]).last_hidden_state
        return states


class Classifier(_Task):
    """Texts to classes, from the decoder's state at the final </s>."""

    network_class = BartForSequenceClassification

    @classmethod
    def from_folder(cls, folder: str | Path, *, classes: int, **settings: Any) -> Self:
        """A new head on the BART in `folder`."""
        return cls._load(folder, settings, **_labels(classes))

    def collate(self, examples: Sequence[Any]) -> Batch:
        texts, labels = _pairs(examples)
        known = self.network.config.num_labels
        for i, label in enumerate(labels):
            if not (isinstance(label, int) and 0 <= label < known):
                raise SourceError(f"example {i}: class {label!r}, expected a number from 0 to {known - 1}")
        return {**_ids(self._read(texts)), "labels": torch.tensor(labels)}

    def loss(self, batch: Batch) -> Losses:
        """{"classes"}: cross-entropy."""
        return {"classes": nn.functional.cross_entropy(self._logits(batch), batch["labels"])}

    def _logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self.network(input_ids=batch["ids"], attention_mask=batch["mask"]).logits
        return logits

    @torch.no_grad()
    def predict(self, texts: Sequence[str]) -> Tensor:
        """[n, classes] probabilities."""
        self.eval()
        return self._logits(_on(self.network, _ids(self._read(list(texts))))).softmax(1)


class BartForTokens(BartPreTrainedModel):
    """The top decoder state of each token -> its class. The text goes into encoder and decoder as it is, not shifted."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = BartModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[n, L, classes] logits."""
        states = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=input_ids,
            decoder_attention_mask=attention_mask,
            use_cache=False,
        ).last_hidden_state
        logits: Tensor = self.classifier(self.dropout(states))
        return logits


class TokenClassifier(_Task):
    """Words to classes; the first token of a word speaks for it."""

    network_class = BartForTokens

    @classmethod
    def from_folder(cls, folder: str | Path, *, classes: int, **settings: Any) -> Self:
        """A new head on the BART in `folder`."""
        return cls._load(folder, settings, **_labels(classes))

    def collate(self, examples: Sequence[Any]) -> Batch:
        lists, labels = _pairs(examples)
        for i, (words, classes) in enumerate(zip(lists, labels)):
            if isinstance(words, str) or len(words) != len(classes):
                raise SourceError(f"example {i}: expected a list of words and a class for each")
        batch = self._words(lists)
        first = batch.pop("first")
        targets = torch.full(first.shape, -100)
        for i, classes in enumerate(labels):
            kept = first[i] >= 0
            targets[i, kept] = torch.tensor(classes)[first[i, kept]]
        return {**batch, "labels": targets, "share": _shares(targets)}

    def loss(self, batch: Batch) -> Losses:
        """{"classes"}: cross-entropy, mean over the words of the batch."""
        logits = self.network(batch["ids"], batch["mask"]).transpose(1, 2)
        return {"classes": _mean(nn.functional.cross_entropy(logits, batch["labels"], reduction="none"), batch)}

    @torch.no_grad()
    def predict(self, texts: Sequence[Sequence[str]]) -> list[list[int]]:
        """The likeliest class of each word; words past `max_tokens` have none."""
        self.eval()
        batch = _on(self.network, self._words(list(texts)))
        best = self.network(batch["ids"], batch["mask"]).argmax(2)
        return [row[first >= 0].tolist() for row, first in zip(best, batch["first"])]

    def _words(self, lists: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """ids, mask, and "first" [n, L]: at the first token of a word its number, else -1."""
        # A space before a word, as in running text, joined here: tokenizers differ in what they do with lists of words.
        lines = [" ".join(words) for words in lists]
        tokens = self._read(lines)
        first = torch.full(tokens["input_ids"].shape, -1)
        for i, words in enumerate(lists):
            begin = 0
            for j, word in enumerate(words):
                place = tokens.char_to_token(i, begin)
                if place is not None:
                    first[i, place] = j
                begin += len(word) + 1
        return {**_ids(tokens), "first": first}


class Writer(_Task):
    """Sources to targets."""

    network_class: ClassVar[Any] = BartForConditionalGeneration

    @classmethod
    def from_folder(cls, folder: str | Path, **settings: Any) -> Self:
        """The BART in `folder` as it is."""
        return cls._load(folder, settings)

    def collate(self, examples: Sequence[Any]) -> Batch:
        sources, targets = _pairs(examples)
        written = self._read(list(targets))
        labels = written["input_ids"].masked_fill(written["attention_mask"] == 0, -100)
        return {**_ids(self._read(list(sources), self._source_tokenizer)), "labels": labels, "share": _shares(labels)}

    @property
    def _source_tokenizer(self) -> Any:
        return self.tokenizer

    def loss(self, batch: Batch) -> Losses:
        """{"nll"}: cross-entropy with label smoothing, mean over the tokens of the batch."""
        return {"nll": _mean(self._nll(batch, self.config.label_smoothing), batch)}

    @torch.no_grad()
    def perplexity(self, pairs: Sequence[tuple[str, str]], batch_size: int = 32) -> float:
        """exp of the mean -log p of a target token given source and earlier ones, without smoothing."""
        self.eval()
        total, count = 0.0, 0
        for start in range(0, len(pairs), batch_size):
            batch = _on(self.network, self.collate(pairs[start : start + batch_size]))
            total += float(self._nll(batch, 0.0).sum())
            count += int((batch["labels"] >= 0).sum())
        return float(torch.tensor(total / count).exp())

    def rouge(self, pairs: Sequence[tuple[str, str]], *, beams: int = 5, batch_size: int = 32) -> dict[str, Estimate]:
        """{"rouge1", "rouge2", "rougeL"} of what is written for the sources, against the targets."""
        sources, targets = _pairs(pairs)
        written: list[str] = []
        for start in range(0, len(sources), batch_size):
            written += self.write(sources[start : start + batch_size], beams=beams, max_tokens=self.config.max_tokens)
        return rouge(targets, written)

    def _nll(self, batch: Batch, smoothing: float) -> Tensor:
        logits = self.network(input_ids=batch["ids"], attention_mask=batch["mask"], labels=batch["labels"]).logits
        return nn.functional.cross_entropy(
            logits.transpose(1, 2), batch["labels"], reduction="none", label_smoothing=smoothing
        )

    @torch.no_grad()
    def write(
        self,
        texts: Sequence[str],
        *,
        beams: int = 5,
        no_repeat: int = 3,
        length_penalty: float = 1.0,
        min_tokens: int = 0,
        max_tokens: int = 60,
    ) -> list[str]:
        """The best of beam search for each text, in which no run of `no_repeat` tokens is there twice (0 allows it)."""
        self.eval()
        batch = _on(self.network, _ids(self._read(list(texts), self._source_tokenizer)))
        written = self.network.generate(
            input_ids=batch["ids"],
            attention_mask=batch["mask"],
            num_beams=beams,
            no_repeat_ngram_size=no_repeat,
            length_penalty=length_penalty,
            min_new_tokens=min_tokens,
            max_new_tokens=max_tokens,
            do_sample=False,
        )
        return list(self.tokenizer.batch_decode(written, skip_special_tokens=True))


class SourceEncoder(nn.Module):
    """Token ids [n, L] -> states [n, L, d] by an encoder with its own vocabulary: embeddings that know their context."""

    def __init__(self, config: BartConfig, source: Mapping[str, int]) -> None:
        super().__init__()
        sizes = copy.deepcopy(config)
        for name, value in source.items():
            setattr(sizes, name, value)
        self.pad = source["pad_token_id"]
        self.encoder = BartEncoder(sizes)

    def forward(self, ids: Tensor) -> Tensor:
        states: Tensor = self.encoder(input_ids=ids, attention_mask=(ids != self.pad).long()).last_hidden_state
        return states


class BartWithSourceEncoder(BartForConditionalGeneration):
    """A BART whose encoder has, in place of its embeddings, a `SourceEncoder`.

    config.source holds that encoder's settings: {"vocab_size", "encoder_layers", "pad_token_id"}.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.encoder.embed_tokens = SourceEncoder(config, config.source)
        # One matrix for decoder and output still; the encoder has no part in it any more.
        for part in (self.model, self):
            tied = {
                name: of
                for name, of in part._tied_weights_keys.items()
                if not name.removeprefix("model.").startswith("encoder.")
            }
            part._tied_weights_keys = tied
            part.post_init()

    def stage(self, number: Literal[1, 2]) -> None:
        """What learns: in stage 1 the source encoder, BART's encoder positions and the queries, keys and values of its first
        layer; in stage 2 everything."""
        inputs = [f"model.encoder.layers.0.self_attn.{part}_proj." for part in "qkv"]
        first = ("model.encoder.embed_tokens.", "model.encoder.embed_positions.", *inputs)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(number == 2 or name.startswith(first))


class Translator(Writer):
    """Sources in a language that the BART does not know to targets in the one that it does.

    Begins in stage 1; `task.network.stage(2)` before the second, shorter `fit`. Overfits without much data: the paper adds
    back-translations.
    """

    network_class = BartWithSourceEncoder

    def __init__(self, config: TuneConfig, tokenizer: Any, network: Any, source_tokenizer: Any) -> None:
        super().__init__(config, tokenizer, network)
        self.source_tokenizer = source_tokenizer

    @classmethod
    def from_folder(cls, folder: str | Path, *, source: Any = None, layers: int = 6, **settings: Any) -> Self:
        """A new encoder of `layers` layers over the tokens of `source`, a tokenizer of transformers.

        Without `source`: a saved translator, source tokenizer and all, in stage 2.
        """
        saved = source is None
        if saved:
            with loading_errors(f"{folder}/source", "source tokenizer"):
                source = AutoTokenizer.from_pretrained(Path(folder) / "source")
        with loading_errors(str(folder), "BART"):
            tokenizer = AutoTokenizer.from_pretrained(folder)
            sizes = BartConfig.from_pretrained(folder)
            if not saved:
                sizes.source = {
                    "vocab_size": len(source),
                    "encoder_layers": layers,
                    "pad_token_id": source.pad_token_id,
                }
            network = BartWithSourceEncoder.from_pretrained(folder, config=sizes)
        network.stage(2 if saved else 1)
        return cls(TuneConfig.from_dict(settings), tokenizer, network, source)

    @property
    def _source_tokenizer(self) -> Any:
        return self.source_tokenizer

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        self.source_tokenizer.save_pretrained(save_directory / "source")


def _labels(classes: int) -> dict[str, Any]:
    """Names for the classes. Without, transformers does not save that there are two, and takes BART's three when it loads."""
    names = {i: str(i) for i in range(classes)}
    return {"id2label": names, "label2id": {name: i for i, name in names.items()}}


def _pairs(examples: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    if not len(examples):
        raise SourceError("an empty batch: expected at least one example")
    for i, example in enumerate(examples):
        if not isinstance(example, (tuple, list)) or len(example) != 2:
            raise SourceError(
                f"example {i} is a {type(example).__name__}: expected a pair, what is read and what is wanted"
            )
    first, second = zip(*examples)
    return list(first), list(second)


def _ids(tokens: Any) -> dict[str, Tensor]:
    return {"ids": tokens["input_ids"], "mask": tokens["attention_mask"]}


def _on(network: Any, batch: Batch) -> dict[str, Tensor]:
    return {name: tensor.to(network.device) for name, tensor in batch.items()}


def _shares(labels: Tensor) -> Tensor:
    """[n] 1 / the mean number of labels of an example: means over them are the same however a batch is split."""
    return torch.full((len(labels),), len(labels) / max(1, int((labels >= 0).sum())))


def _mean(losses: Tensor, batch: Batch) -> Tensor:
    return (losses.sum(1) * batch["share"]).mean()
