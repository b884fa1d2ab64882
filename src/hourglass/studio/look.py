"""How the studio looks: the colours and type of the report, and pieces of HTML that more than one page shows.

Every text that comes from a document, a name or a column goes through `escape` before it is HTML.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr
import plotly.graph_objects as go

# Okabe and Ito's colours, told apart by colour-blind readers.
GROUP_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6bb1", "#b8a900"]
OTHER = "#9aa0a6"
ACCENT, DOWN, INK, SOFT, LINE = "#0b6e6e", "#b4552d", "#1f2328", "#5d6470", "#e4dfd5"
RAMP = [[0, "#ded8cc"], [1, "#b4552d"]]
"""Silent to strong."""

SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
_SERIF = '"Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", Charter, Georgia, serif'
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

# A template engine reads what a page shows: braces, backticks and dollars must not reach it as such.
_TEMPLATE = str.maketrans({"{": "&#123;", "}": "&#125;", "`": "&#96;", "$": "&#36;"})


def escape(text: Any) -> str:
    """Text as HTML that shows it and does nothing."""
    return html.escape(str(text)).translate(_TEMPLATE)


def theme() -> gr.themes.Base:
    """The report's colours, from fonts that every machine has: nothing is fetched."""
    hue = gr.themes.Color(
        c50="#eef7f6",
        c100="#d6ebe9",
        c200="#aed7d4",
        c300="#7fbfbb",
        c400="#45a09b",
        c500="#0b6e6e",
        c600="#0b6e6e",
        c700="#095a5a",
        c800="#084848",
        c900="#063737",
        c950="#042626",
    )
    return gr.themes.Base(primary_hue=hue, neutral_hue="stone", font=SANS, font_mono=_MONO).set(
        body_background_fill="#faf8f4",
        background_fill_primary="#ffffff",
        background_fill_secondary="#faf8f4",
        block_background_fill="#ffffff",
        block_border_color=LINE,
        block_radius="12px",
        block_label_text_color=SOFT,
        border_color_primary=LINE,
        body_text_color=INK,
        body_text_color_subdued=SOFT,
        button_primary_background_fill=ACCENT,
        button_primary_background_fill_hover="#095a5a",
        button_primary_text_color="#ffffff",
    )


CSS = f"""
.gradio-container {{ max-width: 1180px !important; width: 100% !important; margin: 0 auto !important; }}
.gradio-container > *, .gradio-container .tabs {{ width: 100%; }}
.asks {{ align-items: flex-end; }}
.asks > button {{ flex-grow: 0 !important; margin-bottom: .35rem; }}
.gradio-container h1, .gradio-container h2, .gradio-container h3 {{ font-family: {_SERIF}; font-weight: 600; letter-spacing: -.01em; color: {INK}; }}
footer {{ display: none !important; }}
.hg {{ color: {INK}; overflow-wrap: anywhere; font-size: .95rem; line-height: 1.5; }}
.hg h1 {{ font-size: clamp(1.6rem, 4vw, 2.5rem); line-height: 1.15; margin: .4rem 0 .3rem; }}
.hg h2 {{ font-size: 1.35rem; margin: .4rem 0 .3rem; }}
.hg h3 {{ font-size: 1.05rem; line-height: 1.3; margin: 0; }}
.hg .eyebrow {{ font-size: .78rem; letter-spacing: .08em; text-transform: uppercase; color: {ACCENT}; margin: 0; }}
.hg .hint {{ color: {SOFT}; max-width: 46rem; margin: 0 0 .6rem; }}
.hg .figures {{ display: flex; flex-wrap: wrap; gap: 1px; background: {LINE}; border: 1px solid {LINE}; border-radius: 12px; overflow: hidden; margin: .6rem 0 1rem; }}
.hg .figures div {{ background: #fff; padding: .8rem 1.1rem; flex: 1 1 8rem; }}
.hg .figures b {{ display: block; font: 600 1.55rem/1.15 {_SERIF}; font-variant-numeric: tabular-nums; }}
.hg .figures span {{ font-size: .84rem; color: {SOFT}; }}
.hg .cards {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: .9rem; }}
.hg .card {{ background: #fff; border: 1px solid {LINE}; border-radius: 12px; padding: .95rem 1.05rem; display: flex; flex-direction: column; gap: .5rem; min-width: 0; }}
.hg .bars {{ display: grid; grid-template-columns: minmax(4.5rem, 13rem) 1fr auto; gap: .35rem .8rem; align-items: center; font-size: .9rem; margin: .3rem 0 .8rem; }}
.hg .bar {{ height: .6rem; background: #ece8df; border-radius: 99px; overflow: hidden; }}
.hg .bar i {{ display: block; height: 100%; border-radius: 99px; background: {ACCENT}; }}
.hg .count {{ color: {SOFT}; font-size: .84rem; white-space: nowrap; font-variant-numeric: tabular-nums; }}
.hg .columns {{ display: flex; align-items: flex-end; gap: 2px; height: 70px; margin: .2rem 0; }}
.hg .columns i {{ flex: 1 1 0; background: {ACCENT}; border-radius: 2px 2px 0 0; min-height: 1px; }}
.hg .quote {{ font-size: .9rem; line-height: 1.55; color: {SOFT}; margin: 0 0 .5rem; padding-left: .7rem; border-left: 2px solid {LINE}; }}
.hg mark {{ color: {INK}; border-radius: 3px; padding: 0 .06em; background: rgba(232, 163, 61, var(--s, .6)); }}
.hg .text {{ font-size: 1rem; line-height: 1.75; white-space: pre-wrap; background: #fff; border: 1px solid {LINE}; border-radius: 12px; padding: 1rem 1.2rem; max-height: 34rem; overflow: auto; }}
.hg .text [data-token]:hover {{ outline: 1px solid {ACCENT}; border-radius: 3px; cursor: pointer; }}
.hg .text .chosen {{ outline: 2px solid {ACCENT}; border-radius: 3px; }}
.hg [data-concept], .hg [data-document] {{ cursor: pointer; }}
.hg a[data-concept], .hg a[data-document] {{ color: {ACCENT}; text-decoration: none; }}
.hg a[data-concept]:hover, .hg a[data-document]:hover {{ text-decoration: underline; }}
.hg :focus-visible {{ outline: 2px solid {ACCENT}; outline-offset: 2px; }}
.hg table {{ width: 100%; border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; background: #fff; border: 1px solid {LINE}; border-radius: 12px; overflow: hidden; }}
.hg th {{ text-align: left; font-weight: 500; color: {SOFT}; font-size: .8rem; padding: .5rem .7rem; border-bottom: 1px solid {LINE}; }}
.hg td {{ padding: .42rem .7rem; border-bottom: 1px solid {LINE}; vertical-align: top; }}
.hg tr:last-child td {{ border-bottom: 0; }}
.hg .num {{ text-align: right; white-space: nowrap; }}
.hg .found {{ background: #fff; border: 1px solid {LINE}; border-radius: 10px; padding: .7rem .9rem; margin: 0 0 .55rem; }}
.hg .found p {{ margin: .15rem 0 0; color: {SOFT}; font-size: .9rem; }}
.hg .tag {{ font: 500 .7rem/1 system-ui, sans-serif; color: {SOFT}; border: 1px solid {LINE}; border-radius: 99px; padding: .18rem .5rem; margin-left: .4rem; white-space: nowrap; }}
.hg .scroll {{ overflow-x: auto; }}
.hg .notes {{ color: {SOFT}; font-size: .87rem; padding-left: 1.1rem; margin: .5rem 0; }}
@media (max-width: 640px) {{ .hg .wide {{ display: none; }} .hg td, .hg th {{ padding: .4rem .45rem; }} }}
"""

