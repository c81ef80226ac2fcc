"""The flags of `medseg report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportOptions:
    """Options of `medseg report`.

    Attributes:
        runs: Run directories, or score files (scores.csv of `medseg evaluate`).
        output: The HTML file; self-contained, needs no network.
        worst: Cases shown as pictures for each run; missed and invented structures come on top.
    """

    runs: tuple[Path, ...]
    output: Path = Path("report.html")
    worst: int = 3
