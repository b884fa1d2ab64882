"""Dialogues as a chat model reads them: written down with its chat template, and where in that the turns' own words are.

A dialogue is a sequence of turns {"role", "content"}; a document is a dialogue or a plain text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hourglass.errors import ConfigError, SourceError

Dialogue = Sequence[Mapping[str, str]]
Document = str | Dialogue

_PROBE = "\u2042"  # stands in for a turn's content; a sign that no template has
_DAY = "26 Jul 2024"


@dataclass(frozen=True)
class Rendered:
    """A document written down.

    text     all of it
    content  (first, past-last) character of each turn's own words, in order; the rest is the template's
    plain    whether it is a text without a template, around which a tokenizer puts special tokens of its own
    """

    text: str
    content: Sequence[tuple[int, int]]
    plain: bool


class ChatTemplate:
    """The template of a tokenizer, or another one in Jinja.

    A template that writes the date of the day writes 26 Jul 2024 always, so that the same dialogue has the same tokens.
    """

    def __init__(self, model: str, tokenizer: Any, template: str | None = None) -> None:
        self._model, self._tokenizer, self._template = model, tokenizer, template
        self._literals: dict[tuple[str, ...], tuple[list[int], list[str]]] = {}

    @property
    def exists(self) -> bool:
        return bool(self._template or getattr(self._tokenizer, "chat_template", None))

    def require(self) -> None:
        """Raise ConfigError where there is none."""
        if not self.exists:
            raise ConfigError(
                f"{self._model}: its tokenizer has no chat template to write dialogues with; give one in Jinja (template), "
                "or name a chat model"
            )

    def render(self, document: Document) -> Rendered:
        """A document written down; a plain text stays as it is.

        Raises SourceError for a dialogue that the template refuses or leaves out, ConfigError where there is no template
        or it is not Jinja.
        """
        if isinstance(document, str):
            return Rendered(document, [(0, len(document))], True)
        text = self._written(document)
        order, literals = self._around(document)
        first = len(literals[0])
        if not order or not text.startswith(literals[0]):
            raise SourceError("a dialogue that the chat template leaves out")
        content = []
        for turn, literal, last in zip(order, literals[1:], [*[False] * (len(order) - 1), True]):
            past = _end(text, first, document[turn]["content"], literal, last)
            content.append((first, past))
            first = past + len(literal)
        return Rendered(text, content, False)

    def _around(self, dialogue: Dialogue) -> tuple[list[int], list[str]]:
        """The turns that the template writes, in its order, and what it writes before, between and after them."""
        roles = tuple(turn["role"] for turn in dialogue)
        if roles not in self._literals:
            probes = [f"{_PROBE}{i}{_PROBE}" for i in range(len(roles))]
            parts = self._written([{"role": r, "content": p} for r, p in zip(roles, probes)]).split(_PROBE)
            self._literals[roles] = [int(number) for number in parts[1::2]], parts[::2]
        return self._literals[roles]

    def _written(self, dialogue: Dialogue) -> str:
        from jinja2 import TemplateSyntaxError

        self.require()
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [dict(turn) for turn in dialogue],
                    chat_template=self._template,
                    tokenize=False,
                    date_string=_DAY,
                )
            )
        except TemplateSyntaxError as error:
            raise ConfigError(f"the chat template is not Jinja: line {error.lineno}: {error.message}") from None
        except Exception as error:  # a template is a program of its author's, and may refuse
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise SourceError(f"a dialogue that the chat template refuses ({reason.strip()})") from None


def _end(text: str, first: int, content: str, literal: str, last: bool) -> int:
    """Where the content that begins at `first` ends: before `literal`, as it is, or trimmed as some templates do."""
    for form in (content, content.strip(), content.lstrip(), content.rstrip()):
        past = first + len(form)
        whole = past + len(literal) == len(text) if last else True
        if whole and text.startswith(form, first) and text.startswith(literal, past):
            return past
    # A template that changes the content, as those that drop what a model has thought.
    past = len(text) - len(literal) if last else text.find(literal, first)
    if past < first or not text.startswith(literal, past):
        raise SourceError("a dialogue that the chat template writes in a way of its own")
    return past
