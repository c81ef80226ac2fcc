"""The tables of an evaluation: scores.csv for programs, cases.csv for people, one on screen."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

from medseg.core.runs import Score, atomic_text, csv_cell
from medseg.core.statistics import Summary
from medseg.evaluation.result import Evaluation
from medseg.evaluation.scoring import CaseScores

_CASE_COLUMNS = (
    "case_id", "group", "role", "spacing_mm", "class_name", "value", "status", "n_ref", "n_pred",
)  # fmt: skip
_LESION_COLUMNS = ("lesions_ref", "lesions_pred", "lesions_matched")


def score_rows(evaluation: Evaluation) -> Iterator[Score]:
    """Yield the rows of scores.csv: every case, class and metric."""
    for case in evaluation.scored:
        for name in evaluation.members:
            for metric, number in evaluation.score(case, name).values.items():
                yield Score(case.pair.case_id, case.pair.group, name, metric, number)


def write_cases(path: Path, evaluation: Evaluation) -> None:
    """Write cases.csv: a row for each case and class or region."""
    metrics = [*dict.fromkeys(m for of in evaluation.summaries.values() for m in of)]
    lesions = _LESION_COLUMNS if evaluation.options.lesions else ()
    with atomic_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_CASE_COLUMNS, *metrics, *lesions])
        for case in evaluation.scored:
            for name in evaluation.members:
                score = evaluation.score(case, name)
                numbers = [score.values.get(metric) for metric in metrics]
                cells = ["" if number is None else repr(float(number)) for number in numbers]
                counts = astuple(score.lesions) if score.lesions else ("",) * len(lesions)
                writer.writerow([*_case_cells(evaluation, case, name), *cells, *counts])


def _case_cells(evaluation: Evaluation, case: CaseScores, class_name: str) -> list[object]:
    pair, score = case.pair, evaluation.score(case, class_name)
    words = (pair.case_id, pair.group, pair.record.role)
    spacing = " x ".join(f"{length:.4g}" for length in case.spacing)
    values = " ".join(map(str, evaluation.members[class_name]))
    counts = (score.status, score.n_ref, score.n_pred)
    return [*map(csv_cell, words), spacing, csv_cell(class_name), values, *counts]


def screen_table(evaluation: Evaluation) -> str:
    """Return the figures of each class as text."""
    tolerances = {evaluation.wanted.tolerance_of(name) for name in evaluation.members}
    tolerance = f"NSD {tolerances.pop():g} mm" if len(tolerances) == 1 else "NSD"
    rows: list[tuple[str, ...]] = [
        ("class", "Dice mean [95% CI]", "n", "missed", "invented", "HD95 mm", tolerance)
    ]
    for name, summaries in evaluation.summaries.items():
        rows.append(_screen_row(name, summaries["dice"], summaries["hd95_mm"], summaries["nsd"]))
    if len(evaluation.class_values) > 1:
        dice, hd95, nsd = map(evaluation.foreground_mean, ("dice", "hd95_mm", "nsd"))
        numbers = _number(dice, 3), "", "", "", _number(hd95, 2), _number(nsd, 3)
        rows.append(("mean of classes", *numbers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    )


def _screen_row(name: str, dice: Summary, hd95: Summary, nsd: Summary) -> tuple[str, ...]:
    interval = f"[{_number(dice.ci_low, 3)}, {_number(dice.ci_high, 3)}]"
    return (
        name,
        f"{_number(dice.mean, 3)} {interval}",
        str(dice.n),
        str(dice.n_missed),
        str(dice.n_invented),
        _number(hd95.mean, 2),
        _number(nsd.mean, 3),
    )


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if not math.isnan(value) else "-"
