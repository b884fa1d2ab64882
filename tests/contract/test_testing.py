"""The suite itself: a sound system passes, and each broken one fails at the check that is meant for it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from unittest import SkipTest

import pytest
import torch
from dense import DenseAutoencoder, DenseConfig

from hourglass import systems, testing
from hourglass.errors import ConfigError, SourceError
from hourglass.testing import SYSTEM_CHECKS, CheckFailed, check_system, tiny_examples


class WithoutDocstring(DenseAutoencoder):
    pass


class WithoutPreset(DenseAutoencoder):
    """Lacks "paper"."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(DenseConfig):
        presets = {"tiny": {}, "base": {}}  # noqa: RUF012


class WithTuple(DenseAutoencoder):
    """A setting that JSON changes."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(DenseConfig):
        layers: tuple[int, ...] = (1, 2)


class AcceptsAll(DenseAutoencoder):
    """Unknown settings are dropped."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(DenseConfig):
        @classmethod
        def from_dict(cls, values):
            return cls(**{k: v for k, v in values.items() if k in cls.__dataclass_fields__})


class Climbs(DenseAutoencoder):
    """Undoes what the optimiser did, and more."""

    def before_step(self, step):
        for parameter in self.parameters():
            parameter.grad.neg_()


class Unseeded(DenseAutoencoder):
    """Draws from a generator that no seed reaches."""

    def loss(self, batch):
        noise = torch.randn(batch["x"].shape, generator=self.generator)
        return super().loss({**batch, "noised": batch["noised"] + noise})

    generator = torch.Generator()


class Forgets(DenseAutoencoder):
    """A learned state that is not saved."""

    def initialize(self, batches):
        self.shift = next(iter(batches))["x"].mean()

    def encode(self, batch):
        return super().encode(batch) + getattr(self, "shift", 0.0)


class Counts(DenseAutoencoder):
    """A schedule of its own that is not saved."""

    steps = 0

    def after_step(self, step):
        self.steps += 1
        with torch.no_grad():
            self.decoder.bias += 0.01 * self.steps


class Idle(DenseAutoencoder):
    """A parameter that nothing uses."""

    def __init__(self, config):
        super().__init__(config)
        self.idle = torch.nn.Parameter(torch.ones(3))


class Summed(DenseAutoencoder):
    """A loss that grows with the batch."""

    def loss(self, batch):
        return {name: value * len(batch["x"]) for name, value in super().loss(batch).items()}


class Restless(DenseAutoencoder):
    """Noise in `encode`."""

    def encode(self, batch):
        latent = super().encode(batch)
        return latent + torch.randn_like(latent)


class Sociable(DenseAutoencoder):
    """Latents relative to the batch."""

    def encode(self, batch):
        latent = super().encode(batch)
        return latent - latent.mean(0)


class Trusting(DenseAutoencoder):
    """Takes whatever comes."""

    def collate(self, examples):
        x = torch.tensor([list(row) for row in examples])
        return {"x": x, "noised": x}


class Narrow(DenseAutoencoder):
    """Restores too little."""

    def decode(self, latent):
        return super().decode(latent)[:, :-1]


class Untagged(DenseAutoencoder):
    """Decodes without saying so."""

    tags = frozenset()


class Letters(DenseAutoencoder):
    """Texts as counts of letters."""

    modality = "text"

    def collate(self, examples):
        for text in examples:
            if not isinstance(text, str):
                raise SourceError(f"expected a text, found {type(text).__name__}")
        return super().collate([[text.count(letter) / 10 for letter in "aeinorst"] for text in examples])


