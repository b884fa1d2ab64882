"""A pipeline as text: `bm25 % 1000 >> dense | splade >> rrf >> cross(minilm) % 20`.

    parse("bm25 >> rm3 >> bm25", stages)

name            a stage, as `stages` makes it
name(a, k=2)    with settings: numbers, words, or anything in double quotes
a >> b          b goes on from what a found
a | b           side by side; binds more tightly than >>
a % k           the first k of what a found; binds most tightly
( )             as one

Every error says at which character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hourglass.errors import InputError, PipelineError, nearest
from hourglass.uses.search.stages import Stage

Make = Callable[..., Stage]
"""Makes a stage of its settings; raises ConfigError, or TypeError for settings that it does not have."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<then>>>)|(?P<sign>[|%(),=])|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])|(?P<quoted>"[^"]*")|(?P<word>[^\s|%(),=>"]+))"""
)


def parse(spec: str, stages: Mapping[str, Make]) -> Stage:
    """The pipeline that `spec` names; PipelineError with the place for what cannot be read, is unknown or does not fit."""
    return _Parser(spec, stages).pipeline()


class _Parser:
    def __init__(self, spec: str, stages: Mapping[str, Make]) -> None:
        self._spec, self._stages = spec, stages
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
            raise self._error(at, f"expected a stage{nearest(name, self._stages) if name else ''}")
        if name not in self._stages:
            raise self._error(at, f"no stage {name!r}{nearest(name, self._stages)}")
        given, named = self._settings()
        try:
            return self._stages[name](*given, **named)
        except InputError as error:
            raise self._error(at, str(error)) from None
        except TypeError as error:
            # Of a name that it does not have Python says so, after the name of a function that nobody knows here.
            reason = re.sub(r"^\S+\(\) ", "", str(error))
            if "argument" not in reason:
                shown = [*map(repr, given), *(f"{key}={value!r}" for key, value in named.items())]
                reason = f"{', '.join(shown)}: a value of another kind is expected"
            raise self._error(at, f"settings of {name} do not fit: {reason}") from None

    def _settings(self) -> tuple[list[Any], dict[str, Any]]:
        given: list[Any] = []
        named: dict[str, Any] = {}
        if not self._accept("("):
            return given, named
        while not self._accept(")"):
            if given or named:
                self._require(",")
            kind, value, at = self._take()
            if kind not in ("word", "number", "quoted"):
                raise self._error(at, "expected a setting, or ) after the last")
            if kind == "word" and self._accept("="):
                of, setting, place = self._take()
                if of not in ("word", "number", "quoted"):
                    raise self._error(place, f"expected a value for {value}")
                named[value] = _value(of, setting)
            elif named:
                raise self._error(at, "expected name=value after the first named setting")
            else:
                given.append(_value(kind, value))
        return given, named

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._next]

    def _take(self) -> tuple[str, str, int]:
        token = self._tokens[self._next]
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


def _value(kind: str, value: str) -> Any:
    if kind == "quoted":
        return value[1:-1]
    if kind == "number":
        return float(value) if "." in value else int(value)
    return {"true": True, "false": False}.get(value, value)
