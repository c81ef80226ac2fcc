"""The flags of `medseg compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medseg.core.endpoints import DIFFERENCE


@dataclass(frozen=True)
class CompareOptions:
    """Options of `medseg compare`.

    Attributes:
        scores: Two or more score files (scores.csv of `medseg evaluate`), or run directories.
        output: Folder of comparison.html, comparison.csv and comparison.json.
        variants: The variant each file belongs to, in the order of --scores; files of one name are
            seeds of it. Without it each file is a variant, named after its run directory.
        metrics: Metrics to compare; a verdict is given on the mean foreground Dice alone.
        difference: Mean difference of Dice worth seeing; the verdict says how many cases that
            needs.
        unit: What is independent: cases of one group (a patient) together, or each case.
    """

    scores: tuple[Path, ...]
    output: Path
    variants: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("dice", "hd95_mm", "nsd")
    difference: float = DIFFERENCE
    unit: Literal["group", "case"] = "group"
