"""How every figure looks: palette, marks, type, and its way into the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from medseg.report.sources import Source

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
"""Okabe & Ito's colours, which colour-blind readers can tell apart."""

MARKERS = "osD^vP<X>"
LINES = ("-", "--", "-.", ":")
"""Nine markers and eight colours: 72 runs before a look returns."""

INK = "#222222"

WIDTH = 7.2
"""Of a figure, inches."""

LONGEST_LABEL = 24
FEW_TICKS, MANY_TICKS = 4, 200
"""Ratio of an axis' ends below which 1, 2, 5 are too few, and above which they are too many."""

MOST_RUNS = 8
"""In one figure, as many as there are colours."""

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#444444",
    "axes.labelcolor": "#222222",
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "svg.hashsalt": "medseg",
    "svg.fonttype": "path",
}


def dots(place: int) -> dict[str, Any]:
    """Return the look of a run's points: told apart by colour and by shape."""
    return {
        "linestyle": "none",
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": 3.2,
        "markeredgecolor": "none",
        "color": COLOURS[place % len(COLOURS)],
    }


def line(place: int) -> dict[str, Any]:
    """Return the look of a run's curve: the same colour and shape, and a line style."""
    return dots(place) | {"linestyle": LINES[place % len(LINES)], "linewidth": 1.2}


def label(name: str, longest: int = LONGEST_LABEL) -> str:
    """Return a name for a figure: short, on one line, its dollar signs no formula."""
    text = "".join(letter if letter.isprintable() else "?" for letter in name)
    if len(text) > longest:
        text = f"…{text[1 - longest :]}"
    return text.replace("$", r"\$")


def grid_place(axes: Axes) -> SubplotSpec:
    """Return the place of a panel in its figure's grid."""
    place = axes.get_subplotspec()
    if place is None:
        raise ValueError("the panel stands in no grid")
    return place


def guide_lines(axes: Axes) -> None:
    """Draw faint horizontal lines behind the marks."""
    axes.grid(axis="y", color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)


def legend(
    figure: Figure, places: Sequence[int], names: Sequence[str], marked: bool = True
) -> None:
    """Name the runs below a figure that shows several on one axis."""
    if len(names) < 2:
        return
    plain = {} if marked else {"marker": "none"}
    handles = [mpl.lines.Line2D([], [], **line(place) | plain) for place in places]
    shown = [label(name) for name in names]
    columns = max(1, min(len(shown), 100 // (6 + max(map(len, shown)))))
    figure.legend(handles, shown, loc="outside lower center", ncols=columns)


def dice_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return limits of a Dice axis that hold every value and waste little below the lowest."""
    lowest = min((value for value in values if not math.isnan(value)), default=0.0)
    return max(math.floor(10 * lowest - 0.5) / 10, 0.0) - 0.03, 1.03


def plain_ticks(axis: Axis) -> None:
    """Write 0.2, 0.5, 1 on a logarithmic axis, not powers of ten."""
    low, high = axis.get_view_interval()
    if high / low < FEW_TICKS:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(
            LogLocator(subs=(1.0, 2.0, 5.0) if high / low < MANY_TICKS else (1.0,))
        )
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def shown_together(sources: Sequence[Source]) -> Sequence[Source]:
    """Return the runs with scores that are drawn in one figure: the first ones."""
    return [source for source in sources if source.case_ids][:MOST_RUNS]


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of the report."""
    with mpl.rc_context(_STYLE):
        yield


def image(figure: Figure) -> str:
    """Return a figure as a data URI; an image may hold its own styles under any policy."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()
