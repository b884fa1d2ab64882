"""Figures of plotly in the house's look, as JSON for the browser."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any


def text_of(text: str) -> str:
    """A text for a figure: plotly reads some HTML in what it shows, so nothing of it may be any."""
    return escape(text, quote=False)


def figure(traces: Sequence[Any], drag: str = "pan", legend: bool = False) -> str:
    """The traces without axes. A colour "var(--name)" is the page's own, looked up where it is drawn."""
    import plotly.graph_objects as go

    hidden = {"visible": False, "fixedrange": False}
    drawn = go.Figure(
        traces,
        {
            "autosize": True,
            "showlegend": legend,
            "legend": {"orientation": "h", "itemsizing": "constant", "y": -0.02, "font": {"color": "var(--soft)"}},
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--ink)"},
            "hoverlabel": {
                "align": "left",
                "bgcolor": "var(--ink)",
                "font": {"color": "var(--paper)"},
                "bordercolor": "var(--ink)",
            },
            "xaxis": hidden,
            "yaxis": hidden,
            "dragmode": drag,
            "hovermode": "closest",
            "newselection": {"line": {"color": "var(--accent)", "dash": "solid", "width": 1.5}},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--faint)", "activecolor": "var(--accent)"},
            "template": None,
        },
        skip_invalid=False,
    )
    return str(drawn.to_json(validate=False))
