"""The signal-to-noise report of a quantized model, as a page for people and as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..quant.advice import Suggestion
from ..quant.recipe_file import recipe_to_dict, recipe_to_toml
from ..quant.recipes import Recipe
from ..quant.snr import HEAD_PLACES, LOCAL_DB, PLACES, STREAM_DB, Measurement, SnrReport
from . import html
from .svg import heat_map, line_chart

_CHARTS: Mapping[str, Sequence[str]] = {
    "Inputs of linear layers": ("attn", "out", "mlp", "down"),
    "Weights": ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down"),
    "Inside attention": ("q", "k", "v", "p", "attention"),
    "Residual stream": ("stream",),
}
_MEANING = {
    "attn, out, mlp, down, head": "outputs of the linear layers that read it, when only it is rounded",
    "wq ... w_down, w_head": "outputs of that linear layer, when only its weight is rounded",
    "q, k, v, p": "queries and keys (after the rotary embedding), values, probabilities, as they are rounded",
    "attention": "the result of attention, when q, k, v and p are rounded",
    "stream": "the residual stream behind the layer, with the noise of everything up to there",
}
_SPAN = (12.0, 25.0)  # dB below and above the threshold at which a cell has its full colour


def snr_page(
    report: SnrReport, advice: Sequence[Suggestion], repaired: Recipe, settings: Mapping[str, str]
) -> str:
    """The page.

    Args:
        report: the measurements.
        advice: what to change.
        repaired: the recipe with all of it.
        settings: what the figures depend on, for a table.
    """
    first = report.first_bad()
    out = report.output
    figures = {
        "first bad layer": "none" if first is None else place_name(first.layer),
        "perplexity, float": f"{out.perplexity_float:.3f}",
        "perplexity, quantized": f"{out.perplexity:.3f}",
        "KL divergence": f"{out.kl:.4f} nats",
        "signal to noise of the logits": "exact" if out.snr == math.inf else f"{out.snr:.1f} dB",
    }
    lead = report.recipe.description or "A recipe without a description."
    return html.page(
        f"Signal to noise under {report.recipe.name}",
        lead,
        html.facts(figures),
        _verdict(first, report),
        _advice(advice, repaired, report.recipe),
        html.section("Every place of every layer", _map(report), _legend()),
        html.section("By layer", html.plots(*(_chart(report, *chart) for chart in _CHARTS.items()))),
        html.section("Figures", _table(report)),
        html.section(
            "What was measured",
            html.table(
                ("setting", "value"), [*settings.items()], "On these the figures depend.", kind="words"
            ),
        ),
    )


def snr_dict(report: SnrReport, advice: Sequence[Suggestion], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same as plain data.

    Decibels are null where nothing is rounded, and where nothing of the signal is left (``bad`` then); so are
    figures of the output that are not finite.
    """
    first = report.first_bad()
    out = report.output
    return {
        "recipe": recipe_to_dict(report.recipe),
        "layers": report.layers,
        "thresholds_db": {"local": LOCAL_DB, "stream": STREAM_DB},
        "output": {
            "tokens": out.tokens,
            "kl": _finite(out.kl),
            "cross_entropy_float": _finite(out.cross_entropy_float),
            "cross_entropy": _finite(out.cross_entropy),
            "ppl_float": _finite(out.perplexity_float),
            "ppl": _finite(out.perplexity),
            "snr_db": _finite(out.snr),
        },
        "first_bad": None if first is None else _measurement(first),
        "suggestions": [
            {
                "cause": s.cause,
                "places": [{"layer": m.layer, "place": m.place} for m in s.measurements],
                "reason": s.reason,
                "action": s.action,
                "toml": s.toml,
                "recipe": recipe_to_dict(s.recipe),
            }
            for s in advice
        ],
        "measurements": [_measurement(m) for m in report.measurements],
        "settings": dict(settings),
    }


def place_name(layer: int | None, place: str = "") -> str:
    """A place in words: ``layer 3, down``, ``head, w_head``."""
    where = "head" if layer is None else f"layer {layer}"
    return f"{where}, {place}" if place and place != where else where


