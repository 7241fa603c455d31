"""Plots of a hardware design, on top of `svg`: bars in time, bars against a limit, a roofline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .html import escape
from .svg import SERIES, figure, round_step, words

WIDTH = 860
_LEFT, _RIGHT, _TOP, _ROW = 210, 90, 34, 22


@dataclass(frozen=True, slots=True)
class Span:
    """A bar of a timeline: from `start` to `end`, and for how much of it there is work."""

    name: str
    start: float
    end: float
    busy: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of named parts. `limit` is a dashed mark, `full` where the scale of the bar ends."""

    name: str
    parts: Mapping[str, float]
    limit: float
    full: float
    note: str = ""

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Point:
    """A design in a roofline plot."""

    name: str
    ops_per_byte: float
    ops_per_s: float


def timeline(title: str, spans: Sequence[Span], unit: str) -> str:
    """A row for each span; the deep part of a bar is as long as it is busy, the pale one as it takes.

    Args:
        title: what it shows.
        spans: in the order of the rows.
        unit: of their times.
    """
    end = max((span.end for span in spans), default=0.0) or 1.0
    inner, bottom = WIDTH - _LEFT - _RIGHT, _TOP + _ROW * len(spans)

    def x(time: float) -> float:
        return _LEFT + inner * time / end

    parts: list[str] = []
    step = round_step(end)
    for n in range(int(end / step) + 1):
        parts.append(f'<path class="grid" d="M{x(n * step):.1f} {_TOP - 6}V{bottom}"/>')
        parts.append(words(x(n * step), _TOP - 12, f"{n * step:g}", kind="axis"))
    parts.append(words(WIDTH - 4, _TOP - 12, unit, "end", "axis"))
    for n, span in enumerate(spans):
        y = _TOP + n * _ROW
        said = f"{span.name}: {span.start:.4g} to {span.end:.4g} {unit}, busy {span.busy:.4g} {unit}"
        parts.append(
            f'<g class="s{n % SERIES}"><title>{escape(said)}</title>'
            f'<rect class="span" x="{x(span.start):.1f}" y="{y + 3}" height="{_ROW - 6}" rx="2" '
            f'width="{max(1.0, x(span.end) - x(span.start)):.1f}"/>'
            f'<rect class="bar" x="{x(span.start):.1f}" y="{y + 3}" height="{_ROW - 6}" rx="2" '
            f'width="{max(1.0, inner * min(span.busy, span.end - span.start) / end):.1f}"/></g>'
        )
        parts.append(words(_LEFT - 8, y + 15, _short(span.name), "end"))
        parts.append(words(WIDTH - 4, y + 15, f"{span.busy / end:.1%}", "end"))
    return figure(title, f"{len(spans)} bars over {end:.4g} {unit}.", WIDTH, bottom + 6, parts)


