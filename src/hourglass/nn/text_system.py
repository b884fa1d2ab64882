"""What `hourglass fit SYSTEM SOURCE` asks of a system that learns on texts, whatever it is made of.

A system of transformers derives from `nn.text_model.TextModel`, which is one of these; any other from `TextSystem` itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from hourglass.data.corpus import pieces
from hourglass.waist import Waist


@dataclass(frozen=True)
class Lesson:
    """One of the trainings that a system asks for, one after another.

    name             its folder within that of the run; "" for the last, whose folder is the run's own
    steps            optimiser steps of it
    texts, held_out  examples to learn from and to measure the losses on
    train            settings of `TrainConfig` in place of the run's
    usual            the same, but for those of the run that were asked for
    """

    name: str
    steps: int
    texts: Sequence[Any]
    held_out: Sequence[Any]
    train: Mapping[str, Any] = field(default_factory=dict)
    usual: Mapping[str, Any] = field(default_factory=dict)


class TextSystem(Waist):
    """Base class of the systems that learn on texts."""

    modality = "text"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Settings of `TrainConfig` by preset, and "init" for what starts from a checkpoint, where a system can."""
    follows: ClassVar[tuple[str, ...]] = ()
    """Settings of the config that `learn` takes from those of the training by the same name, where they are not given."""

    @property
    def width(self) -> int:
        """Numbers of a text's vector."""
        raise NotImplementedError

    @property
    def longest(self) -> int | None:
        """Characters of a piece that a longer text is cut into to be learned from (tokens, where `pieces` counts so); None: texts
        stay whole."""
        return None

    @property
    def beside(self) -> str | None:
        """Column of the source that stands beside each text: an example is then (text, what stands beside it). Texts that are
        longer than a piece are left out. None: texts alone."""
        return None

    def pieces(self, text: str) -> Iterator[str]:
        """A text in pieces of at most `longest`."""
        return pieces(text, self.longest)

    def parts(self, text: str) -> Iterator[str]:
        """What of a text has latents of its own, in order: its pieces, unless the system has smaller ones."""
        return self.pieces(text)

    def latents_of(self, parts: Sequence[str]) -> Tensor:
        """[n, m, d] the m latents of each part of a text; read in evaluation mode."""
        device = next(self.parameters()).device
        batch = {name: tensor.to(device) for name, tensor in self.collate(parts).items()}
        return self.encode(batch)[:, None]

    @classmethod
    def from_checkpoint(cls, model: str, **settings: Any) -> Self:
        """A system that goes on from a model; only of those with a recipe "init"."""
        raise NotImplementedError

    def with_corpus(self, texts: Sequence[str], folder: Path, vocabulary: int) -> Self:
        """The system with what it makes of a corpus before it learns from scratch, kept in `folder`; of at most `vocabulary`
        tokens. One that needs nothing gives itself."""
        return self

    def lessons(
        self, texts: Sequence[str], held_out: Sequence[str], folder: Path, steps: int, progress: bool = False
    ) -> Iterator[Lesson]:
        """The trainings that make up one of `steps` steps, each asked for when the one before it is done.

        A system that makes something of the texts first keeps it in `folder`: the same call after a stop finds it there;
        `progress` shows how far it is.
        """
        yield Lesson("", steps, texts, held_out)

    # The model card -------------------------------------------------------------------------------

    library: ClassVar[str] = "hourglass"
    """Which opens the trained model's folder, by the Hub's name."""

    def card_rows(self) -> dict[str, str]:
        """What the model card says of a training beside what it says of every one."""
        return {}

    def card_vector(self) -> str:
        """What a text's vector is."""
        return f"{self.width} numbers"

    def card_use(self) -> str:
        """Python that makes vectors."""
        return """import hourglass as hg
from hourglass.uses.probe.encoders import dense_vectors

vectors = dense_vectors(hg.load("DIR"), ["a text", "another"])"""
