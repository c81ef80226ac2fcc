"""The costs of norms as one self-contained page: a chart and a table for each group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from medseg.report.style import COLOURS
from medseg.report.templating import asset, environment, still_page
from medseg.study.costs_timing import Cost

MEASURES = ("training step", "inference", "inference, folded")
LABEL, WIDTH, BAR, GAP, TOP = 110, 520, 9, 9, 22
"""Of a chart, in its own units: room for names, room for bars, a bar, between norms, above."""


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        y: Its upper edge.
        width: Its length.
        colour: Of its measure.
        text: The number beside it.
    """

    y: float
    width: float
    colour: str
    text: str


@dataclass(frozen=True)
class Chart:
    """All bars of one group.

    Attributes:
        title: Size, precision and memory format.
        rows: Of the table.
        names: Norms with the height of their names.
        bars: The bars.
        ticks: Ratios with their places.
        height: Of the chart; 0 where nothing could be measured.
    """

    title: str
    rows: Sequence[Cost]
    names: Sequence[tuple[str, float]]
    bars: Sequence[Bar]
    ticks: Sequence[tuple[str, float]]
    height: float


def render(rows: Sequence[Cost], device: str, settings: str, rounds: int) -> str:
    """Return the page."""
    groups = itertools.groupby(rows, lambda row: row.group)
    style = asset("style.css") + "\n" + asset("costs.css", "medseg.study")
    return still_page(
        environment("medseg.study"),
        "costs.html",
        style,
        charts=[_chart(list(group)) for _, group in groups],
        facts=[("Device", device), ("Step", settings), ("Rounds", str(rounds))],
        legend=list(zip(MEASURES, COLOURS, strict=False)),
        left=LABEL,
        top=TOP,
        bar=BAR,
        width=LABEL + WIDTH + 50,
        on_gpu=not device.startswith("cpu"),
    )


def _chart(rows: Sequence[Cost]) -> Chart:
    channels, precision, order = rows[0].group
    measured = [row for row in rows if not row.reason]
    ratios = [_ratios(row) for row in measured]
    # The line of 1 is always in sight, and so is all of the longest bar.
    longest = max(itertools.chain([1.0], *ratios))
    names, bars = [], []
    block = len(MEASURES) * BAR + GAP
    for place, (row, values) in enumerate(zip(measured, ratios, strict=True)):
        y = TOP + place * block
        names.append((row.norm, y + len(MEASURES) * BAR / 2))
        bars += [
            Bar(y + number * BAR, round(WIDTH * ratio / longest, 1), colour, f"{ratio:.2f}")
            for number, (ratio, colour) in enumerate(zip(values, COLOURS, strict=False))
        ]
    step = 0.5 if longest < 4 else max(1, int(longest) // 4)
    marks = (number * step for number in range(int(longest / step) + 1))
    ticks = [(f"{mark:g}", round(LABEL + WIDTH * mark / longest, 1)) for mark in marks]
    title = f"Channels {', '.join(map(str, channels))}; {precision}; {order.replace('_', ' ')}"
    return Chart(title, rows, names, bars, ticks, TOP + block * len(measured) if measured else 0)


def _ratios(row: Cost) -> tuple[float, ...]:
    return tuple(ratio or 0.0 for ratio in (row.step_ratio, row.inference_ratio, row.folded_ratio))
