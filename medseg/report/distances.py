"""The figure of distances: the share of structures within each HD95."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.report.figures import class_panels
from medseg.report.sources import Source
from medseg.report.style import grid_place, image, label, legend, line, shown_together, styled


def distances(sources: Sequence[Source]) -> str | None:
    """Draw the share of structures within each HD95; None where no distance is known."""
    shown = shown_together(sources)
    values = {(s.name, name): _distances(s, name) for s in shown for name in s.class_names}
    finite = [d for column in values.values() for d in column if math.isfinite(d)]
    if not finite:
        return None
    with styled():
        figure, panels = class_panels(shown, height=2.1)
        for axes, class_name in panels:
            axes.set(xlim=(0, 1.05 * max(finite)), ylim=(0, 103))
            for source in shown:
                column = values.get((source.name, class_name), np.empty(0))
                look = line(sources.index(source)) | {"marker": "none"}
                share = 100 * np.arange(len(column) + 1) / max(len(column), 1)
                ends = np.concatenate([[0.0], column, [2 * max(finite)]])
                axes.step(ends, [*share, share[-1]], where="post", **look)
            counts = {len(column) for (_, name), column in values.items() if name == class_name}
            axes.set(xlabel="HD95, mm", title=f"{label(class_name)}, n = {_ends(counts)}")
            if grid_place(axes).is_first_col():
                axes.set_ylabel("structures within, %")
        places = [sources.index(source) for source in shown]
        legend(figure, places, [source.name for source in shown], marked=False)
        return image(figure)


def _distances(source: Source, class_name: str) -> NDArray[np.float64]:
    """Return the HD95 of the structures that have one, in order, infinite ones last."""
    values = np.array([source.value(c, class_name, "hd95_mm") for c in source.case_ids])
    return np.sort(values[~np.isnan(values)])


def _ends(counts: Collection[int]) -> str:
    lowest, highest = min(counts), max(counts)
    return str(lowest) if lowest == highest else f"{lowest} to {highest}"
