"""The summary of a study: each run with the score it is chosen by and the scores it reports."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.runs import atomic_text, csv_cell
from medseg.report.sources import read_source
from medseg.report.tables import Estimate, foreground_dice
from medseg.study.planned import Planned

FILE = "cells.csv"
COLUMNS = (
    "run", "status", "choosing_fold", "choosing_dice", "reporting_fold", "reporting_dice",
    "ci_low", "ci_high", "cases", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One run in the summary.

    Attributes:
        entry: The run.
        choosing: Dice of the last validation of its training, whose weights are scored.
        reporting: Mean foreground Dice with its interval, on the fold that is reported.
        cases: Cases of that fold that were scored.
    """

    entry: Planned
    choosing: float
    reporting: Estimate
    cases: int

    @property
    def row(self) -> tuple[object, ...]:
        """Its line of the summary."""
        entry, dice = self.entry, self.reporting
        status = "scored" if entry.state == "scored" else entry.why_not
        chosen = (entry.fold, self.choosing, entry.reported)
        numbers = (dice.mean, dice.low, dice.high, self.cases, entry.fitted.get("seconds", ""))
        return (entry.run.name, status, *chosen, *numbers)


def cell_of(entry: Planned) -> Cell:
    """Read the scores of a run; NaN where there are none."""
    if entry.state != "scored":
        return Cell(entry, math.nan, Estimate(math.nan, math.nan, math.nan), 0)
    source = read_source(entry.files.run_dir)
    validated = [row["val/dice"] for row in source.curves if "val/dice" in row]
    choosing = validated[-1] if validated else math.nan
    return Cell(entry, choosing, foreground_dice(source), len(source.case_ids))


def write_cells(cells: Sequence[Cell], output: Path) -> None:
    """Write the summary, whole or not at all."""
    with atomic_text(output / FILE) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for cell in cells:
            name, *rest = cell.row
            writer.writerow([csv_cell(str(name)), *rest])


def cell_rows(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """Return the table of the page, of the runs whose folds have roles."""
    return [
        (cell.entry.run.name, f"{cell.choosing:.3f}", str(cell.reporting), str(cell.cases))
        for cell in cells
        if cell.entry.run.reported is not None and cell.entry.state == "scored"
    ]
