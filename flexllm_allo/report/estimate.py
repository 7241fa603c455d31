"""An estimate as a page: what binds, when what runs, what it takes, and why a loop is as slow as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from ..errors import Span, source_line
from ..estimate.limits import fit_of, utilization
from ..estimate.power import TOLERANCE, fitted_static_w, power
from ..estimate.result import Estimate, LoopTiming, StageTiming
from ..estimate.roofline import Roofline, roofline
from ..hardware.devices import RESOURCES, Device, device
from ..hardware.gpus import gpus
from . import charts, html

_STAGES = 40  # rows of a timeline
_NEAR = 2  # lines shown around a line of a source
_WIDTHS = ((4, 4), (8, 8))  # bits of weight and activation whose roofs are drawn


@dataclass(frozen=True, slots=True)
class Compared:
    """What GPUs are asked for: the rows of `model`, and the ceiling at so many bytes a token in BF16."""

    model: str
    bytes_per_token: float


def estimate_page(estimate: Estimate, compared: Compared | None = None) -> str:
    """The page: one file that needs no other and no network.

    Args:
        estimate: what it shows.
        compared: adds a table of GPUs.
    """
    card = device(estimate.device)
    sources = Sources(_spans(estimate))
    lead = (
        f"{card.name} at {estimate.clock_mhz:g} MHz. Every figure is estimated from the scheduled program "
        "and the database of devices; nothing was synthesized or measured."
    )
    return html.page(
        f"Estimate of {estimate.design}",
        lead,
        html.facts(_figures(estimate)),
        _verdict(estimate, card),
        html.section("When what runs", *_timelines(estimate)),
        _roofs(estimate, card),
        _resources(estimate, card),
        _bandwidth(estimate),
        _gpus(compared) if compared else "",
        html.section("Why every loop takes what it takes", *_loops(estimate, sources)),
        sources.section(),
        _assumptions(estimate, card),
    )


# ---------------------------------------------------------------------------------- figures


def _figures(estimate: Estimate) -> dict[str, str]:
    known = {
        "prefill": _seconds(estimate.prefill_s),
        "decode": _seconds(estimate.decode_s),
        "tokens per second": _number(estimate.tokens_per_second),
        "cycles": f"{estimate.cycles:,}",
        "bandwidth": f"{estimate.bandwidth_gbs:,.1f} GB/s",
        "power": "" if estimate.power_w is None else f"{estimate.power_w:.1f} W",
        "energy per token": _number(estimate.energy_per_token_j, "J"),
    }
    return {name: text for name, text in known.items() if text}


def _verdict(estimate: Estimate, card: Device) -> str:
    cards = [html.card("What binds", html.paragraph(estimate.binds), kind="good")]
    fit = fit_of(estimate)
    if not fit:
        lines = [html.paragraph(text) for text in (*fit.reasons, *fit.remedies)]
        cards.append(html.card(f"It does not fit the {card.name}", *lines, kind="alert"))
    return html.section("In short", *cards)


def _timelines(estimate: Estimate) -> Iterable[str]:
    for name, phase in estimate.phases.items():
        stages = [stage for stage in estimate.stages if stage.phase == name]
        shown = sorted(sorted(stages, key=lambda s: -s.cycles)[:_STAGES], key=lambda s: s.start)
        to_ms = phase.seconds * 1e3 / max(1, phase.cycles)
        spans = [charts.Span(s.name, s.start * to_ms, s.end * to_ms, s.cycles * to_ms) for s in shown]
        if spans:
            left_out = f" (the {_STAGES} longest of {len(stages)})" if len(stages) > len(shown) else ""
            yield charts.timeline(f"{name}: {phase.cycles:,} cycles{left_out}", spans, "ms")


def _roofs(estimate: Estimate, card: Device) -> str:
    roofs = {f"{w} x {a} bits": r for w, a in _WIDTHS if (r := _roof(card, estimate.clock_mhz, w, a))}
    points = [
        charts.Point(name, phase.operations / phase.bytes, phase.operations / phase.seconds)
        for name, phase in estimate.phases.items()
        if phase.bytes and phase.operations and phase.seconds
    ]
    if not roofs or not points:
        return ""
    title = f"All DSPs of the {card.name} at {estimate.clock_mhz:g} MHz, all channels of its memory"
    chart = charts.roofline_chart(title, {n: (r.ops_per_s, r.bytes_per_s) for n, r in roofs.items()}, points)
    rows = [
        [
            p.name,
            roof,
            f"{p.ops_per_byte:,.1f}",
            f"{p.ops_per_s / r.attainable(p.ops_per_byte):.1%}",
            r.binds(p.ops_per_byte),
        ]
        for p in points
        for roof, r in roofs.items()
    ]
    head = ("phase", "roof", "operations a byte", "reached", "the roof is")
    return html.section("Roofline", chart, html.table(head, rows, "How much of each roof a phase reaches."))


def _roof(card: Device, mhz: float, weight: int, activation: int) -> Roofline | None:
    known = card.available is not None and card.memory.gb_per_s is not None
    return roofline(card, mhz, weight, activation) if known else None


def _resources(estimate: Estimate, card: Device) -> str:
    heaviest = sorted(estimate.modules, key=lambda m: -(m.resources.lut + 100 * m.resources.dsp))
    parts: list[str] = []
    if card.available:
        shares = utilization(estimate.resources, card.available)
        rows = [
            charts.Bar(
                label,
                {m.name: float(n) for m in heaviest if (n := getattr(m.resources, name))},
                card.caps.share(name) * getattr(card.available, name),
                float(getattr(card.available, name)),
                f"{shares[name]:.1%}" if isfinite(shares[name]) else "none on this part",
            )
            for name, label in RESOURCES.items()
        ]
        parts.append(charts.bars("By module; dashed: what a design may use and still route", rows, ""))
    head = ("module", "SLR", *RESOURCES.values(), "LUTRAM")
    table = [[m.name, m.slr or "-", *(f"{n:,}" for n in (*m.resources.counts(), m.lutram))] for m in heaviest]
    table.append(["all", "", *(f"{n:,}" for n in estimate.resources.counts())])
    table[-1].append(f"{sum(m.lutram for m in estimate.modules):,}")
    return html.section("Resources", *parts, html.details("Figures", html.table(head, table, "By module.")))


def _bandwidth(estimate: Estimate) -> str:
    if not estimate.channels:
        return ""
    rows = [
        charts.Bar(c.name, {"moved": c.gb_per_s}, c.limit_gb_per_s, c.peak_gb_per_s, f"{c.gb_per_s:.2f} GB/s")
        for c in estimate.channels
    ]
    title = "By channel, of its peak; dashed: what port and channel give at most"
    return html.section("Bandwidth", charts.bars(title, rows, "GB/s"))


def _gpus(compared: Compared) -> str:
    """The ceiling, the eager framework and the captured graphs, each in a column of its own."""
    rows: list[list[str]] = []
    for card in gpus():
        reported = [row for row in card.rows if row.model == compared.model]
        cells = [
            ", ".join(f"{r.tokens_per_second:g} ({r.format})" for r in reported if r.kind == kind) or "-"
            for kind in ("eager", "vllm")
        ]
        ceiling = f"{card.roofline_tokens_per_second(compared.bytes_per_token):,.0f}"
        sources = "; ".join([card.source, *(row.source for row in reported)])
        rows.append([card.name, ceiling, *cells, sources])
    caption = (
        f"Tokens per second of one sequence of {compared.model}; the roofline in BF16, reached by nobody."
    )
    head = ("GPU", "roofline", "eager", "vLLM", "sources")
    return html.section("GPUs", html.table(head, rows, caption, kind="words"))


# ---------------------------------------------------------------------------------- loops and lines


def _loops(estimate: Estimate, sources: Sources) -> Iterable[str]:
    stages = sorted((s for s in estimate.stages if s.loops), key=lambda s: -s.cycles)
    for n, stage in enumerate(stages):
        share = stage.cycles / max(1, estimate.phases[stage.phase].cycles)
        summary = f"{stage.name}: {share:.1%} of {stage.phase}, {stage.cycles:,} cycles"
        parts = (_stage_lines(stage, sources), _loop_table(stage.loops, sources))
        yield html.details(summary, *parts, opened=n == 0)


def _stage_lines(stage: StageTiming, sources: Sources) -> str:
    places = [("kernel", stage.kernel), ("schedule", stage.schedule)]
    links = [f"{what} {sources.link(span)}" for what, span in places if span and span.line]
    return f'<p class="note">{", ".join(links)}</p>' if links else ""


def _loop_table(loops: Sequence[LoopTiming], sources: Sources) -> str:
    head = ("loop", "trips", "II", "depth", "cycles", "kernel line", "schedule line", "why")
    rows = [
        [
            loop.loop,
            f"{loop.trips:,}",
            "-" if loop.ii is None else str(loop.ii),
            f"{loop.depth:,}",
            f"{loop.cycles:,}",
            sources.link(loop.kernel),
            sources.link(loop.schedule) if loop.schedule else "-",
            loop.reason,
        ]
        for loop in loops
    ]
    slow = frozenset((i, 2) for i, loop in enumerate(loops) if loop.ii is not None and loop.ii > 1)
    return html.table(head, rows, "One run of a loop takes depth + (trips - 1) II.", slow, kind="words")


class Sources:
    """The lines of source that a page links to, and their listings."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.lines: dict[str, set[int]] = {}
        for span in spans:
            if span.line and source_line(span) is not None:
                self.lines.setdefault(span.file, set()).add(span.line)
        self.numbers = {file: n for n, file in enumerate(self.lines)}

    def link(self, span: Span) -> str:
        """File and line; a link where the text of the line is known."""
        if not span.line:
            return "-"
        text = f"{_file(span.file)}:{span.line}"
        known = span.line in self.lines.get(span.file, ())
        return html.link(text, self._anchor(span.file, span.line)) if known else text

    def section(self) -> str:
        """The listings, by file."""
        if not self.lines:
            return ""
        parts = [html.card(_file(file), *self._listings(file)) for file in self.lines]
        return html.section("The lines", *parts)

    def _listings(self, file: str) -> Iterable[str]:
        marked = sorted(self.lines[file])
        shown = sorted({n for line in marked for n in range(line - _NEAR, line + _NEAR + 1)})
        run: list[tuple[int, str, str | None]] = []
        for number in shown:
            text = source_line(Span(file, number)) if number > 0 else None
            if text is None and number not in marked:
                continue
            if run and number > run[-1][0] + 1:
                yield html.listing(run)
                run = []
            run.append((number, text or "", self._anchor(file, number) if number in marked else None))
        if run:
            yield html.listing(run)

    def _anchor(self, file: str, line: int) -> str:
        return f"line-{self.numbers[file]}-{line}"


