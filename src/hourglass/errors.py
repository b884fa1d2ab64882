"""Every error that Hourglass raises on purpose.

    HourglassError
    ├── InputError            the caller can mend it; the command exits with 2
    │   ├── SourceError       data that cannot be read: file, row or column, what was expected, what to do
    │   ├── ConfigError       a setting that does not exist or does not fit
    │   │   └── PipelineError a pipeline of a search that cannot be read, and where; its message shows the place below the line
    │   ├── FolderError       a workspace or model folder that is missing, taken, unfinished or foreign
    │   ├── StatesError       a text for which a model gives numbers that are not finite
    │   ├── EndpointError     a chat server that is gone, does not let us in, or for which the budget is spent
    │   │   └── RefusalError  a question that a model, or its server, will not answer; others it may
    │   └── MissingExtra      an optional part that is not installed; the message is the install line
    └── TrainingError         training cannot go on (a loss that is not a number); exits with 1

A message is one line, says where, what was expected and what to do, and is all that the command prints.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ConfigError",
    "EndpointError",
    "FolderError",
    "HourglassError",
    "InputError",
    "MissingExtra",
    "PipelineError",
    "RefusalError",
    "SourceError",
    "StatesError",
    "TrainingError",
    "nearest",
]


class HourglassError(Exception):
    """Base of every error raised on purpose."""

    exit_code = 1


class InputError(HourglassError):
    """The input, not the program, is at fault."""

    exit_code = 2


class SourceError(InputError):
    """Data that cannot be read."""


class ConfigError(InputError):
    """A setting that does not exist or does not fit."""


class PipelineError(ConfigError):
    """A pipeline of a search that cannot be read: `what` is wrong at character `at` of `spec`, counted from 0."""

    def __init__(self, spec: str, at: int, what: str) -> None:
        self.spec, self.at, self.what = spec, at, what
        super().__init__(f"pipeline, character {at + 1}: {what}\n  {spec}\n  {' ' * at}^")


class FolderError(InputError):
    """A workspace or model folder that is missing, taken, unfinished or foreign."""


class StatesError(InputError):
    """A model gives numbers that are not finite: `where` in it (layer and site), and for which `text` of those read."""

    def __init__(self, where: str, text: int) -> None:
        self.where, self.text = where, text
        super().__init__(
            f"{where}: text {text} gives numbers that are not finite; try dtype 'float32', or leave the text out"
        )


class EndpointError(InputError):
    """A chat server that is gone, does not let us in, or for which the budget is spent."""


class RefusalError(EndpointError):
    """A question that a model, or its server, will not answer; others it may."""


class MissingExtra(InputError):
    """An optional part is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part: pip install 'hourglass-ai[{extra}]'")


class TrainingError(HourglassError):
    """Training cannot go on."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: `` (did you mean 'x'?)`` or the list of what exists."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (there are: {', '.join(names)})" if names else ""
