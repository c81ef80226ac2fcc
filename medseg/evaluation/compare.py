"""`medseg compare`: score files to a paired comparison, its page and its verdict."""

from __future__ import annotations

import csv
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from medseg.core.comparison import Comparison, compare_variants
from medseg.core.pairs import Pair
from medseg.core.runs import atomic_text, csv_cell, write_json
from medseg.evaluation.compare_options import CompareOptions
from medseg.evaluation.contestants import read_contestants
from medseg.report.comparison import ScoredFile, page
from medseg.report.contestants import Contestant, design_of, notes_on

SCHEMA = "medseg-comparison-1"

log = logging.getLogger("medseg")


def compare(options: CompareOptions) -> int:
    """Compare variants; write comparison.html, comparison.csv and comparison.json.

    The verdict goes to standard output, everything else to the log.

    Raises:
        OptionError: If the score files cannot be compared, or the output cannot be written.
    """
    contestants = read_contestants(options)
    by_group = options.unit == "group"
    design = design_of(contestants, options.metrics, options.difference, by_group)
    notes = notes_on(contestants, design, options.metrics)
    comparison = compare_variants(design, tuple(notes))
    files = [_scored_file(contestant, comparison) for contestant in contestants]
    write_pairs(options.output / "comparison.csv", (*comparison.primary, *comparison.descriptive))
    write_json(options.output / "comparison.json", _content(comparison, files))
    with atomic_text(options.output / "comparison.html") as file:
        file.write(page(comparison, files))
    for note in comparison.notes:
        log.warning("%s", note)
    sys.stdout.write("\n".join(comparison.verdicts) + "\n")
    log.info(
        "%d cases, %d variants: %s, comparison.csv, comparison.json",
        comparison.n_cases, len(comparison.levels), options.output / "comparison.html",
    )  # fmt: skip
    return 0


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write comparison.csv: a row for each pair of variants and endpoint."""
    names = [field.name for field in fields(Pair)]
    with atomic_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for pair in pairs:
            writer.writerow([_cell(getattr(pair, name)) for name in names])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return csv_cell(value) if isinstance(value, str) else repr(value)


def _content(comparison: Comparison, files: Sequence[ScoredFile]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "verdicts": comparison.verdicts,
        "files": [asdict(file) for file in files],
        **asdict(comparison),
    }


def _scored_file(contestant: Contestant, comparison: Comparison) -> ScoredFile:
    source = contestant.source
    tested = len(source.case_ids)
    return ScoredFile(
        variant=contestant.variant,
        path=str(source.path),
        scored=tested + source.trained,
        trained=source.trained,
        unmatched=tested - comparison.n_cases,
    )