def _measurement(m: Measurement) -> dict[str, Any]:
    return {
        "layer": m.layer,
        "place": m.place,
        "snr_db": _finite(m.snr),
        "values_db": _finite(m.values),
        "peak": m.peak,
        "bad": m.bad,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _verdict(first: Measurement | None, report: SnrReport) -> str:
    if first is None:
        text = f"Every place has {LOCAL_DB:g} dB or more, the residual stream {STREAM_DB:g}."
        return html.card("No bad layer", html.paragraph(text), kind="good")
    text = (
        f"It has {_db(first.snr)} dB where {first.threshold:g} are needed. In all, {len(report.bad())} of "
        f"{len(report.measurements)} places are below their threshold. Each place but the residual stream is "
        "measured for what the float model puts there, so this one does not blame those behind it."
    )
    return html.card(
        f"First bad place: {place_name(first.layer, first.place)}", html.paragraph(text), kind="alert"
    )


def _advice(advice: Sequence[Suggestion], repaired: Recipe, recipe: Recipe) -> str:
    if not advice:
        return ""
    cards = [html.card(s.action, html.paragraph(s.reason), html.code(s.toml)) for s in advice]
    if repaired != recipe:
        whole = html.details("The recipe with all of these changes", html.code(recipe_to_toml(repaired)))
        cards.append(whole)
    note = (
        "Lines for the recipe's TOML file, in place of the fields of these names. Measure again afterwards."
    )
    return html.section("What to change", html.paragraph(note, "note"), *cards)


def _map(report: SnrReport) -> str:
    values = [[report.at(layer, place).snr for place in PLACES] for layer in range(report.layers)]
    rows = [f"layer {layer}" for layer in range(report.layers)]
    first = report.first_bad()
    mark = None if first is None or first.layer is None else (first.layer, PLACES.index(first.place))

    def threshold(column: int) -> float:
        return STREAM_DB if PLACES[column] == "stream" else LOCAL_DB

    title = "Signal to noise in dB (red: below the threshold; framed: the first)"
    return heat_map(title, rows, PLACES, values, threshold, _SPAN, "dB", mark)


def _legend() -> str:
    caption = f"What a cell says; {LOCAL_DB:g} dB are enough, {STREAM_DB:g} for the stream, – is exact."
    return html.details(
        "What the columns mean", html.table(("place", "signal"), [*_MEANING.items()], caption, kind="words")
    )


def _chart(report: SnrReport, title: str, places: Sequence[str]) -> str:
    layers = range(report.layers)
    series = {place: [report.at(layer, place).snr for layer in layers] for place in places}
    limit = STREAM_DB if places == ("stream",) else LOCAL_DB
    return line_chart(title, series, [str(n) for n in layers], "layer", "dB", limit)


def _table(report: SnrReport) -> str:
    """All figures, one row a place and one column a layer."""
    layers = range(report.layers)
    rows: list[list[str]] = []
    bad: set[tuple[int, int]] = set()
    for i, place in enumerate(PLACES):
        found = [report.at(layer, place) for layer in layers]
        rows.append([place, *(_cell(m) for m in found)])
        bad |= {(i, j) for j, m in enumerate(found, 1) if m.bad}
    headers = ["place", *(f"layer {n}" for n in layers)]
    inner = html.table(
        headers, rows, "dB (dB of the values themselves; peak over root mean square)", frozenset(bad)
    )
    head = [report.at(None, place) for place in HEAD_PLACES]
    last = html.table(
        ["place", "head"],
        [[m.place, _cell(m)] for m in head],
        "The head",
        frozenset((i, 1) for i, m in enumerate(head) if m.bad),
    )
    return html.details("All of them", inner, last)


def _cell(m: Measurement) -> str:
    more = [] if m.values == m.snr else [_db(m.values)]
    more += [] if m.peak is None else [f"peak {m.peak:.1f}"]
    return _db(m.snr) + (f" ({'; '.join(more)})" if more and m.snr != math.inf else "")


def _db(value: float) -> str:
    return "–" if value == math.inf else "nothing left" if value == -math.inf else f"{value:.1f}"
