"""docs/devices.md from the database of devices: ``python tests/device_page.py`` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from flexllm_allo.estimate.power import TOLERANCE, Anchor, anchors, fitted_static_w, power, power_families
from flexllm_allo.hardware.devices import (
    CLOCKS,
    EFFICIENCY,
    FOREIGN_CHANNEL,
    RESOURCES,
    Caps,
    Device,
    Resources,
    devices,
)
from flexllm_allo.hardware.gpus import gpus
from flexllm_allo.hardware.packing import dsp_family

PAGE = Path(__file__).parents[1] / "docs" / "devices.md"

HEAD = """# Devices

What estimates rest on: cards, memories, DSPs, power, and the GPUs that designs are compared with. The data
are in `flexllm_allo/hardware/*.toml` and `flexllm_allo/estimate/power.toml`, every figure with its source:
*published* (a document of the vendor or a paper), *code* (read in a project's source), *derived* (computed
from others), *secondary* (notes of third parties), *recalled* (not verified). This page is made from them
(`python tests/device_page.py`).
"""

LIMITS = """## Limits

A design that needs more than these shares of what the shell leaves is refused
(`estimate.limits.check_fits`): it would probably not route. The refusal names what exceeds and by how much,
and, where it is given a function that evaluates other settings, the nearest one that fits. Inside one SLR
everything may be used, for the caps are averages over the device.
"""

POWER = """## Power

`P = static + f (dsp DSP + lut LUT + bram (BRAM18 + 2 URAM)) + memory bandwidth` (`estimate.power`). The
picojoules are those of the technology, at mean activity; `static` is fitted once for a class of cards to
the board readings whose resources and bandwidth are known, never to a design. Those are met within
{tolerance:.0%}; FlightLLM and GLITCHES are one design, so they are one independent point. Of the other
readings the resources are not known: they can only be held between the model without fabric and the model
with all of it.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def cards() -> str:
    """Resources and memories of the cards that designs are estimated for, and the sources."""
    known = [card for card in devices() if card.available]
    head = ["card", *RESOURCES.values(), "DSP family", "SLRs", "memory", "max W"]
    rows = [[_name(c), *_counts(c), c.dsp_family, c.slrs, _memory(c), c.max_w or "-"] for c in known]
    sources = [[c.key, what, source] for c in known for what, source in c.sources.items()]
    return (
        "## Cards\n\nWhat a design may draw on: behind the shell, where that is known.\n\n"
        + table(head, rows)
        + "\nWhere the figures are from:\n\n"
        + table(["card", "figures", "source"], sources)
    )


def limits() -> str:
    """Caps and clocks."""
    caps = table(list(RESOURCES.values()), [[f"{Caps().share(name):.0%}" for name in RESOURCES]])
    clocks = table(
        ["fullest resource below", "MHz"],
        [[f"{share:.0%}", f"{mhz:g}"] for share, mhz in CLOCKS],
    )
    clock = "The clock to expect of a floorplanned design; without a floorplan at most the second:"
    return f"{LIMITS}\n{caps}\n{clock}\n\n{clocks}"


def memories() -> str:
    """The efficiency of memories."""
    rows = [[kind, f"{share:.2f}"] for kind, share in EFFICIENCY.items()]
    rows.append(["HBM, the channel of another port", f"{FOREIGN_CHANNEL:.2f}"])
    text = "What long bursts get of the peak, the same for every design:"
    return f"## Memory\n\n{text}\n\n{table(['memory', 'achieved / peak'], rows)}"


def packing() -> str:
    """Multiply-accumulates of a DSP."""
    rows = [
        [name, f"{p.weight} x {p.activation}", p.per_dsp, p.accumulations or "-", p.source]
        for name in ("DSP48E2", "DSP58")
        for p in dsp_family(name).packings
    ]
    head = ["DSP", "bits", "multiply-accumulates a cycle", "accumulations of a lane", "source"]
    return f"## Multipliers\n\n{table(head, rows)}"


def energy() -> str:
    """The power model and what it says of the anchors."""
    families = [
        [name, "-" if (fit := fitted_static_w(name)) is None else f"{fit:.1f}", source]
        for name, source in power_families().items()
    ]
    rows = [_anchor_row(a) for a in anchors()]
    head = ["reading", "card", "basis", "W", "estimated W", "without fabric", "with all of it", "source"]
    return (
        f"{POWER.format(tolerance=TOLERANCE)}\n"
        + table(["class of cards", "fitted static W", "source"], families)
        + "\n"
        + table(head, rows)
    )


def baselines() -> str:
    """GPUs and the reported rows."""
    peaks = [[g.name, g.gb_per_s, g.bf16_tflops, g.int8_tops, f"{g.power_w:g}", g.source] for g in gpus()]
    rows = [
        [g.name, r.model, r.format, r.kind, r.tokens_per_second, r.source] for g in gpus() for r in g.rows
    ]
    return (
        "## GPUs\n\nThe roofline is computed (`Gpu.roofline_tokens_per_second`); eager frameworks and "
        "captured graphs (vLLM) are kept apart.\n\n"
        + table(["GPU", "GB/s", "BF16 TFLOPS", "INT8 TOPS", "W", "source"], peaks)
        + "\n"
        + table(["GPU", "model", "format", "framework", "tokens/s", "source"], rows)
    )


def page() -> str:
    """docs/devices.md."""
    return "\n".join([HEAD, cards(), limits(), memories(), packing(), energy(), baselines()])


def _name(card: Device) -> str:
    return f"{card.name} (`{card.key}`)"


def _counts(card: Device) -> list[str]:
    assert card.available
    return [f"{count:,}" for count in card.available.counts()]


def _memory(card: Device) -> str:
    return ", ".join(f"{m.kind} {m.channels} x {m.channel_gb_per_s:g} GB/s" for m in card.memories)


def _anchor_row(anchor: Anchor) -> list[str]:
    card, none = anchor.card, Resources(lut=0, ff=0, dsp=0, bram18=0, uram=0)
    assert card.available
    floor, ceiling = (power(card, r, anchor.mhz, anchor.gb_per_s).total_w for r in (none, card.available))
    known = anchor.resources and power(card, anchor.resources, anchor.mhz, anchor.gb_per_s).total_w
    return [
        anchor.name,
        anchor.device,
        anchor.basis,
        f"{anchor.watts:g}",
        f"{known:.1f}" if known else "-",
        f"{floor:.1f}",
        f"{ceiling:.1f}",
        anchor.source,
    ]


if __name__ == "__main__":
    PAGE.write_text(page())