BROKEN = [
    (WithoutDocstring, "check_docstring", "has no docstring"),
    (WithoutPreset, "check_presets", "preset 'paper' cannot be built"),
    (WithTuple, "check_config", "setting layers is (1, 2) and comes back from JSON as [1, 2]"),
    (AcceptsAll, "check_config", "the unknown setting 'd_in_' is accepted"),
    (Climbs, "check_loss_falls", "the loss does not fall"),
    (Unseeded, "check_seed", "two runs with one seed differ"),
    (Forgets, "check_save_and_load", "the loaded model gives other latents"),
    (Counts, "check_resume", "differ in encoder.weight, encoder.bias, decoder.weight, decoder.bias"),
    (Idle, "check_gradients", "no gradient reaches idle"),
    (Summed, "check_mean_loss", "average over examples"),
    (Restless, "check_encode_repeats", "gives two latents"),
    (Sociable, "check_encode_alone", "with other examples beside it"),
    (Trusting, "check_bad_input", "an empty batch is accepted"),
    (Narrow, "check_decode", "decoded shape (8, 7): expected (8, 8)"),
    (Untagged, "check_decode", "the tag 'decodes' is missing"),
]


@pytest.mark.parametrize("sound", [DenseAutoencoder, Letters])
def test_a_sound_system_passes(sound):
    assert check_system(sound) == {check.__name__: "passed" for check in SYSTEM_CHECKS}


@pytest.mark.parametrize(("broken", "check", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_system_fails(broken, check, message):
    with pytest.raises(CheckFailed) as failure:
        getattr(testing, check)(broken)
    assert str(failure.value).startswith(f"{check}: {broken.__name__}: ")
    assert message in str(failure.value)


def test_every_check_has_a_broken_system():
    assert {check.__name__ for check in SYSTEM_CHECKS} == {check for _, check, _ in BROKEN}


def test_check_system_raises_and_skips():
    with pytest.raises(CheckFailed, match="check_gradients"):
        check_system(Idle)

    class Coupled(Summed):
        """Says so."""

        tags = frozenset({"decodes", "batch-coupled"})

    assert check_system(Coupled)["check_mean_loss"] == "skipped: tag 'batch-coupled'"
    with pytest.raises(SkipTest):
        testing.check_mean_loss(Coupled)


def test_a_paper_lists_its_differences(monkeypatch):
    monkeypatch.setattr(DenseAutoencoder, "__module__", "hourglass.systems.dense")
    monkeypatch.setitem(testing.sys.modules, "hourglass.systems.dense", SimpleNamespace(__doc__="A paper."))
    with pytest.raises(CheckFailed, match='no list "Differences from the paper"'):
        testing.check_docstring(DenseAutoencoder)


def test_examples_of_an_unknown_modality():
    class Smell(DenseAutoencoder):
        modality = "smell"

    with pytest.raises(ConfigError, match="no examples are known for modality 'smell'"):
        tiny_examples(Smell)


def test_checks_leave_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    testing.check_seed(DenseAutoencoder)
    assert torch.equal(torch.rand(1), expected)


# Discovery --------------------------------------------------------------------------------------------


def _install(monkeypatch, *classes):
    entries = [SimpleNamespace(name="other", value="other:Thing", load=lambda cls=cls: cls) for cls in classes]
    monkeypatch.setattr(systems, "entry_points", lambda group: entries)
    monkeypatch.setattr(systems, "_own", lambda: iter(()))


def test_other_packages_join_by_entry_point(monkeypatch):
    _install(monkeypatch, DenseAutoencoder)
    assert systems.discover() == {"dense": DenseAutoencoder}
    assert systems.get("dense") is DenseAutoencoder
    with pytest.raises(ConfigError, match=r"no system 'dens' \(did you mean 'dense'\?\)"):
        systems.get("dens")


def test_two_systems_of_one_name(monkeypatch):
    _install(monkeypatch, DenseAutoencoder, DenseAutoencoder)
    with pytest.raises(ConfigError, match="two systems are called 'dense'"):
        systems.discover()


def test_an_entry_point_must_lead_to_a_system(monkeypatch):
    _install(monkeypatch, dict)
    with pytest.raises(ConfigError, match="expected a Waist"):
        systems.discover()
