"""A pipeline as text: `bm25 % 1000 >> dense | splade >> rrf >> cross(minilm) % 20`.

    parse("bm25 >> rm3 >> bm25", stages)

name            a stage, as `stages` makes it
name(a, k=2)    with settings: numbers, words, or anything in double quotes
a >> b          b goes on from what a found
a | b           side by side; binds more tightly than >>
a % k           the first k of what a found; binds most tightly
( )             as one
name(a >> b, k=2)   of a stage that is set around a pipeline: that one first, then its settings
name(k=[1, 2])      values to choose from, for `tune`

Every error says at which character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hourglass.errors import ConfigError, InputError, PipelineError, nearest
from hourglass.uses.search.stages import Stage

Make = Callable[..., Stage]
"""Makes a stage of its settings; raises ConfigError, or TypeError for settings that it does not have."""

_NONE: Mapping[str, Make] = {}
_TOKEN = re.compile(
    r"""\s*(?:(?P<then>>>)|(?P<sign>[|%(),=\[\]])|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])|(?P<quoted>"[^"]*")|(?P<word>[^\s|%(),=>"\[\]]+))"""
)


@dataclass(frozen=True)
class Call:
    """A stage as it is written, at characters `start` to `stop`: its name and settings. Values to choose from are a tuple."""

    name: str
    given: tuple[Any, ...]
    named: Mapping[str, Any]
    start: int
    stop: int

    def __str__(self) -> str:
        """As `read` reads it."""
        settings = [*map(_shown, self.given), *(f"{name}={_shown(value)}" for name, value in self.named.items())]
        return f"{self.name}({', '.join(settings)})" if settings else self.name


def parse(spec: str, stages: Mapping[str, Make], around: Mapping[str, Make] = _NONE) -> Stage:
    """The pipeline that `spec` names; PipelineError with the place for what cannot be read, is unknown or does not fit.

    around  stages that are set around a pipeline: each takes it and its text, then its settings
    """

    def make(call: Call, *inner: Any) -> Stage:
        if any(isinstance(value, tuple) for value in (*call.given, *call.named.values())):
            raise ConfigError("values to choose from: tune the pipeline on development queries, or name one value")
        return (around if inner else stages)[call.name](*inner, *call.given, **call.named)

    return read(spec, make, stages, around)


def read(spec: str, make: Callable[..., Stage], names: Iterable[str], around: Iterable[str] = ()) -> Stage:
    """The pipeline of what `make` makes of each `Call`; of one of `around` of a call, a pipeline and its text."""
    return _Parser(spec, make, names, around).pipeline()


class _Parser:
    def __init__(self, spec: str, make: Callable[..., Stage], names: Iterable[str], around: Iterable[str]) -> None:
        self._spec, self._make, self._names, self._around = spec, make, frozenset(names), frozenset(around)
        self._tokens: list[tuple[str, str, int]] = []
        at = 0
        while spec[at:].strip():
            match = _TOKEN.match(spec, at)
            if match is None:
                raise self._error(at + len(spec[at:]) - len(spec[at:].lstrip()), "cannot be read")
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind], match.start(kind)))
            at = match.end()
        self._tokens.append(("end", "", len(spec.rstrip())))
        self._next = 0

    def pipeline(self) -> Stage:
        made = self._chain()
        kind, _, at = self._peek()
        if kind != "end":
            raise self._error(at, "expected >>, | or % here")
        return made

    def _chain(self) -> Stage:
        made = self._beside()
        while self._accept(">>"):
            made = made >> self._beside()
        return made

    def _beside(self) -> Stage:
        made = self._cut()
        while self._accept("|"):
            made = made | self._cut()
        return made

    def _cut(self) -> Stage:
        made = self._stage()
        while self._accept("%"):
            kind, value, at = self._take()
            if kind != "number" or not value.isdigit() or int(value) < 1:
                raise self._error(at, "expected a number of documents, 1 or more, after %")
            made = made % int(value)
        return made

    def _stage(self) -> Stage:
        kind, name, at = self._take()
        if name == "(":
            made = self._chain()
            self._require(")")
            return made
        if kind != "word":
            raise self._error(at, f"expected a stage{nearest(name, self._names | self._around) if name else ''}")
        if name not in self._names | self._around:
            raise self._error(at, f"no stage {name!r}{nearest(name, self._names | self._around)}")
        inner = () if name in self._names else self._inner()
        given, named = self._settings(opened=name not in self._names)
        try:
            return self._make(Call(name, tuple(given), named, at, self._end), *inner)
        except InputError as error:
            raise self._error(at, str(error)) from None
        except TypeError as error:
            # Of a name that it does not have Python says so, after the name of a function that nobody knows here.
            reason = re.sub(r"^\S+\(\) ", "", str(error))
            if "argument" not in reason:
                shown = [*map(repr, given), *(f"{key}={value!r}" for key, value in named.items())]
                reason = f"{', '.join(shown)}: a value of another kind is expected"
            raise self._error(at, f"settings of {name} do not fit: {reason}") from None

    def _inner(self) -> tuple[Stage, str]:
        """A pipeline that stands first among the settings, and its text."""
        self._require("(")
        start = self._peek()[2]
        made = self._chain()
        return made, self._spec[start : self._peek()[2]].strip()

    def _settings(self, opened: bool) -> tuple[list[Any], dict[str, Any]]:
        """What stands in parentheses, if there are any; `opened`: after the pipeline that stands first in them."""
        given: list[Any] = []
        named: dict[str, Any] = {}
        if not opened and not self._accept("("):
            return given, named
        while not self._accept(")"):
            if opened or given or named:
                self._require(",")
            kind, name, at = self._peek()
            setting = self._setting("a setting, or ) after the last")
            if kind == "word" and self._accept("="):
                named[name] = self._setting(f"a value for {name}")
            elif named:
                raise self._error(at, "expected name=value after the first named setting")
            else:
                given.append(setting)
        return given, named

    def _setting(self, expected: str) -> Any:
        kind, value, at = self._take()
        if kind == "sign" and value == "[":
            values = [self._setting("a value to choose from")]
            while not self._accept("]"):
                self._require(",")
                values.append(self._setting("a value to choose from"))
            return tuple(values)
        if kind not in ("word", "number", "quoted"):
            raise self._error(at, f"expected {expected}")
        return _value(kind, value)

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._next]

    def _take(self) -> tuple[str, str, int]:
        token = self._tokens[self._next]
        self._end = token[2] + len(token[1])
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _accept(self, sign: str) -> bool:
        if self._peek()[1] != sign or self._peek()[0] == "quoted":
            return False
        self._take()
        return True

    def _require(self, sign: str) -> None:
        _, _, at = self._peek()
        if not self._accept(sign):
            raise self._error(at, f"expected {sign}")

    def _error(self, at: int, what: str) -> PipelineError:
        return PipelineError(self._spec, at, what)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return np.format_float_positional(value, trim="-")
    match = _TOKEN.fullmatch(value)
    plain = match is not None and match.lastgroup == "word" and _value("word", value) == value == match["word"]
    return value if plain else f'"{value}"'


def _value(kind: str, value: str) -> Any:
    if kind == "quoted":
        return value[1:-1]
    if kind == "number":
        return float(value) if "." in value else int(value)
    return {"true": True, "false": False}.get(value, value)
