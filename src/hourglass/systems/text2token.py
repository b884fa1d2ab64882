"""Text2Token: the pooled vector of a text learns to name its key tokens, through a language model's own head.

An, Zhang, Nie, Wu, Zhang and Long 2025 (arXiv 2510.10224). In: texts, a language model. Out: for each text a vector [d] that
the head reads as words. No pairs, no large batches.

1. h = pool(states), states after the model's last norm; p = softmax(head(h)) over the vocabulary;
2. a target q over a few tokens is fixed before; loss: KL(q || p), the mean over texts;
3. "in_text": the text's own tokens by tf-idf, without function words, signs, and what is in more than a tenth of the texts;
4. "derived": the tokens that the model itself names, less what it names for every text; by the model as it is when the
   stage begins, written to disk once;
5. a stage "in_text", then a stage "mixed" of both targets. The head is frozen: it is what gives the vector its meaning.

Other stages are what it is compared with: "simcse" (two passes with dropout), "mntp" before it (LLM2Vec), weights="uniform" (the
bag of words of LLARA); "clm" makes the language model where there is none.

Differences from the paper:
- its text was not to be had beyond the abstract, nor its code: the formulas of both targets, their filters, k, temperatures, the
  order of the stages and all rates are choices made here. This is a method of that kind, not the paper's numbers;
- a text longer than the network is learned from in windows, and its target is that of the window; with derived targets from its beginning;
- prompts are read causally, at the place of the next word (PromptEOL's last token; a mask token put there, where the model is a
  masked one), and their logits averaged;
- with the moving average as teacher the next stage goes on from that average as well, and targets are still written once;
- "unembedding-svd" is EmbedFilter's (arXiv 2606.07502), which filters vectors and knows no targets;
- the bag of words stands for LLARA's target alone, without its two prompts and their special tokens;
- "mntp" hides every chosen token behind the mask token, or "_" where there is none, and a masked language model guesses a token
  from its own place;
- LoRA goes on through all stages, where LLM2Vec takes a new one for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from hourglass.adapters.huggingface_loading import encode
from hourglass.adapters.pretrained import body, head_of
from hourglass.bottlenecks.masking import choose_tokens, corrupt
from hourglass.errors import ConfigError, SourceError, nearest
from hourglass.nn.attention import Attention, check_attention, check_own_attention
from hourglass.nn.language_head import logits, token_loss
from hourglass.nn.text_model import TextConfig, TextModel, Tokens
from hourglass.nn.text_system import Lesson
from hourglass.storage.atomic import atomic_file
from hourglass.systems import text2token_parts as parts
from hourglass.systems.text2token_parts import Background, Derived, Example, Weights
from hourglass.training.randomness import seeded
from hourglass.uses.probe.encoders import dense_vectors
from hourglass.waist import Batch, Losses

Array = np.ndarray[Any, Any]
Objective = Literal["clm", "mntp", "simcse", "in_text", "derived", "mixed"]
Teacher = Literal["stage", "start", "ema"]
_TARGETS = ("in_text", "derived", "mixed")
_DERIVED = ("derived", "mixed")
_TEXTS_AT_ONCE = 64
_WORDS = 64
"""Of a sparse row, where no other number is asked for."""
_TEXT = "{text}"


def _llama(layers: int, width: int, heads: int, inner: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": inner,
        "max_position_embeddings": 2048,
    }


@dataclass(frozen=True, kw_only=True)
class Text2TokenConfig(TextConfig):
    """Network, stages, targets.

    attention    "bidirectional" or "causal", of all stages but "clm"; of a decoder by `is_causal` in its settings
    stages       what is learned, one after another: "clm", "mntp", "simcse", "in_text", "derived", "mixed"
    shares       of the steps, for each stage; by default all alike
    train_head   in the stages with targets too
    lora         rank of LoRA, by the optional part peft; 0: all weights learn

    weights      of the tokens of a text: "tfidf", "binary" (idf alone) or "uniform"
    temperature  of these: shares go like weight^(1 / temperature)
    terms        at most so many tokens of a text, those of the largest weight; None: all
    max_df       a token that is in a larger share of the texts is no target
    word_starts  nor is a piece inside of a word, where the vocabulary marks words by the space before them
    stop_words   nor is an English function word

    prompts      what derived targets are named after, as 'This text: "{text}" means in one word:'; of several the mean; without
                 any, for the pooled text itself
    background   what derived targets lack: "mean" (the mean logits), "component" (of the vectors, the first one),
                 "unembedding-svd" (what lies along the edges of the head's spectrum), "none"
    spectrum     share of the head's singular vectors, of those in its middle, that "unembedding-svd" keeps
    derived      number of tokens of a derived target
    tau          its temperature
    teacher      the model that names them: as it is at the "stage"'s beginning, at the "start" of all, or the moving average of
                 the weights ("ema") over the stage before
    ema          decay of that average
    mix          share of the text's own tokens in "mixed"

    hidden       share of the tokens hidden in "mntp"
    dropout      of all parts of the network that have one, in "simcse"
    scale        of the cosines there
    targets      digest of the derived targets that were learned from; set by the training
    """

    network: dict[str, Any] = field(default_factory=lambda: _llama(4, 256, 4, 1024))
    attention: Literal["bidirectional", "causal"] = "bidirectional"
    stages: tuple[Objective, ...] = ("in_text", "mixed")
    shares: tuple[float, ...] = ()
    train_head: bool = False
    lora: int = 0
    weights: Weights = "tfidf"
    temperature: float = 1.0
    terms: int | None = None
    max_df: float = 0.1
    word_starts: bool = True
    stop_words: bool = True
    prompts: tuple[str, ...] = ()
    background: Background = "mean"
    spectrum: float = 0.5
    derived: int = 64
    tau: float = 1.0
    teacher: Teacher = "stage"
    ema: float = 0.99
    mix: float = 0.5
    hidden: float = 0.2
    dropout: float = 0.3
    scale: float = 20.0
    targets: str | None = None

    presets = {  # noqa: RUF012  (a ClassVar of the base)
        "tiny": {"network": _llama(2, 32, 4, 64), "max_tokens": 48, "max_df": 1.0, "derived": 8, "train_head": True},
        "base": {"stages": ("clm", "in_text", "mixed"), "shares": (0.8, 0.1, 0.1)},
        "paper": {
            "network": _llama(24, 2048, 16, 5504),
            "stages": ("clm", "in_text", "mixed"),
            "shares": (0.98, 0.01, 0.01),
        },
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("stages", "shares", "prompts"):  # lists, where they come from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for stage in self.stages:
            if stage not in get_args(Objective):
                raise ConfigError(f"no stage {stage!r}{nearest(str(stage), get_args(Objective))}")
        if not self.stages:
            raise ConfigError(f"stages: expected one or more of {', '.join(get_args(Objective))}")
        if self.shares and (len(self.shares) != len(self.stages) or not min(self.shares) > 0):
            raise ConfigError(f"shares {self.shares}: expected a positive number for each of {len(self.stages)} stages")
        choices = {
            "attention": ("bidirectional", "causal"),
            "weights": get_args(Weights),
            "background": get_args(Background),
            "teacher": get_args(Teacher),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"no {name} {getattr(self, name)!r}{nearest(str(getattr(self, name)), known)}")
        for name in ("temperature", "tau", "scale"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)}: expected a positive number")
        for prompt in self.prompts:
            _parted(prompt)
        if self.teacher == "ema" and self.stages[0] in _DERIVED:
            raise ConfigError(
                f"teacher 'ema': expected a stage before {self.stages[0]!r}, over which weights are averaged"
            )
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema {self.ema}: expected a number from 0 up to, but not, 1")
        for name in ("max_df", "mix", "hidden", "dropout", "spectrum"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)}: expected a share above 0 and up to 1")
        for name, least in (("derived", 1), ("lora", 0), ("terms", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ConfigError(f"{name} {getattr(self, name)}: expected {least} or more")


class Text2Token(TextModel):
    """A language model whose pooled state names the key tokens of a text; see the module's docstring.

    objective  the stage that it is in; the first of `stages` to begin with, another by `begin`. The loss of "simcse" couples the
               examples of a batch
    documents, having    the corpus statistics: how many texts were counted, and [V] in how many of them a token is
    """

    Config = Text2TokenConfig
    tags = frozenset({"weighs-words"})
    kept_words = _WORDS
    head = "language"
    vocabulary = "bpe"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"steps": 200, "batch_size": 16, "lr": 1e-3},
        "base": {"steps": 6000, "batch_size": 32, "lr": 5e-4, "schedule": "linear", "weight_decay": 0.01},
        "paper": {"steps": 100_000, "batch_size": 128, "lr": 3e-4, "schedule": "linear", "weight_decay": 0.01},
        "init": {"steps": 2000, "batch_size": 128, "lr": 3e-5, "schedule": "linear"},
    }
    config: Text2TokenConfig
    objective: Objective
    documents: Tensor
    having: Tensor

    def __init__(self, config: Text2TokenConfig, tokenizer: Any = None, network: Any = None) -> None:
        super().__init__(config, tokenizer, network)
        if self.network.get_output_embeddings() is None:
            raise ConfigError(f"{type(self.network).__name__}: has no matrix that gives its tokens' logits")
        first = next((stage for stage in config.stages if stage != "simcse"), None)
        if getattr(self.network, "new_head", False) and first in _TARGETS and not config.train_head:
            raise ConfigError(
                f"{type(self.network).__name__}: its weights have no language head to name tokens by; start from a language "
                "model, with a stage 'mntp', or with train_head"
            )
        self._next = head_of(self.network.config) == "causal"
        if self._next:
            self.network.config.is_causal = config.attention == "causal"  # heeded by whoever opens the folder
        check_own_attention(self.network, config.attention)
        self._of_prompts: Attention = "own" if config.attention == "causal" or not self._next else "causal"
        if "clm" in config.stages:
            check_attention(self.network, "causal")
        if config.prompts:
            check_attention(self.network, self._of_prompts)
            # How long a prompt is shows when the vocabulary is there that is learned from the corpus.
            for prompt in config.prompts if tokenizer is not None else ():
                self._in_prompt([""], prompt)
        self._dropouts = parts.dropouts(self.network)
        if "simcse" in config.stages and not self._dropouts:
            raise ConfigError(f"stage 'simcse': {type(self.network).__name__} has no dropout to tell two passes apart")
        if "mntp" in config.stages:
            blank = None if self.tokenizer.mask_token_id is not None else self.tokenizer.convert_tokens_to_ids("_")
            self._blank = self.require_mask() if blank in (None, self.tokenizer.unk_token_id) else blank
        size = int(self.network.get_output_embeddings().weight.shape[0])
        self.register_buffer("documents", torch.zeros((), dtype=torch.int64))
        self.register_buffer("having", torch.zeros(size, dtype=torch.int64))
        if config.lora:
            parts.add_lora(self.network, config.lora)
        self.begin(config.stages[0])

    def begin(self, objective: Objective) -> None:
        """Enter a stage: what learns in it, and with which dropout."""
        if objective not in get_args(Objective):
            raise ConfigError(f"no stage {objective!r}{nearest(objective, get_args(Objective))}")
        self.objective = objective
        inner = {id(p) for p in body(self.network).parameters()}
        matrix = {id(p) for p in self.network.get_output_embeddings().parameters()}
        head = objective in ("clm", "mntp") or (self.config.train_head and objective in _TARGETS)
        for name, parameter in self.network.named_parameters():
            # Where input and output share a matrix, it is the head's; but "simcse" has no head.
            of_head = id(parameter) not in inner or (id(parameter) in matrix and objective != "simcse")
            parameter.requires_grad_("lora_" in name if self.config.lora else head or not of_head)
        for module, name, own in self._dropouts:
            setattr(module, name, self.config.dropout if objective == "simcse" else own)

    # What tokens are ------------------------------------------------------------------------------

    @cached_property
    def words(self) -> parts.Vocabulary:
        """What the tokens are."""
        config = self.config
        return parts.Vocabulary(
            self.tokenizer, len(self.having), word_starts=config.word_starts, stop_words=config.stop_words
        )

    def terms(self, tokens: Tokens) -> tuple[Array, Array]:
        """[n, L] ids, the first of a word with the mark of a space; [n, L] bool, what is neither padding nor special."""
        ids, words = tokens.ids.numpy(), tokens.words.numpy()
        begins = np.diff(words, axis=1, prepend=-1) != 0
        return np.where(begins, self.words.begins[ids], ids), words >= 0

    def kept(self) -> Array:
        """[V] bool: what can be a target."""
        having = self.having.cpu().numpy()[self.words.variants]
        kept: Array = self.words.content & (having <= self.config.max_df * int(self.documents))
        return kept if int(self.documents) else self.words.content

    def named(self) -> Array:
        """[V] bool: what can be a derived target; no piece inside of a word, which is what a decoder often says next."""
        return self.kept() & ~self.words.inside

    def _idf(self) -> Array:
        """[V] log(N / (1 + texts that have it)), 0 or more; 0 of what cannot be a target."""
        having = self.having.cpu().numpy()[self.words.variants]
        idf = np.log(max(1, int(self.documents)) / (1.0 + having)).clip(0)
        return np.where(self.kept(), idf, 0)

    def count(self, texts: Sequence[str]) -> None:
        """Take the corpus statistics from texts, read one after another as they are learned from: of a long one a window.

        Only from texts to learn from. The windows are always the same. Raises SourceError where the filters leave no token.
        """
        self.documents.zero_()
        self.having.zero_()
        training = self.training
        self.train()
        with seeded(torch.device("cpu"), 0):
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                self._count(*self.terms(self.tokens(texts[start : start + _TEXTS_AT_ONCE])))
        self.train(training)
        self._require_targets()

    def _count(self, terms: Array, real: Array) -> None:
        rows, places = np.nonzero(real)
        keys = np.unique(rows * len(self.having) + self.words.variants[terms[rows, places]])
        counts = np.bincount(keys % len(self.having), minlength=len(self.having))
        self.having += torch.from_numpy(counts).to(self.having.device)
        self.documents += len(terms)

    def _require_targets(self) -> None:
        having = self.having.cpu().numpy()[self.words.variants]
        if not (having[self.kept()] > 0).any():
            raise SourceError(
                f"{int(self.documents):,} texts: the filters leave no token as a target; raise max_df "
                f"({self.config.max_df:g}), set stop_words or word_starts to false, or bring more texts"
            )

    def initialize(self, batches: Any) -> None:
        """Corpus statistics, where a stage needs them and there are none yet: of whole batches, the last filled up again."""
        if self.objective not in _TARGETS or int(self.documents):
            return
        for batch in batches:
            self._count(batch["terms"].cpu().numpy(), batch["words"].cpu().numpy() >= 0)
        self._require_targets()

    # A step ---------------------------------------------------------------------------------------

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Texts to {"ids", "mask", "words" [n, L]} and what the stage learns from; with derived targets only of `Example`s.

        terms, targets, shares   [n, L], [n, k], [n, k]: tokens as they are counted; the target, a share of 0 is padding
        read, hidden             [n, L]: what is read in "mntp", and what of it is hidden
        of                       [n] mean number of what counts in the loss of a text, over the whole batch
        """
        derived = all(isinstance(example, Example) for example in examples)
        texts = [example.text if isinstance(example, Example) else example for example in examples]
        # A derived target is of a text's beginning: no other part is read then.
        tokens = self.beginnings(texts) if derived else self.tokens(texts)
        n = len(examples)
        batch = {"ids": tokens.ids, "mask": tokens.mask, "words": tokens.words}
        number = n
        if self.objective in _TARGETS:
            terms, real = self.terms(tokens)
            batch["terms"] = torch.from_numpy(terms)
            if self.objective == "in_text" or derived:
                batch["targets"], batch["shares"] = parts.padded(n, *self._target(examples, terms, real))
                number = int((batch["shares"] > 0).any(1).sum())
        elif self.objective == "mntp":
            can = tokens.words.clone()
            if self._next:
                can[:, 0] = -1  # there is no token before it
            batch["hidden"] = choose_tokens(can, self.config.hidden)
            batch["read"] = corrupt(tokens.ids, batch["hidden"], self._blank, len(self.tokenizer), masked=1, random=0)
            number = int(batch["hidden"].sum())
        elif self.objective == "clm":
            number = int(tokens.mask[:, 1:].sum())
        batch["of"] = torch.full((n,), max(1, number) / n)
        return batch

    def beginnings(self, texts: Sequence[str]) -> Tokens:
        """Tokens of the beginning of each text, also while learning."""
        training, self.training = self.training, False
        try:
            return self.tokens(texts)
        finally:
            self.training = training

    def _target(self, examples: Sequence[Any], terms: Array, real: Array) -> tuple[Array, ...]:
        config = self.config
        own = parts.in_text(terms, real & self.kept()[terms], self._idf(), config.weights, config.temperature)
        own = parts.largest(*own, config.terms or terms.shape[1])
        if self.objective == "in_text":
            return own
        derived = parts.flat(np.stack([e.ids for e in examples]), np.stack([e.shares for e in examples]))
        return derived if self.objective == "derived" else parts.mixed(own, derived, config.mix)

    def loss(self, batch: Batch) -> Losses:
        """{"kl"}: mean over the texts that have a target, in nats; {"nll"}: mean over tokens; or {"contrastive"}."""
        ids, mask, of = batch["ids"], batch["mask"], batch["of"].sum()
        if self.objective == "clm":
            states = self.states(ids, mask, "own" if self.config.attention == "causal" else "causal")[:, :-1]
            return {"nll": token_loss(self.network, states[mask[:, 1:]], ids[:, 1:][mask[:, 1:]]) / of}
        if self.objective == "mntp":
            hidden = batch["hidden"]
            states = self.states(batch["read"], mask)
            where = F.pad(hidden[:, 1:], (0, 1)) if self._next else hidden
            return {"nll": token_loss(self.network, states[where], ids[hidden]) / of}
        if self.objective == "simcse":
            twice = self.encode({"ids": ids.repeat(2, 1), "mask": mask.repeat(2, 1)})
            first, second = F.normalize(twice, dim=1).chunk(2)
            own = torch.arange(len(ids), device=ids.device)
            return {"contrastive": F.cross_entropy(self.config.scale * first @ second.T, own)}
        if "targets" not in batch:
            raise SourceError(f"stage {self.objective!r}: texts without derived targets; make them by `derive`")
        said = self.logits(self.encode(batch)).log_softmax(1).gather(1, batch["targets"])
        shares = batch["shares"]
        return {"kl": (torch.special.xlogy(shares, shares) - shares * said).sum() / of}

    # Stages ---------------------------------------------------------------------------------------

    def lessons(
        self, texts: Sequence[str], held_out: Sequence[str], folder: Path, steps: int, progress: bool = False
    ) -> Iterator[Lesson]:
        """A lesson for each of the stages; statistics.safetensors and the derived targets are kept in `folder`."""
        config = self.config
        stages = config.stages
        ends = np.cumsum(config.shares or [1] * len(stages))
        ends = np.round(steps * ends / ends[-1]).astype(int)
        of_stage = np.diff(ends, prepend=0).tolist()
        if min(of_stage) < 1:
            raise ConfigError(f"steps {steps}: expected enough for each of {len(stages)} stages ({', '.join(stages)})")
        if not {*_TARGETS}.isdisjoint(stages) and not int(self.documents):
            self._counted(texts, folder / "statistics.safetensors")

        def derived(name: str) -> tuple[Derived, Derived]:
            of_texts = self.derive(texts, folder / name)
            return of_texts, self.derive(held_out, folder / f"{name}-held-out")

        needs = [stage in _DERIVED for stage in stages]
        first = derived("targets") if config.teacher == "start" and any(needs) else None
        for i, stage in enumerate(stages):
            name = "" if i == len(stages) - 1 else f"stage-{i + 1}-{stage}"
            lesson = Lesson(name, of_stage[i], texts, held_out)
            if needs[i]:
                learned, measured = first or derived(f"targets-{i + 1}")
                self.config = replace(config, targets=learned.digest)
                lesson = replace(lesson, texts=learned, held_out=measured)
            if config.teacher == "ema" and any(needs[i + 1 : i + 2]):
                lesson = replace(lesson, train={"ema": config.ema})
            self.begin(stage)
            yield lesson

    def _counted(self, texts: Sequence[str], path: Path) -> None:
        if path.exists():
            for name, tensor in load_file(path).items():
                getattr(self, name).copy_(tensor)
            return
        self.count(texts)
        with atomic_file(path) as new:
            save_file({"documents": self.documents.cpu(), "having": self.having.cpu()}, new)

    def derive(self, texts: Sequence[str], folder: Path) -> Derived:
        """The texts with the tokens that this model names for them as it is now, kept in `folder`; counts first if need be."""
        if not int(self.documents):
            self.count(texts)
        config = self.config
        made_from = {
            "prompts": list(config.prompts),
            "background": config.background,
            "spectrum": config.spectrum,
            "tau": config.tau,
            "max_df": config.max_df,
            "word_starts": config.word_starts,
            "stop_words": config.stop_words,
        }
        k = min(config.derived, max(1, int(self.named().sum())))
        return parts.keep_derived(texts, folder, parts.named(self, texts, k), k, made_from)

    # Prompts --------------------------------------------------------------------------------------

    def prompted(self, texts: Sequence[str], prompt: str) -> Array:
        """[n, d] float32: for each text in a prompt, 'This text: "{text}" means in one word:', the state that says the next word.

        That is a decoder's last state, read causally as PromptEOL has it, or the state of a mask token put there. Without
        any training it makes an encoder, to compare with: `lambda texts: model.prompted(texts, prompt)`. Of a long text the
        beginning; the prompt is never cut. Raises ConfigError for a prompt without "{text}", or one that leaves no room.
        """
        check_attention(self.network, self._of_prompts)
        rows = self._in_prompt(texts, prompt)
        after = 0 if self._next else len(self._frame[1])
        order = np.argsort([-len(row) for row in rows], kind="stable")
        made = np.empty((len(rows), self.width), np.float32)
        training, device = self.training, self.network.device
        self.eval()
        with torch.inference_mode():
            for start in range(0, len(order), _TEXTS_AT_ONCE):
                here = order[start : start + _TEXTS_AT_ONCE]
                ids = pad_sequence([torch.tensor(rows[i]) for i in here], True, self.tokenizer.pad_token_id)
                lengths = torch.tensor([len(rows[i]) for i in here])
                mask = torch.arange(ids.shape[1]) < lengths[:, None]
                states = self.states(ids.to(device), mask.to(device), self._of_prompts)
                made[here] = states[torch.arange(len(here)), lengths - 1 - after].float().cpu().numpy()
        self.train(training)
        return made

    def _in_prompt(self, texts: Sequence[str], prompt: str) -> list[list[int]]:
        """Ids of the texts in their prompt, each cut to fit."""
        before, after = _parted(prompt)
        first, last = self._frame
        # A decoder is asked what comes next: after the prompt is nothing.
        mask = self.tokenizer.mask_token_id
        if mask is None and not self._next:
            raise ConfigError(
                f"prompt {prompt!r}: {type(self.network).__name__} says the next word at a mask token, and its tokenizer has none; "
                "start from a decoder, or leave prompts out"
            )
        last = [] if self._next else [mask, *last]
        room = self.config.max_tokens - len(first) - len(last)
        rows = []
        for text in texts:
            # Whole, as tokens can reach over the border of the text; what is cut off is found by its characters.
            while len((found := encode(self._backend, [before + text + after])[0]).ids) > room:
                if not text:
                    raise ConfigError(
                        f"prompt {prompt!r}: takes {len(found.ids)} of the {room} tokens that there are; shorten it, or raise max_tokens"
                    )
                starts = [start - len(before) for start, _ in found.offsets if 0 <= start - len(before) < len(text)]
                text = text[: starts[max(0, len(starts) + room - len(found.ids))] if starts else 0]
            rows.append([*first, *found.ids, *last])
        return rows

    # What it is for -------------------------------------------------------------------------------

    def logits(self, vectors: Tensor) -> Tensor:
        """[n, V] float32 of vectors [n, d], by the network's own head."""
        return logits(self.network, vectors).float()

    def explain(self, vectors: Any, k: int = 10) -> list[list[tuple[str, float]]]:
        """The k words that each of the vectors [n, d] names, and their probabilities among all words that can be targets.

        Any vector of the space: of a text, a mean of several, a difference of two means.
        """
        rows = self.sparse(vectors, k)
        said = []
        for i in range(rows.shape[0]):
            ids, weights = rows[i].indices, rows[i].data
            order = np.argsort(-weights, kind="stable")
            names = [
                self.tokenizer.convert_tokens_to_string([self.tokenizer.convert_ids_to_tokens(int(j))]).strip()
                for j in ids
            ]
            said.append([(names[j], float(weights[j])) for j in order])
        return said

    def weigh_words(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """[n, V] of texts: `sparse` of their vectors."""
        return self.sparse(dense_vectors(self, texts))

    weigh_queries = weigh_words

    @torch.no_grad()
    def sparse(self, vectors: Any, k: int = _WORDS) -> sparse.csr_matrix:
        """[n, V] of the vectors [n, d]: the probabilities of the k tokens that each names, variants of a word as one, for an index."""
        given = torch.atleast_2d(torch.as_tensor(np.asarray(vectors), dtype=torch.float32)).to(self.network.device)
        out = torch.from_numpy(~self.kept()).to(given.device)
        variants = torch.from_numpy(self.words.variants).to(given.device)
        made = []
        for part in given.split(_TEXTS_AT_ONCE):
            shares = self.logits(part).masked_fill(out, -torch.inf).softmax(1)
            words = torch.zeros_like(shares).index_add_(1, variants, shares)
            best = words.topk(min(k, words.shape[1]), dim=1)
            rows = torch.zeros_like(words).scatter_(1, best.indices, best.values)
            made.append(sparse.csr_matrix(rows.cpu().numpy()))
        return sparse.vstack(made, "csr")

    def _save_pretrained(self, save_directory: Path) -> None:
        if not self.config.lora:
            super()._save_pretrained(save_directory)
            return
        merged = type(self)(replace(self.config, lora=0), self.tokenizer, parts.merge_lora(self.network))
        merged.load_state_dict({"documents": self.documents, "having": self.having}, strict=False)
        merged._save_pretrained(save_directory)


def _parted(prompt: str) -> list[str]:
    """What comes before and after the text in a prompt."""
    if not isinstance(prompt, str) or prompt.count(_TEXT) != 1:
        raise ConfigError(
            f"prompt {prompt!r}: expected the place of the text once, as in 'This text: \"{_TEXT}\" means in one word:'"
        )
    return prompt.split(_TEXT)
