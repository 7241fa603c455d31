"""Plots as inline SVG: no script, no file beside it. Colours come from the style sheet of `html.page`.

Every plot has a title and a description that say what it shows; every mark has a tooltip. Colour is never the
only sign: lines have dashes and markers of their own, cells have numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from .html import escape

WIDTH, HEIGHT = 560, 320
_LEFT, _RIGHT, _BOTTOM = 46, 14, 40
_MARKERS = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0",
    "M-3.2 -3.2h6.4v6.4h-6.4z",
    "M0 -4.2L4.2 3.2H-4.2z",
    "M0 -4.6L4.6 0L0 4.6L-4.6 0z",
    "M-4.2 -3.2H4.2L0 4.2z",
    "M-1.3 -4h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7v-2.6h2.7z",
    "M-4 -1.5h8v3h-8z",
)
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 5", "1 3 6 3", "12 4")
SERIES = len(_MARKERS)
"""Lines that one chart can tell apart."""


def line_chart(
    title: str,
    series: Mapping[str, Sequence[float | None]],
    labels: Sequence[str],
    x_label: str,
    y_label: str,
    threshold: float | None = None,
) -> str:
    """A line for each series over the same labels.

    Args:
        title: what it shows.
        series: values by name, at most `SERIES` of them, one per label; None or not finite is a gap.
        labels: along the x axis; some are left out when they are many.
        x_label: what the labels count.
        y_label: with the unit.
        threshold: a dashed line; what lies below is shaded.
    """
    assert len(series) <= SERIES
    known = [v for values in series.values() for v in values if v is not None and math.isfinite(v)]
    top, legend = _legend(list(series))
    low, high = _range([*known, 0.0] + ([] if threshold is None else [threshold]))
    step = round_step(high - low)
    inner = WIDTH - _LEFT - _RIGHT

    def x(i: int) -> float:
        return _LEFT + inner * (i + 0.5) / max(1, len(labels))

    def y(value: float) -> float:
        return top + (HEIGHT - _BOTTOM - top) * (high - value) / (high - low)

    parts = [legend]
    if threshold is not None:
        parts.append(
            f'<rect class="below" x="{_LEFT}" y="{y(threshold):.1f}" width="{inner}" '
            f'height="{y(low) - y(threshold):.1f}"/>'
        )
    for n in range(round((high - low) / step) + 1):
        value = low + n * step
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}h{inner}"/>')
        parts.append(words(_LEFT - 6, y(value) + 4, f"{value:g}", "end"))
    if threshold is not None:
        parts.append(f'<path class="limit" d="M{_LEFT} {y(threshold):.1f}h{inner}"/>')
    every = max(1, -(-len(labels) // 16))
    parts += [words(x(i), HEIGHT - _BOTTOM + 16, label) for i, label in enumerate(labels) if i % every == 0]
    parts.append(words(_LEFT + inner / 2, HEIGHT - 6, x_label, "middle", "axis"))
    parts.append(words(0, 12, y_label, "start", "axis"))
    for n, (name, values) in enumerate(series.items()):
        parts.append(_line(n, name, values, labels, x, y))
    if not known:
        parts.append(words(_LEFT + inner / 2, (HEIGHT + top) / 2, "nothing to show: all of it is exact"))
    return figure(title, f"{y_label} of {', '.join(series)} by {x_label}.", WIDTH, HEIGHT, parts)


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    threshold: Callable[[int], float],
    span: tuple[float, float],
    unit: str,
    mark: tuple[int, int] | None = None,
) -> str:
    """A table of coloured cells.

    Args:
        title: what it shows.
        rows: labels.
        columns: labels.
        values: by row and column; None or infinity is an empty cell, minus infinity is the worst.
        threshold: of a column; cells below are red, and bold.
        span: how far below and above the threshold the colour is full.
        unit: of the values.
        mark: row and column of a cell to frame.
    """
    left, top, wide, high = 74, 26, 54, 26
    parts = [words(left + (j + 0.5) * wide, 17, name) for j, name in enumerate(columns)]
    for i, (row, cells) in enumerate(zip(rows, values, strict=True)):
        parts.append(words(left - 8, top + (i + 0.65) * high, row, "end"))
        for j, value in enumerate(cells):
            at, limit = (left + j * wide, top + i * high), threshold(j)
            empty = value is None or value == math.inf
            bad = value is not None and value < limit
            fill, ink = ("", "") if value is None or empty else _colour((value - limit) / span[not bad])
            number = "–" if value is None or empty else "0" if value == -math.inf else f"{value:.1f}"
            shown = f"{row}, {columns[j]}: " + ("exact" if empty else f"{number} {unit}")
            style = f' style="fill:{fill}"' if fill else ""
            parts.append(
                f'<g><title>{escape(shown)}</title><rect class="cell" x="{at[0] + 1}" y="{at[1] + 1}" '
                f'width="{wide - 2}" height="{high - 2}" rx="3"{style}/>'
                + words(at[0] + wide / 2, at[1] + 17, number, "middle", "bad" if bad else "", ink)
                + "</g>"
            )
    if mark:
        x, y = left + mark[1] * wide, top + mark[0] * high
        parts.append(f'<rect class="mark" x="{x}" y="{y}" width="{wide}" height="{high}" rx="4"/>')
    size = (left + len(columns) * wide + 4, top + len(rows) * high + 4)
    return figure(title, f"{len(rows)} rows of {', '.join(columns)}, in {unit}.", *size, parts)


def _line(
    number: int,
    name: str,
    values: Sequence[float | None],
    labels: Sequence[str],
    x: Callable[[int], float],
    y: Callable[[float], float],
) -> str:
    points = [(i, value) for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    path, previous = "", -2
    for i, value in points:
        path += f"{'L' if i == previous + 1 else 'M'}{x(i):.1f} {y(value):.1f}"
        previous = i
    marks = "".join(
        f'<path class="dot" transform="translate({x(i):.1f} {y(value):.1f})" d="{_MARKERS[number]}">'
        f"<title>{escape(f'{name}, {labels[i]}: {value:.1f}')}</title></path>"
        for i, value in points
    )
    return f'<g class="s{number}"><path class="line" {_dash(number)}d="{path or "M0 0"}"/>{marks}</g>'


def _legend(names: Sequence[str]) -> tuple[int, str]:
    """Where the plot begins, and samples of the lines, in as many rows as they need."""
    x, y, parts = _LEFT, 30, list[str]()
    for n, name in enumerate(names):
        width = 40 + 7 * len(name)
        if x > _LEFT and x + width > WIDTH - _RIGHT:
            x, y = _LEFT, y + 18
        parts.append(
            f'<g class="s{n}" transform="translate({x} {y})"><path class="line" {_dash(n)}d="M0 0h24"/>'
            f'<path class="dot" transform="translate(12 0)" d="{_MARKERS[n]}"/></g>'
            + words(x + 29, y + 4, name, "start")
        )
        x += width
    return y + 16, "".join(parts)


def _dash(number: int) -> str:
    return f'stroke-dasharray="{_DASHES[number]}" ' if _DASHES[number] else ""


def words(x: float, y: float, text: str, anchor: str = "middle", kind: str = "", ink: str = "") -> str:
    """Text in a plot; ``axis`` is soft, ``bad`` is bold."""
    about = (f' class="{kind}"' if kind else "") + (f' style="fill:{ink}"' if ink else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{about}>{escape(text)}</text>'


def figure(title: str, description: str, width: int, height: int, parts: Sequence[str]) -> str:
    """A plot made of marks, with its caption and what it says to those who do not see it."""
    wide = ' class="wide"' if width > 700 else ""  # scrolls in a narrow window, rather than shrink
    return (
        f"<figure><figcaption>{escape(title)}</figcaption><svg{wide} "
        f'viewBox="0 0 {width} {height}" role="img" style="max-width:{width}px">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg></figure>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Round ends of an axis."""
    low, high = min(values), max(values)
    step = round_step(max(high - low, 1e-9))
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return low, high if high > low else low + step


def round_step(span: float) -> float:
    """A round step that cuts a span into four to eight."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(power * f for f in (1, 2, 5, 10) if span / (power * f) <= 8)


def _colour(t: float) -> tuple[str, str]:
    """Fill and ink of a cell: deep red at -1 to pale at 0, pale to deep blue-green at 1."""
    t = max(-1.0, min(1.0, t))
    pale, deep = ((253, 224, 205), (176, 32, 38)) if t < 0 else ((222, 240, 234), (20, 118, 110))
    share = abs(t) ** 0.7
    r, g, b = (round(p + (d - p) * share) for p, d in zip(pale, deep, strict=True))
    light = 0.299 * r + 0.587 * g + 0.114 * b > 140
    return f"rgb({r},{g},{b})", "#111" if light else "#fff"