def bars(title: str, rows: Sequence[Bar], unit: str) -> str:
    """A bar for each row, on its own scale; parts beyond the legend share the last colour.

    Args:
        title: what it shows.
        rows: from the top.
        unit: of what the parts measure.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.parts))
    legend, top = _keys(names)
    inner = WIDTH - _LEFT - _RIGHT - 60
    parts = [legend]
    for n, row in enumerate(rows):
        y, at, scale = top + n * (_ROW + 4), float(_LEFT), inner / (max(row.full, row.total) or 1.0)
        parts.append(
            f'<rect class="cell" x="{_LEFT}" y="{y + 2}" width="{row.full * scale:.1f}" height="{_ROW - 2}"/>'
        )
        for name, amount in row.parts.items():
            kind = min(names.index(name), SERIES - 1)
            said = f"{row.name}, {name}: {amount:,.4g} {unit}".rstrip()
            box = f'x="{at:.1f}" y="{y + 2}" width="{amount * scale:.1f}" height="{_ROW - 2}"'
            parts.append(
                f'<g class="s{kind}"><title>{escape(said)}</title><rect class="bar" {box}/>'
                f'<rect class="edge" {box}/></g>'
            )
            at += amount * scale
        parts.append(f'<path class="limit" d="M{_LEFT + row.limit * scale:.1f} {y - 1}v{_ROW + 4}"/>')
        bad = "bad" if row.total > row.limit else ""
        parts.append(words(_LEFT - 8, y + 16, _short(row.name), "end", bad))
        parts.append(words(WIDTH - 4, y + 16, row.note, "end", bad))
    height = top + len(rows) * (_ROW + 4) + 6
    return figure(title, f"{', '.join(r.name for r in rows)}; dashed: the limit.", WIDTH, height, parts)


def roofline_chart(title: str, roofs: Mapping[str, tuple[float, float]], points: Sequence[Point]) -> str:
    """Operations per second over operations per byte, both logarithmic.

    Args:
        title: what it shows.
        roofs: operations and bytes per second at most, by name.
        points: the designs.
    """
    axes = _Axes.around(list(roofs.values()), points)
    parts = axes.grid()
    for n, (name, (ops, rate)) in enumerate(roofs.items()):
        left, ridge = axes.x_low, min(max(ops / rate, axes.x_low), axes.x_high)
        path = (
            f"M{axes.x(left):.1f} {axes.y(min(ops, left * rate)):.1f}"
            f"L{axes.x(ridge):.1f} {axes.y(min(ops, ridge * rate)):.1f}H{axes.x(axes.x_high):.1f}"
        )
        said = f"{name}: {ops / 1e12:.3g} TOPS, {rate / 1e9:.4g} GB/s, they meet at {ops / rate:.3g} a byte"
        parts.append(f'<g class="s{n}"><title>{escape(said)}</title><path class="line" d="{path}"/></g>')
        parts.append(words(axes.x(axes.x_high) - 4, axes.y(min(ops, ridge * rate)) - 6, name, "end"))
    for n, point in enumerate(points):
        x, y = axes.x(point.ops_per_byte), axes.y(point.ops_per_s)
        said = (
            f"{point.name}: {point.ops_per_s / 1e12:.3g} TOPS at {point.ops_per_byte:.3g} operations a byte"
        )
        parts.append(
            f'<g class="s{(n + len(roofs)) % SERIES}"><title>{escape(said)}</title>'
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5"/></g>'
        )
        parts.append(words(x + 9, y + 4, point.name, "start"))
    return figure(
        title, f"Roofs {', '.join(roofs)}; {', '.join(p.name for p in points)}.", WIDTH, _Axes.HEIGHT, parts
    )


@dataclass(frozen=True, slots=True)
class _Axes:
    """Two logarithmic axes, in whole decades."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    HEIGHT = 360
    LEFT, TOP, BOTTOM = 76, 24, 42

    @classmethod
    def around(cls, roofs: Sequence[tuple[float, float]], points: Sequence[Point]) -> _Axes:
        xs = [ops / rate for ops, rate in roofs] + [p.ops_per_byte for p in points]
        x_low, x_high = _decade(min(xs) / 2), _decade(max(xs) * 2, up=True)
        ys = [min(ops, x_low * rate) for ops, rate in roofs] + [p.ops_per_s for p in points]
        tops = [ops for ops, _ in roofs] + [p.ops_per_s for p in points]
        return cls(x_low, x_high, _decade(min(ys)), _decade(max(tops) * 1.5, up=True))

    def x(self, value: float) -> float:
        share = math.log(value / self.x_low) / math.log(self.x_high / self.x_low)
        return self.LEFT + (WIDTH - self.LEFT - 14) * share

    def y(self, value: float) -> float:
        share = math.log(value / self.y_low) / math.log(self.y_high / self.y_low)
        return self.HEIGHT - self.BOTTOM - (self.HEIGHT - self.BOTTOM - self.TOP) * share

    def grid(self) -> list[str]:
        parts = [
            words((self.LEFT + WIDTH) / 2, self.HEIGHT - 6, "operations per byte", kind="axis"),
            words(0, 12, "TOPS", "start", "axis"),
        ]
        for value in _decades(self.x_low, self.x_high):
            x = self.x(value)
            parts.append(f'<path class="grid" d="M{x:.1f} {self.TOP}V{self.HEIGHT - self.BOTTOM}"/>')
            parts.append(words(x, self.HEIGHT - self.BOTTOM + 16, f"{value:g}"))
        for value in _decades(self.y_low, self.y_high):
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{self.LEFT} {y:.1f}H{WIDTH - 14}"/>')
            parts.append(words(self.LEFT - 6, y + 4, f"{value / 1e12:g}", "end"))
        return parts


def _decade(value: float, up: bool = False) -> float:
    return 10.0 ** (math.ceil if up else math.floor)(math.log10(value))


def _decades(low: float, high: float) -> list[float]:
    return [low * 10**n for n in range(round(math.log10(high / low)) + 1)]


def _keys(names: Sequence[str]) -> tuple[str, int]:
    """What the colours mean, and where the plot begins below it."""
    if len(names) < 2:
        return "", 10
    x, y, parts = 0, 18, list[str]()
    shown = [*names[: SERIES - 1], *(["others"] if len(names) > SERIES else names[SERIES - 1 :])]
    for n, name in enumerate(shown):
        width = 30 + 7 * len(name)
        if x and x + width > WIDTH:
            x, y = 0, y + 18
        parts.append(
            f'<g class="s{n}"><rect class="bar" x="{x}" y="{y - 10}" width="12" height="12" rx="2"/></g>'
            + words(x + 17, y, name, "start")
        )
        x += width
    return "".join(parts), y + 14


def _short(name: str, most: int = 30) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
