"""Every metric of every class and run: numbers for CSV, text for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from medseg.core.statistics import Summary
from medseg.report.sources import Source
from medseg.report.tables import class_summary, known_metrics, metric_label, number, spread

DIGITS = 3


@dataclass(frozen=True)
class MetricRow:
    """One metric of one class in one run.

    Attributes:
        class_name: The class.
        metric: Its name in score files.
        run: The run.
        summary: Mean, interval, quartiles and counts.
        lowest: Smallest value.
        highest: Largest value, infinite where a structure was lost.
    """

    class_name: str
    metric: str
    run: str
    summary: Summary
    lowest: float
    highest: float


def metric_rows(sources: Sequence[Source]) -> list[MetricRow]:
    """Return a row for each class, metric and run that was scored."""
    classes = dict.fromkeys(name for source in sources for name in source.class_names)
    return [
        _row(source, name, metric)
        for name in classes
        for metric in known_metrics(sources)
        for source in sources
        if name in source.class_names and metric in known_metrics([source])
    ]


def _row(source: Source, name: str, metric: str) -> MetricRow:
    values = [source.value(case_id, name, metric) for case_id in source.case_ids]
    known = [value for value in values if not math.isnan(value)] or [math.nan]
    summary = class_summary(source, name, metric)
    return MetricRow(name, metric, source.name, summary, min(known), max(known))


def metric_groups(rows: Sequence[MetricRow]) -> list[tuple[str, str, list[dict[str, str]]]]:
    """Return the rows as text, grouped by class and metric."""
    groups = groupby(rows, key=lambda row: (row.class_name, row.metric))
    return [
        (name, metric_label(metric), list(map(_cells, group))) for (name, metric), group in groups
    ]


def _cells(row: MetricRow) -> dict[str, str]:
    summary = row.summary
    return {
        "run": row.run,
        "n": str(summary.n),
        "mean": spread(summary.mean, summary.ci_low, summary.ci_high, DIGITS),
        "sd": number(summary.sd, DIGITS),
        "median": number(summary.median, DIGITS),
        "quartiles": _between(summary.q1, summary.q3),
        "range": _between(row.lowest, row.highest),
    }


def _between(low: float, high: float) -> str:
    return f"{number(low, DIGITS)} to {number(high, DIGITS)}"