FOLLOW = """
element.addEventListener('click', event => {
  const hit = event.target.closest('[data-concept],[data-document],[data-token],[data-mark]');
  if (hit) trigger('click', {...hit.dataset});
});
element.addEventListener('keydown', event => { if (event.key === 'Enter') event.target.click(); });
"""
"""What was clicked, told to Python by number: a concept, a document, a token, a concept to mark."""


def panel(value: str = "", **settings: Any) -> gr.HTML:
    """HTML whose concepts, documents and tokens can be clicked."""
    return gr.HTML(value, js_on_load=FOLLOW, apply_default_css=False, **settings)


def page(*parts: str) -> str:
    return f'<div class="hg">{"".join(parts)}</div>'


def hint(text: str) -> str:
    return f'<p class="hint">{escape(text)}</p>'


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def concept(feature: int, label: str | None, length: int = 80) -> str:
    """A link to a concept."""
    return f'<a tabindex="0" data-concept="{int(feature)}">{escape(name(feature, label, length))}</a>'


def name(feature: int, label: str | None, length: int = 80) -> str:
    """A concept in words; those without a name go by number."""
    text = label if isinstance(label, str) else f"feature {feature} (no name)"
    return text if len(text) <= length else text[: length - 1] + "…"


def quote(pieces: Iterable[tuple[str, float]], before: int = 80) -> str:
    """A passage with its strong tokens marked, the stronger the darker; it begins shortly before the first."""
    parts, seen = [], False
    for text, strength in pieces:
        if strength > 0:
            parts.append(f'<mark style="--s:{0.15 + 0.7 * float(strength):.2f}">{escape(text)}</mark>')
            seen = True
        else:
            parts.append(escape(text if seen or len(text) <= before else "…" + text[-before:]))
    return f'<p class="quote" dir="auto">{"".join(parts)}</p>'


def bars(rows: Sequence[tuple[str, float, str]], colours: Sequence[str] = ()) -> str:
    """Name (HTML), share of the longest bar from 0 to 1, and what stands beside it."""
    cells = []
    for i, (title, share, beside) in enumerate(rows):
        colour = f";background:{colours[i % len(colours)]}" if colours else ""
        cells.append(
            f'<span>{title}</span><span class="bar"><i style="width:{100 * share:.1f}%{colour}"></i></span>'
            f'<span class="count">{escape(beside)}</span>'
        )
    return f'<div class="bars">{"".join(cells)}</div>'


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Cells are HTML; `numbers` are the columns that stand right."""
    right = [' class="num"' if i in numbers else "" for i in range(len(titles))]
    head = "".join(f"<th{c}>{escape(t)}</th>" for c, t in zip(right, titles))
    body = "".join("<tr>" + "".join(f"<td{c}>{cell}</td>" for c, cell in zip(right, row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def notes(lines: Sequence[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def found(position: int, id: str, text: str, beside: str = "", length: int = 260) -> str:
    """A document in a list; `beside` is HTML."""
    flat = " ".join(text[: 4 * length].split())
    short = flat if len(flat) <= length else flat[: length - 1] + "…"
    return (
        f'<div class="found" data-document="{int(position)}" tabindex="0"><b>{escape(id)}</b>{beside}'
        f'<p dir="auto">{escape(short)}</p></div>'
    )


def tag(text: str) -> str:
    return f'<span class="tag">{escape(text)}</span>'


def figure(height: int = 420, **layout: Any) -> go.Figure:
    """An empty plot in the house's colours."""
    plot = go.Figure()
    plot.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 10, "b": 30},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        font={"family": ", ".join(SANS), "color": INK, "size": 13},
        showlegend=False,
        hoverlabel={"bgcolor": INK, "font": {"color": "#faf8f4"}, "align": "left"},
        **layout,
    )
    return plot
