"""The contract that every system keeps, as checks that anybody can run on a system of their own.

    from hourglass.testing import SYSTEM_CHECKS, check_system

    check_system(MySystem)                                 # all of them

    @pytest.mark.parametrize("check", SYSTEM_CHECKS)       # or one test each
    def test_my_system(check):
        check(MySystem)

Every check builds the system's "tiny" preset, runs offline in seconds and raises `CheckFailed`, whose message begins with
the check's name. A check that a system's tags switch off raises `unittest.SkipTest`, which pytest shows as skipped.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import torch
from torch import Tensor

from hourglass.errors import ConfigError, InputError
from hourglass.training import TrainConfig, fit
from hourglass.training.randomness import preserved, seeded
from hourglass.waist import Waist, WaistConfig

__all__ = ["SYSTEM_CHECKS", "CheckFailed", "check_system", "tiny_examples"]

Check = Callable[..., None]
SYSTEM_CHECKS: list[Check] = []
"""Functions `check(cls, examples=None)`."""

_CPU = torch.device("cpu")
_FEW = 8


class CheckFailed(AssertionError):
    """A system does not keep the contract."""


def check_system(cls: type[Waist], *, examples: Sequence[Any] | None = None) -> dict[str, str]:
    """Run every check; returns the outcome by check: "passed", or why it was skipped.

    examples    raw examples for the "tiny" preset, 16 at least; made here for the modalities that `Waist` names

    Raises CheckFailed at the first check that fails.
    """
    outcome = {}
    for check in SYSTEM_CHECKS:
        try:
            check(cls, examples)
            outcome[check.__name__] = "passed"
        except SkipTest as reason:
            outcome[check.__name__] = f"skipped: {reason}"
    return outcome


def tiny_examples(cls: type[Waist]) -> Sequence[Any]:
    """A few dozen raw examples of the system's modality for its "tiny" preset."""
    texts = [
        f"{who} {what} {where}."
        for who in ("My sister", "The old engine", "Nobody", "A tall stranger with a red hat")
        for what in ("waits", "was repaired twice", "sings, badly but with joy,", "costs 40 euros")
        for where in ("in the rain", "behind the station since the summer of 1987", "here")
    ]
    if cls.modality == "text":
        return texts
    if cls.modality == "dialogues":
        return [
            [{"role": "user", "content": f"Is it true? {text}"}, {"role": "assistant", "content": text}]
            for text in texts
        ]
    if cls.modality in ("vectors", "pairs"):
        config: Any = cls.Config.preset("tiny")
        random = np.random.default_rng(0)
        few = random.normal(size=(256, 4)) @ random.normal(size=(4, config.d_in))
        rows = few + 0.05 * random.normal(size=few.shape)
        if cls.modality == "pairs":
            rows = np.hstack([rows, np.maximum(rows @ random.normal(size=(config.d_in, config.columns)), 0)])
        return rows.astype(np.float32)  # type: ignore[return-value]
    raise ConfigError(f"{cls.__name__}: no examples are known for modality {cls.modality!r}; pass some as `examples`")


# The checks -------------------------------------------------------------------------------------------


def _check(function: Check) -> Check:
    """Register a check: examples are made where none are given, randomness is fixed and does not leak."""

    needs_examples = "examples" in inspect.signature(function).parameters

    def check(cls: type[Waist], examples: Sequence[Any] | None = None) -> None:
        with seeded(_CPU, 0):
            try:
                if needs_examples:
                    function(cls, tiny_examples(cls) if examples is None else examples)
                else:
                    function(cls)
            except CheckFailed as failure:
                raise CheckFailed(f"{function.__name__}: {cls.__name__}: {failure}") from None

    check.__name__, check.__doc__ = function.__name__, function.__doc__
    SYSTEM_CHECKS.append(check)
    return check


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CheckFailed(otherwise)


@_check
def check_docstring(cls: type[Waist]) -> None:
    """The class is described; the file of a paper also lists its differences from it."""
    _require(bool((vars(cls).get("__doc__") or "").strip()), "the class has no docstring")
    if cls.__module__.startswith("hourglass.systems."):
        text = sys.modules[cls.__module__].__doc__ or ""
        _require(
            "Differences from the paper" in text, 'the module\'s docstring has no list "Differences from the paper"'
        )


