"""Who says whether a feature is clear: a language model, or a rule that needs none.

    judge = asking(ChatEndpoint("http://localhost:11434/v1", "llama3.1", answers="answers.sqlite").ask)
    judge = tokens_agree

A judge is any function from the contexts of one feature to a `Judgement`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hourglass.errors import SourceError
from hourglass.uses.judge.contexts import Context

RUBRIC = {
    5: "one pattern explains every example, none deviates",
    4: "one pattern is clear, and one or two examples deviate from it",
    3: "a pattern is clear, but many examples do not fit it",
    2: "the examples have no more than a broad theme in common",
    1: "the examples have nothing in common",
}
"""The scores of Li et al. (2025), in our words."""

_OBJECT = re.compile(r"\{.*\}", re.S)


@dataclass(frozen=True)
class Judgement:
    """score: 1 (nothing in common) to 5 (one pattern, no exception), see RUBRIC; name: of the pattern."""

    score: int
    name: str


Judge = Callable[[Sequence[Context]], Judgement]


def asking(ask: Callable[[str], str]) -> Judge:
    """A judge out of a function that sends a prompt to a language model and returns what it replies."""
    return lambda contexts: understood(ask(question(contexts)))


def question(contexts: Sequence[Context]) -> str:
    """The prompt: what the numbers are, the scores, and a line of [token, activation] pairs for each context."""
    scores = "\n".join(f"{score}: {meaning}" for score, meaning in RUBRIC.items())
    lines = "\n".join(
        json.dumps([[token, round(value, 2)] for token, value in zip(c.tokens, c.values)], ensure_ascii=False)
        for c in contexts
    )
    return (
        "A feature of a language model is active on some tokens of a text and silent (0) on others. Below are the passages "
        "in which one feature is most active, a passage a line, as [token, activation] pairs. What do the tokens with high "
        "activation, or what stands before them, have in common?\n\n"
        f"Score how clear it is:\n{scores}\n\nPassages:\n{lines}\n\n"
        'Reply with one JSON object: {"score": a whole number from 1 to 5, "name": "the pattern in a few words"}'
    )


def understood(reply: str) -> Judgement:
    """The judgement in a model's reply, whatever stands around the object; SourceError where there is none."""
    found = _OBJECT.search(reply)
    try:
        said = json.loads(found.group()) if found else {}
        score, name = said.get("score"), said.get("name")
    except (ValueError, AttributeError):
        score = name = None
    if score not in RUBRIC or not isinstance(name, str):
        raise SourceError(f'the judge replied {reply[:80]!r}; expected {{"score": 1 to 5, "name": "..."}}')
    return Judgement(int(score), name)


def tokens_agree(contexts: Sequence[Context]) -> Judgement:
    """A rule, not a reader: 1 to 5 by the share of the contexts whose peak is the commonest token; its name is that token.

    Of five contexts, so many agree as the score says. It knows features of one token alone: a feature of a meaning, which
    different words have, scores low here, and one of a word with two meanings high.
    """
    (token, count), *_ = Counter(context.peak.strip() for context in contexts).most_common()
    return Judgement(max(1, min(5, round(5 * count / len(contexts)))), f"token {token!r}")
