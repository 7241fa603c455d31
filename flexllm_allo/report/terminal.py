"""An estimate as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

from ..estimate.limits import fit_of, utilization
from ..estimate.result import Estimate
from ..hardware.devices import RESOURCES, device

_STAGES = 12  # rows of the table of stages
_BAR = 24  # characters of a full bar


def estimate_text(estimate: Estimate) -> str:
    """Phases, what binds, resources against the caps, the longest stages and the slowest loop of each."""
    card = device(estimate.device)
    blocks = [
        [f"{estimate.design} on {card.name} at {estimate.clock_mhz:g} MHz, estimated"],
        list(_phases(estimate)),
        list(_resources(estimate)),
        list(_fit(estimate)),
        list(_stages(estimate)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _phases(estimate: Estimate) -> Iterable[str]:
    rows = [
        [name, f"{phase.seconds:.4g} s", f"{phase.cycles:,} cycles", f"{phase.bytes / 1e9:,.4g} GB"]
        for name, phase in estimate.phases.items()
    ]
    if estimate.tokens_per_second:
        rows.append(["", f"{estimate.tokens_per_second:,.1f} tokens/s"])
        if estimate.energy_per_token_j:
            rows[-1].append(f"{estimate.energy_per_token_j:.3g} J a token")
    yield from columns(rows)
    power = "power not known" if estimate.power_w is None else f"{estimate.power_w:.1f} W"
    yield f"{estimate.bandwidth_gbs:,.1f} GB/s, {power}"
    yield f"binds: {estimate.binds}"


def _resources(estimate: Estimate) -> Iterable[str]:
    card = device(estimate.device)
    if card.available is None:
        used = zip(RESOURCES.values(), estimate.resources.counts(), strict=True)
        yield ", ".join(f"{label} {count:,}" for label, count in used) + "; what the card has is not known"
        return
    shares, rows = utilization(estimate.resources, card.available), list[list[str]]()
    for (name, label), used in zip(RESOURCES.items(), estimate.resources.counts(), strict=True):
        cap = card.caps.share(name)
        over = "  over" if shares[name] > cap else ""
        share = f"{shares[name]:.1%} (cap {cap:.0%}){over}" if isfinite(shares[name]) else "none on this part"
        rows.append([label, f"{used:,}", bar(shares[name], cap), share])
    yield from columns(rows)


def _fit(estimate: Estimate) -> Iterable[str]:
    """What exceeds by how much, and what would fit; nothing where it fits."""
    fit = fit_of(estimate)
    if fit:
        return
    yield f"It does not fit the {device(estimate.device).name}:"
    yield from (f"  {reason}." for reason in fit.reasons)
    yield from fit.remedies


def _stages(estimate: Estimate) -> Iterable[str]:
    rows: list[list[str]] = []
    longest = sorted(estimate.stages, key=lambda s: -s.cycles)
    for stage in longest[:_STAGES]:
        share = stage.cycles / max(1, estimate.phases[stage.phase].cycles)
        piped = [loop for loop in stage.loops if loop.ii is not None]
        slowest = max(piped, key=lambda loop: loop.cycles, default=None)
        why = f"{slowest.loop}: II {slowest.ii}, {slowest.reason}" if slowest else ""
        rows.append([stage.phase, stage.name, f"{stage.cycles:,}", f"{share:.1%}", why])
    if rows:
        yield from columns([["phase", "stage", "cycles", "share", "slowest loop"], *rows])
    if len(longest) > _STAGES:
        yield f"and {len(longest) - _STAGES} more"


def bar(share: float, cap: float, width: int = _BAR) -> str:
    """A bar of characters, with a mark where the cap is."""
    filled = min(width, round(min(share, 1.0) * width))
    cells = ["#"] * filled + ["."] * (width - filled)
    cells[min(width - 1, round(cap * width))] = "|"
    return "".join(cells)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows whose cells stand below each other; numbers to the right."""
    count = max(map(len, rows), default=0)
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(count)]
    lines: list[str] = []
    for row in rows:
        cells = (
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=False)
        )
        lines.append("  ".join(cells).rstrip())
    return lines
