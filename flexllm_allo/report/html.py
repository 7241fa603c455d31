"""Self-contained pages: one file that opens offline, in light and dark, without a script.

What these functions give is also well-formed XML, so that any tool can read it.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

STYLE = (
    """
:root { color-scheme: light dark; --ink: #1b2024; --soft: #5b6670; --page: #f6f7f8; --card: #ffffff;
  --edge: #dfe3e6; --bad: #b02026; --below: #b0202614; --empty: #eceff1; --accent: #14766e;
  --s0: #0b6fb8; --s1: #c2410c; --s2: #14766e; --s3: #a21caf; --s4: #7a5c00; --s5: #4338ca; --s6: #57606a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaed; --soft: #9aa7b1; --page: #12161a;
  --card: #1b2126; --edge: #323b43; --bad: #ff8a80; --below: #ff8a801c; --empty: #2a3238; --accent: #5cc8bb;
  --s0: #6cb6f0; --s1: #ff9d6b; --s2: #5cc8bb; --s3: #e39bf0; --s4: #e0bf57; --s5: #a5a2ff; --s6: #b4bec6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--page);
  color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
p { margin: .4rem 0; max-width: 75ch; }
.lead, .note, caption, dt { color: var(--soft); }
.note { font-size: .9rem; }
section > .card + .card { margin-top: .8rem; }
.card, figure, .facts > div { background: var(--card); border: 1px solid var(--edge); border-radius: 8px;
  padding: .9rem 1.1rem; }
.card.alert { border-left: 4px solid var(--bad); }
.card.good { border-left: 4px solid var(--accent); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem;
  margin: 1.2rem 0; }
dl.facts dt { font-size: .85rem; }
dl.facts dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: .8rem; }
figure { margin: 0 0 .8rem; overflow-x: auto; }
.plots figure { margin: 0; }
figcaption { font-weight: 600; margin-bottom: .4rem; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); font-variant-numeric: tabular-nums; }
svg text.axis { fill: var(--soft); }
svg text.bad { font-weight: 700; }
.grid { stroke: var(--edge); fill: none; }
.limit { stroke: var(--bad); stroke-dasharray: 4 4; fill: none; }
.below { fill: var(--below); }
.cell { fill: var(--empty); }
.mark { fill: none; stroke: var(--ink); stroke-width: 2.5; }
.line { fill: none; stroke: currentColor; stroke-width: 1.8; }
.dot, .bar { fill: currentColor; }
.span { fill: currentColor; opacity: .28; }
.edge { fill: none; stroke: var(--page); }
"""
    + "\n".join(f".s{n} {{ color: var(--s{n}); }}" for n in range(7))
    + """
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; white-space: nowrap; }
svg.wide { min-width: 44rem; }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid var(--edge);
  white-space: nowrap; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
td.bad { color: var(--bad); font-weight: 700; }
pre { background: var(--page); border: 1px solid var(--edge); border-radius: 6px; padding: .7rem .9rem;
  overflow-x: auto; font: 13px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; margin: .6rem 0 0; }
summary { cursor: pointer; font-weight: 600; }
a { color: var(--s0); }
pre span { display: block; }
pre span.here { background: var(--edge); }
pre span:target { outline: 2px solid var(--accent); }
@media print { body { max-width: none; background: none; } .card, figure { break-inside: avoid; } }
"""
)


class Markup(str):
    """What is HTML already: tables take it as it is."""


def escape(text: str) -> str:
    """Text as it stands between tags or in quotes."""
    return text if isinstance(text, Markup) else html.escape(text)


def link(text: str, anchor: str) -> Markup:
    """A link to another place of the page."""
    return Markup(f'<a href="#{escape(anchor)}">{escape(text)}</a>')


def page(title: str, lead: str, *parts: str) -> str:
    """A whole page.

    Args:
        title: its heading and the title of the window.
        lead: a sentence below it.
        parts: what `section` and the others here give.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p></header>\n'
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """A heading and what belongs to it."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(parts) + "\n</section>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; ``note`` is small."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def card(heading: str, *parts: str, kind: str = "") -> str:
    """A box; ``alert`` and ``good`` have a coloured edge."""
    return f'<div class="card {kind}"><h3>{escape(heading)}</h3>' + "".join(parts) + "</div>"


def facts(values: Mapping[str, str]) -> str:
    """Single figures side by side, each with its name."""
    cells = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
    return '<dl class="facts">' + "".join(cells) + "</dl>"


def plots(*figures: str) -> str:
    """Figures of `svg` side by side, as many as fit."""
    return '<div class="plots">' + "\n".join(figures) + "</div>"


def code(text: str) -> str:
    """Text with its spaces and lines."""
    return f"<pre><code>{escape(text)}</code></pre>"


def listing(lines: Sequence[tuple[int, str, str | None]]) -> str:
    """Lines of a source with their numbers.

    Args:
        lines: number, text, and the anchor of a line that links lead to, which is marked.
    """
    width = len(str(lines[-1][0])) if lines else 0
    rows = (
        f"<span{_anchor(anchor)}>{number:>{width}}  {escape(text)}</span>" for number, text, anchor in lines
    )
    return f"<pre><code>{''.join(rows)}</code></pre>"


def details(summary: str, *parts: str, opened: bool = False) -> str:
    """Parts that fold and unfold on a click."""
    state = ' open=""' if opened else ""
    return (
        f'<details class="card"{state}><summary>{escape(summary)}</summary>' + "".join(parts) + "</details>"
    )


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    bad: frozenset[tuple[int, int]] = frozenset(),
    kind: str = "",
) -> str:
    """A table whose first column names the rows.

    Args:
        headers: of the columns.
        rows: cells by row.
        caption: what it shows.
        bad: (row, column) of cells that stand out.
        kind: ``words`` aligns all cells to the left.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in headers)
    body = ""
    for i, row in enumerate(rows):
        first, *others = row
        cells = "".join(
            f"<td{_class('bad' if (i, j) in bad else '')}>{escape(cell)}</td>"
            for j, cell in enumerate(others, 1)
        )
        body += f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>\n'
    return (
        f'<div class="scroll"><table{_class(kind)}><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _anchor(name: str | None) -> str:
    return f' id="{escape(name)}" class="here"' if name else ""