@_check
def check_presets(cls: type[Waist]) -> None:
    """Modality and config are declared; the config is a frozen dataclass with the presets "tiny", "base" and "paper", and alone builds the system."""
    _require(isinstance(getattr(cls, "modality", None), str), "`modality` does not say what an example is")
    config = getattr(cls, "Config", None)
    _require(inspect.isclass(config) and issubclass(config, WaistConfig), "Config is not a WaistConfig")
    _require(cls.Config.__dataclass_params__.frozen, "Config is not a frozen dataclass")  # type: ignore[attr-defined]
    for name in ("tiny", "base", "paper"):
        try:
            cls.Config.preset(name)
        except (InputError, TypeError) as error:
            raise CheckFailed(f"preset {name!r} cannot be built: {error}") from None
    try:
        model = _build(cls)
    except TypeError as error:
        raise CheckFailed(f"{cls.__name__}(config) cannot be called: {error}") from None
    _require(
        model.config == cls.Config.preset("tiny"), "`model.config` is not the config that the model was built from"
    )


@_check
def check_config(cls: type[Waist]) -> None:
    """A config survives JSON; a misspelt setting is an error that names the right one."""
    config = cls.Config.preset("tiny")
    again = cls.Config.from_dict(json.loads(json.dumps(config.to_dict())))
    for field in dataclasses.fields(config):
        before, after = getattr(config, field.name), getattr(again, field.name)
        _require(
            before == after, f"setting {field.name} is {before!r} and comes back from JSON as {after!r}; convert it"
        )
    for field in dataclasses.fields(config)[:1]:
        try:
            cls.Config.from_dict({**config.to_dict(), field.name + "_": 1})
        except ConfigError as error:
            _require(repr(field.name) in str(error), f"the error for {field.name + '_'!r} does not name {field.name!r}")
        else:
            raise CheckFailed(f"the unknown setting {field.name + '_'!r} is accepted")


@_check
def check_loss_falls(cls: type[Waist], examples: Sequence[Any]) -> None:
    """Sixty steps lower the loss."""
    result = fit(_build(cls), examples, _brief(60), progress=False)
    losses = [record["loss"] for record in result.history]
    first, last = np.mean(losses[:10]), np.mean(losses[-10:])
    _require(
        bool(last < first), f"the loss does not fall: {first:.4g} over the first ten steps, {last:.4g} over the last"
    )


@_check
def check_seed(cls: type[Waist], examples: Sequence[Any]) -> None:
    """The same seed gives the same weights, bit for bit."""
    first, second = (fit(_build(cls), examples, _brief(5), progress=False).model for _ in range(2))
    _same_weights(first, second, "two runs with one seed differ")


@_check
def check_save_and_load(cls: type[Waist], examples: Sequence[Any]) -> None:
    """A model that was saved and loaded gives equal latents."""
    model = fit(_build(cls), examples, _brief(3), progress=False).model
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "model")
        loaded = cls.from_pretrained(str(Path(folder) / "model"))
    _require(type(loaded) is cls, f"from_pretrained gives a {type(loaded).__name__}")
    _require(loaded.config == model.config, "the loaded model has another config")
    before, after = _encode(model, examples[:_FEW]), _encode(loaded, examples[:_FEW])
    _require(torch.equal(before, after), "the loaded model gives other latents; is a state missing from state_dict()?")


@_check
def check_resume(cls: type[Waist], examples: Sequence[Any]) -> None:
    """A run that was interrupted and taken up again ends with the weights of one that was not, bit for bit."""
    whole = fit(_build(cls), examples, _brief(6), progress=False).model
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        fit(_build(cls), examples, _brief(3), out=out, progress=False)
        resumed = fit(_build(cls, 1), examples, _brief(6), out=out, progress=False).model
    _same_weights(whole, resumed, "3 steps and 3 more differ from 6; is a state missing from state_dict()?")


@_check
def check_gradients(cls: type[Waist], examples: Sequence[Any]) -> None:
    """The loss reaches every trainable parameter."""
    # A few steps first: a layer that starts at zero hides those below it.
    model = fit(_build(cls), examples, _brief(3), progress=False).model.train()
    sum(model.loss(model.collate(examples[:_FEW])).values(), torch.zeros(())).backward()
    without = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not bool(torch.any(p.grad != 0)))
    ]
    _require(not without, f"no gradient reaches {', '.join(without)}; use them or set requires_grad to False")


