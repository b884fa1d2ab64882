"""From what was read to HTML. Everything is escaped where it is put in, so a document can be nothing but text.

What a click means travels as JSON in `data-send`; `studio.js` hands it to gradio: {"document": position} and {"concept": number} lead to
another page, all else is for the page it was clicked on.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.runtime import Macro

from hourglass.uses.explore.report import COLOURS, look
from hourglass.uses.explore.words import is_sign


def percent(share: float) -> str:
    """0.123 as "12 %", small shares with a digit more."""
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.{1 if share < 0.1 else 0}f} %"


def points(share: float) -> str:
    """A difference of shares in points: "+12", "−3"."""
    return f"{'+' if share > 0 else '−' if share < 0 else ''}{abs(100 * share):.0f}"


def q_value(q: float) -> str:
    return "< 0.001" if q < 0.001 else f"{q:.3f}"


def size(number: int) -> str:
    """Bytes: 1234567 as "1.2 MB"."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= factor:
            return f"{number / factor:.{1 if number < 100 * factor else 0}f} {unit}"
    return f"{number} bytes"


def duration(ms: float) -> str:
    """Milliseconds: "0.3 ms", "14 ms", "2.1 s"."""
    return f"{ms / 1000:,.1f}\u00a0s" if ms >= 1000 else f"{ms:.{1 if ms < 10 else 0}f}\u00a0ms"


def colour(group: int) -> str:
    """Of a group by its place, the largest first; as the report colours it."""
    return (
        "#9aa0a6"
        if group < 0
        else COLOURS[group]
        if group < len(COLOURS)
        else f"hsl({group * 137.5 % 360:.0f} 45% 52%)"
    )


@cache
def _macros() -> Any:
    page = Environment(
        loader=PackageLoader("hourglass", "studio"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    page.filters.update(
        percent=percent, points=points, q_value=q_value, size=size, duration=duration, number=lambda n: f"{n:,}"
    )
    page.globals.update(colour=colour, is_sign=is_sign)
    return page.get_template("views.html.jinja").module


def view(name: str, /, *values: Any, **named: Any) -> str:
    """The macro `name` of views.html.jinja, filled in."""
    macro = getattr(_macros(), name)
    assert isinstance(macro, Macro)
    return str(macro(*values, **named))


def style() -> str:
    """The look of the report, and what the studio adds to it."""
    return look() + _beside("studio.css")


def head() -> str:
    """The look once more for the head of the page: gradio puts a class before every rule, after which none for dark screens is
    one of the page itself."""
    return f"<style>{look()}</style>"


def script() -> str:
    """What runs beside a view: sends clicks on, marks tokens."""
    return _beside("studio.js")


def menu_script() -> str:
    """What shows a menu under text boxes."""
    return _beside("menu.js")


def figure_script() -> str:
    """What draws a figure of plotly and sends clicks and selections on."""
    return _beside("figure.js")


def _beside(name: str) -> str:
    return files("hourglass.studio").joinpath(name).read_text(encoding="utf-8")


def send(**message: Any) -> str:
    """A message for `data-send` of things that are drawn, as customdata of a point."""
    return json.dumps(message)
