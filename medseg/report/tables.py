"""The tables of the page, as text: runs, classes, cases, definitions."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.core.metrics import METRIC_VERSION, METRICS, Status
from medseg.core.statistics import Summary, mean_interval, summarize, wilson_interval
from medseg.report.sources import Source

DASH = "–"
MINUS = "−"
SHOWN_METRICS = ("dice", "hd95_mm", "assd_mm", "nsd")


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval, as numbers.

    Attributes:
        mean: The mean.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return DASH
        if math.isnan(self.low):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def foreground_dice(source: Source) -> Estimate:
    """Return the mean over classes of the means over cases; its interval is over cases.

    A case enters by what it adds to that mean (its linearization): its own mean over classes if
    every class was there in every case, and more for a class that few cases have.
    """
    table = np.array(
        [[source.value(c, name, "dice") for name in source.plain_classes] for c in source.case_ids]
    ).reshape(len(source.case_ids), len(source.plain_classes))
    table = table[~np.isnan(table).all(axis=1)]
    table = table[:, ~np.isnan(table).all(axis=0)]
    if not table.size:
        return Estimate(math.nan, math.nan, math.nan)
    means = np.nanmean(table, axis=0)
    weights = len(table) / (~np.isnan(table)).sum(axis=0)
    added = means.mean() + np.nan_to_num((table - means) * weights).mean(axis=1)
    seed = zlib.crc32(b"foreground")
    interval = mean_interval(added, seed).within(*METRICS["dice"].limits)
    return Estimate(float(means.mean()), interval.low, interval.high)


def class_summary(source: Source, class_name: str, metric: str) -> Summary:
    """Summarize one metric of one class over the cases that did not train the network."""
    values = [source.value(case_id, class_name, metric) for case_id in source.case_ids]
    known = (source.status(case_id, class_name) for case_id in source.case_ids)
    statuses: list[Status] = [status for status in known if status != "unknown"]
    # No penalty is shown, so none is needed: infinities stay infinite.
    seed = zlib.crc32(f"{class_name}/{metric}".encode())
    return summarize(values, statuses, math.inf, seed, METRICS[metric].limits)


def run_rows(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Return the main table: a row a run."""
    return [_run_row(source) for source in sources]


def _run_row(source: Source) -> dict[str, str]:
    lost = [status for _, _, status in source.lost()]
    return {
        "run": source.name,
        "norm": source.norm,
        "dice": str(foreground_dice(source)),
        "cases": str(len(source.case_ids)),
        "missed": str(lost.count("missed")) if source.scores else DASH,
        "invented": str(lost.count("fp_only")) if source.scores else DASH,
    }


def class_groups(sources: Sequence[Source]) -> list[tuple[str, list[dict[str, str]]]]:
    """Return the table of classes: for each class a row a run."""
    names = dict.fromkeys(name for source in sources for name in source.class_names)
    return [
        (name, [_class_row(source, name) for source in sources if name in source.class_names])
        for name in names
    ]


def _class_row(source: Source, name: str) -> dict[str, str]:
    dice, hd95, assd, nsd = (class_summary(source, name, metric) for metric in SHOWN_METRICS)
    statuses = [source.status(case_id, name) for case_id in source.case_ids]
    there = statuses.count("present") + statuses.count("missed")
    known = "unknown" not in statuses
    return {
        "run": source.name,
        "dice": str(Estimate(dice.mean, dice.ci_low, dice.ci_high)),
        "median": spread(dice.median, dice.q1, dice.q3, 3),
        "n": str(dice.n),
        "missed": _rate(dice.n_missed, there) if known else DASH,
        "invented": _rate(dice.n_invented, len(statuses) - there) if known else DASH,
        "hd95": number(hd95.median, 2),
        "assd": number(assd.median, 2),
        "nsd": number(nsd.mean, 3),
    }


def _rate(count: int, of: int) -> str:
    """Return a count with the interval of its rate in percent."""
    if not of:
        return DASH
    interval = wilson_interval(count, of)
    return f"{count} of {of} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def case_rows(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return the table of cases: a row a case, class and run."""
    return [
        {
            "case": case_id,
            "group": source.groups.get(case_id, ""),
            "class": name,
            "run": source.name,
            "status": source.status(case_id, name).replace("fp_only", "invented"),
            "dice": number(source.value(case_id, name, "dice"), 3),
            "hd95": number(source.value(case_id, name, "hd95_mm"), 2),
            "nsd": number(source.value(case_id, name, "nsd"), 3),
            "volume": number(source.value(case_id, name, "volume_ref_ml"), 3),
            "difference": number(
                source.value(case_id, name, "volume_difference_ml"), 3, signed=True
            ),
        }
        for source in sources
        for case_id in source.case_ids
        for name in source.class_names
    ]


def definitions(sources: Sequence[Source]) -> list[tuple[str, str]]:
    """Return name and definition of each metric on the page, as the scores were made."""
    ours = {name: metric.definition for name, metric in METRICS.items()}
    rows: dict[tuple[str, str], None] = {}
    for source in sources:
        if not source.scores:
            continue
        theirs = source.summary.get("definitions")
        words = ours | theirs if isinstance(theirs, dict) else ours
        for name in known_metrics([source]):
            rows[metric_label(name), str(words[name])] = None
    return list(rows)


def definition_note(sources: Sequence[Source]) -> str:
    """Say whose definitions these are."""
    if all(source.summary.get("metric_version") for source in sources if source.scores):
        return ""
    return (
        f"Some scores do not say by which definitions they were made; those of this version "
        f"({METRIC_VERSION}) are printed."
    )


def known_metrics(sources: Sequence[Source]) -> list[str]:
    """Return the metrics that any run was scored with, in the order of tables."""
    there = {score.metric for source in sources for score in source.scores}
    return [name for name in METRICS if name in there]


def metric_label(name: str) -> str:
    """Return a metric's name for people, with its unit."""
    metric = METRICS[name]
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def spread(middle: float, low: float, high: float, digits: int) -> str:
    """Return a middle with two ends in brackets, a dash if it is not known."""
    if math.isnan(middle):
        return DASH
    ends = f" [{number(low, digits)}, {number(high, digits)}]" if not math.isnan(low) else ""
    return number(middle, digits) + ends


def number(value: Any, digits: int, signed: bool = False) -> str:
    """Return a number for a table: a dash if unknown, ∞ if infinite, a true minus sign."""
    if not isinstance(value, int | float) or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    return text.replace("-", MINUS)