@_check
def check_mean_loss(cls: type[Waist], examples: Sequence[Any]) -> None:
    """The loss of a batch is the mean of the losses of its halves, so that it can be split over micro-batches."""
    if "batch-coupled" in cls.tags:
        raise SkipTest("tag 'batch-coupled'")
    model = fit(_build(cls), examples, _brief(1), progress=False).model
    batch = model.collate(examples[:_FEW])
    halves = ({k: t[: _FEW // 2] for k, t in batch.items()}, {k: t[_FEW // 2 :] for k, t in batch.items()})

    def loss(part: dict[str, Tensor], seed: int) -> float:
        with torch.no_grad(), seeded(_CPU, seed):
            return float(sum(model.loss(part).values(), torch.zeros(())))

    whole = loss(dict(batch), 0)
    if whole != loss(dict(batch), 1):
        raise SkipTest("the loss is random, so halves cannot be compared")
    mean = (loss(halves[0], 0) + loss(halves[1], 0)) / 2
    _require(
        abs(mean - whole) <= 1e-3 * abs(whole),
        f"the loss of a batch is {whole:.6g}, the mean of its halves {mean:.6g}; average over examples, or say so with "
        "the tag 'batch-coupled'",
    )


@_check
def check_encode_repeats(cls: type[Waist], examples: Sequence[Any]) -> None:
    """In evaluation mode `encode` has no randomness."""
    model = _build(cls).eval()
    with torch.no_grad():
        batch = model.collate(examples[:_FEW])
        first, second = model.encode(batch), model.encode(batch)
    _require(
        len(first) == _FEW, f"{_FEW} examples give a latent of shape {tuple(first.shape)}: one row each was expected"
    )
    _require(torch.equal(first, second), "encoding the same batch twice gives two latents")


@_check
def check_encode_alone(cls: type[Waist], examples: Sequence[Any]) -> None:
    """In evaluation mode the latent of an example does not depend on the others of its batch."""
    model = fit(_build(cls), examples, _brief(1), progress=False).model
    # Other companions in a batch of the same size, so that only a real dependence and no rounding shows.
    companions = list(examples[_FEW : 2 * _FEW - 1])
    first = _encode(model, [examples[0], *examples[1:_FEW]])[0]
    second = _encode(model, [examples[0], *companions])[0]
    crop = tuple(slice(min(a, b)) for a, b in zip(first.shape, second.shape))
    first, second = first[crop].double(), second[crop].double()
    distance, size = float((first - second).norm()), float(first.norm())
    _require(
        distance <= 1e-3 * size, f"with other examples beside it, a latent of norm {size:.4g} moves by {distance:.4g}"
    )


@_check
def check_bad_input(cls: type[Waist], examples: Sequence[Any]) -> None:
    """`collate` refuses what it cannot use with an InputError of one line."""
    model = _build(cls)
    bad: dict[str, Any] = {"an empty batch": [], "an example of the wrong type": [examples[0], object()]}
    if cls.modality in ("vectors", "pairs"):
        rows = np.array(examples[:2], dtype=np.float32)
        bad["a row of the wrong width"] = rows[:, :-1]
        rows[1, 0] = np.nan
        bad["a NaN"] = rows
    for what, batch in bad.items():
        try:
            model.collate(batch)
        except InputError as error:
            _require(len(str(error).splitlines()) == 1, f"the message for {what} is not one line: {str(error)!r}")
        except Exception as error:
            raise CheckFailed(f"{what} raises {type(error).__name__} instead of an InputError: {error}") from None
        else:
            raise CheckFailed(f"{what} is accepted")


@_check
def check_decode(cls: type[Waist], examples: Sequence[Any]) -> None:
    """`decode` gives one thing for each example, a vector of the width that went in."""
    if "decodes" not in cls.tags:
        overridden = cls.decode is not Waist.decode
        _require(not overridden, "`decode` is defined but the tag 'decodes' is missing")
        raise SkipTest("no tag 'decodes'")
    model = _build(cls).eval()
    with torch.no_grad():
        decoded = model.decode(_encode(model, examples[:_FEW]))
    _require(len(decoded) == _FEW, f"{_FEW} latents are decoded to {len(decoded)} things")
    if cls.modality == "vectors":
        expected = (_FEW, len(examples[0]))
        _require(tuple(decoded.shape) == expected, f"decoded shape {tuple(decoded.shape)}: expected {expected}")


# Shared by the checks ---------------------------------------------------------------------------------


def _build(cls: type[Waist], seed: int = 0) -> Waist:
    with preserved(_CPU):
        torch.manual_seed(seed)
        return cls(cls.Config.preset("tiny"))


def _brief(steps: int) -> TrainConfig:
    return TrainConfig(steps=steps, batch_size=_FEW, schedule="constant", warmup=0.0, log_every=1)


def _encode(model: Waist, examples: Sequence[Any]) -> Tensor:
    with torch.no_grad():
        return model.encode(model.collate(examples))


def _same_weights(first: Waist, second: Waist, otherwise: str) -> None:
    a, b = first.state_dict(), second.state_dict()
    differ = [name for name in a if not torch.equal(a[name], b[name])]
    _require(not differ, f"{otherwise} (they differ in {', '.join(differ)})")
