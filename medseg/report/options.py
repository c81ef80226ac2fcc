"""The flags of `medseg report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Format = Literal["html", "md", "csv", "pdf"]


@dataclass(frozen=True)
class ReportOptions:
    """Options of `medseg report`.

    Attributes:
        runs: Run directories, or score files (scores.csv of `medseg evaluate`).
        output: The HTML file; self-contained, needs no network. Other formats are written beside
            it, with their own endings.
        format: What is written: html is the whole report; md its tables as Markdown; csv every
            metric of every class and run; pdf the report as printed (medseg[pdf]).
        worst: Cases of lowest Dice shown as pictures for each class and run; missed and invented
            structures come on top.
        viewer_cases: Pictured cases, over all runs, that can be opened in the viewer and scrolled
            through; each adds up to 2 MB (medseg[viewer]). 0 leaves the viewer out.
    """

    runs: tuple[Path, ...]
    output: Path = Path("report.html")
    format: tuple[Format, ...] = ("html",)
    worst: int = 3
    viewer_cases: int = 4