def _spans(estimate: Estimate) -> Iterable[Span]:
    for stage in estimate.stages:
        for place in (stage, *stage.loops):
            yield from (span for span in (place.kernel, place.schedule) if span)


def _file(path: str) -> str:
    """The last two parts of a path: enough to find it, and the same on every machine."""
    return "/".join(Path(path).parts[-2:]).removeprefix("/")


def _assumptions(estimate: Estimate, card: Device) -> str:
    notes = [html.paragraph(note) for note in estimate.notes]
    if card.power_family:
        watts = power(card, estimate.resources, estimate.clock_mhz, estimate.bandwidth_gbs)
        fitted = fitted_static_w(card.power_family) is not None
        trust = (
            f"board readings of designs of known resources are met within {TOLERANCE:.0%}"
            if fitted
            else "there is no board reading of such a card to hold it against"
        )
        terms = f"{watts.static_w:.1f} W static, {watts.fabric_w:.1f} W fabric, {watts.memory_w:.1f} W memory"
        notes.append(html.paragraph(f"Power: {terms}, at mean activity; {trust}."))
    rows = [[name, source] for name, source in card.sources.items()]
    table = html.table(("figures", "source"), rows, f"Of the {card.name}.", kind="words") if rows else ""
    return html.section("What it rests on", *notes, table)


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _number(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:,.3g} {unit}".rstrip()
