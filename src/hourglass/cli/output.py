"""What verbs print: JSON for programs, tables for people."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

out = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    out.file.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table; a column whose name ends in a space is set to the right."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.strip(), justify="right" if column.endswith(" ") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    out.print(title, markup=False, soft_wrap=True)  # as a table's own title it would be folded to the table's width
    if table.rows:
        out.print(table)


def percent(share: float) -> str:
    """0.1234 as "12.3 %"."""
    return f"{100 * share:.1f} %"


def p_value(p: float) -> str:
    """A p or q value as people write it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def one_line(text: str, length: int) -> str:
    """The beginning of `text` without line breaks."""
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def gathered(table: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The rows that stand for themselves, as named tuples, each with those that it stands for."""
    others = dict(iter(table.groupby("same_as")))
    for row in table[table["same_as"].isna()].itertuples():
        yield row, others.get(row.Index, table.iloc[:0])


def number_or_kind(kind: str, feature: Any, label: Any) -> str:
    """What stands before a name: of a feature its number, else "word", "sign" or what it is."""
    from hourglass.uses.explore.words import is_sign

    if kind == "feature":
        return str(feature)
    if kind == "word":
        return "sign" if is_sign(label) else "word"
    return kind


def also(name: str, others: Iterable[Any], length: int, told: Collection[str] = ()) -> str:
    """A name, and below it the names that it stands for, none a part of another or among those `told` already.

    Plain phrases go without "the" and the like at their ends.
    """
    from hourglass.uses.explore.labels import trimmed

    plain = [trimmed(text) if _PHRASE.fullmatch(text) else text for text in others if isinstance(text, str)]
    apart = {text: f" {text} " for text in (name, *plain)}
    new = dict.fromkeys(
        text
        for text in plain
        if text not in (name, *told) and not any(text != o and apart[text] in apart[o] for o in apart)
    )
    rest = f"\n  also: {one_line('; '.join(new), length - 6)}" if new else ""
    return one_line(name, length) + rest


_PHRASE = re.compile(r"[\w\s'’-]+")


def print_usage(usage: Mapping[str, Any] | None) -> None:
    """What was asked of a language model, in a line on standard error; nothing where none was."""
    if usage is None:
        return
    tokens = usage["prompt_tokens"] + usage["completion_tokens"]
    money = "" if usage["cost"] is None else f", {usage['cost']:.4g} of money"
    guessed = " (estimated: the server does not count)" if usage["tokens_estimated"] else ""
    errors.print(
        f"{usage['questions']:,} questions asked, {usage['kept']:,} answered before; {tokens:,} tokens{guessed}{money}",
        markup=False,
        soft_wrap=True,
    )
