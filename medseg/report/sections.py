"""What the page says, as plain values: rows of tables, sentences."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.core.metrics import METRIC_VERSION
from medseg.core.statistics import BOOTSTRAP_FROM, Summary, mean_interval, summarize
from medseg.report.sources import Source

DASH = "–"


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval, as numbers.

    Attributes:
        mean: The mean.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Cases in it.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return DASH
        if math.isnan(self.low):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def foreground_dice(source: Source) -> Estimate:
    """Return the mean over classes of the means over cases; its interval is over cases."""
    per_class = [class_summary(source, name, "dice").mean for name in source.class_names]
    known = [mean for mean in per_class if not math.isnan(mean)]
    cases = np.array([source.case_dice(case_id) for case_id in source.case_ids])
    cases = cases[~np.isnan(cases)]
    interval = mean_interval(cases, seed=zlib.crc32(b"foreground"))
    mean = float(np.mean(known)) if known else math.nan
    return Estimate(mean, interval.low, interval.high, len(cases))


def class_summary(source: Source, class_name: str, metric: str) -> Summary:
    """Summarize one metric of one class over the cases that did not train the network."""
    values = [source.value(case_id, class_name, metric) for case_id in source.case_ids]
    statuses = [source.status(case_id, class_name) for case_id in source.case_ids]
    # No penalty is shown, so none is needed: infinities stay infinite.
    return summarize(values, statuses, math.inf, seed=zlib.crc32(f"{class_name}/{metric}".encode()))


def run_rows(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Return the main table: a row a run."""
    return [
        {
            "run": source.name,
            "norm": source.norm,
            "dice": str(foreground_dice(source)),
            "cases": str(len(source.case_ids)),
            "seconds": _number(source.fit.get("seconds"), 0),
            "steps": _number(source.fit.get("steps"), 0),
            "batch": _number(source.fit.get("batch_size"), 0),
            "parameters": _number(source.fit.get("parameters"), 0),
            "memory": _number(source.fit.get("peak_memory_mib"), 0),
        }
        for source in sources
    ]


def class_rows(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Return the table of classes: a row a class and run."""
    rows = []
    for class_name in dict.fromkeys(name for source in sources for name in source.class_names):
        for source in sources:
            if class_name not in source.class_names:
                continue
            dice, hd95, assd, nsd, volume = (
                class_summary(source, class_name, metric)
                for metric in ("dice", "hd95_mm", "assd_mm", "nsd", "volume_difference_ml")
            )
            rows.append(
                {
                    "class": class_name,
                    "run": source.name,
                    "dice": str(Estimate(dice.mean, dice.ci_low, dice.ci_high, dice.n)),
                    "n": str(dice.n),
                    "missed": str(dice.n_missed),
                    "invented": str(dice.n_invented),
                    "hd95": _number(hd95.median, 2),
                    "assd": _number(assd.median, 2),
                    "nsd": _number(nsd.mean, 3),
                    "volume": _number(volume.mean, 3, signed=True),
                }
            )
    return rows


def case_rows(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return the table of cases: a row a case, class and run."""
    return [
        {
            "case": case_id,
            "class": name,
            "run": source.name,
            "status": source.status(case_id, name).replace("fp_only", "invented"),
            "dice": _number(source.value(case_id, name, "dice"), 3),
            "hd95": _number(source.value(case_id, name, "hd95_mm"), 2),
            "nsd": _number(source.value(case_id, name, "nsd"), 3),
            "volume": _number(source.value(case_id, name, "volume_ref_ml"), 3),
            "difference": _number(
                source.value(case_id, name, "volume_difference_ml"), 3, signed=True
            ),
        }
        for source in sources
        for case_id in source.case_ids
        for name in source.class_names
    ]


def data_set(sources: Sequence[Source]) -> str:
    """Return the name of the data set, or nothing."""
    return _shared([source.fit.get("data_set") for source in sources])


def provenance_rows(sources: Sequence[Source]) -> list[tuple[str, str]]:
    """Return what all runs share, and what differs, in words."""
    fields = {
        "manifest": "Manifest",
        "data_digest": "Digest of cases, folds and labels",
        "fold": "Validated fold",
        "train_folds": "Trained folds",
        "train_cases": "Training cases",
        "seed": "Seed",
        "precision": "Precision",
        "device": "Device",
        "threads": "Threads",
        "platform": "Platform",
        "git_commit": "medseg commit",
        "finished": "Finished",
    }
    rows = [(label, _shared([source.fit.get(key) for source in sources]))
            for key, label in fields.items()]  # fmt: skip
    versions = _shared([_versions(source.fit.get("versions")) for source in sources])
    checkpoints = _shared([_checkpoints(source) for source in sources])
    tolerance = _shared([source.summary.get("tolerance_mm") for source in sources])
    rows += [("Checkpoint", checkpoints), ("Versions", versions), ("NSD tolerance, mm", tolerance)]
    rows.append(("Metric definitions", METRIC_VERSION))
    return [(label, text) for label, text in rows if text]


def flow_rows(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Return how many cases went where: a row a run."""
    rows = []
    for source in sources:
        flow = source.summary.get("cases", {})
        failed = flow.get("failed", {})
        rows.append(
            {
                "run": source.name,
                "given": str(flow.get("given", len(source.case_ids) + source.trained)),
                "failed": str(len(failed)),
                "trained": str(source.trained),
                "scored": str(len(source.case_ids)),
                "reasons": "; ".join(f"{case_id}: {reason}" for case_id, reason in failed.items()),
            }
        )
    return rows


def conclusions(sources: Sequence[Source]) -> list[str]:
    """Say what the figures allow to be said, and what they do not."""
    scored = [source for source in sources if source.case_ids]
    said = []
    if len(scored) > 1:
        seeds = {source.fit.get("seed") for source in scored}
        said.append(
            "Descriptive only: "
            + ("each variant was trained once, with one seed" if len(seeds) == 1 else
               f"{len(seeds)} seeds over {len(scored)} runs")
            + ", and runs are not compared case by case here. Overlapping intervals are not a "
            "test, and neither are intervals that do not overlap."
        )  # fmt: skip
    fewest = min((len(source.case_ids) for source in scored), default=0)
    if scored and fewest < BOOTSTRAP_FROM:
        said.append(f"With {fewest} cases the intervals (Student's t) are wide and assume that no "
                    "structure is lost altogether.")  # fmt: skip
    lost = sum(
        source.status(case_id, name) in ("missed", "fp_only")
        for source in scored
        for case_id in source.case_ids
        for name in source.class_names
    )
    if lost:
        said.append(f"{lost} structure(s) were missed or invented; each counts as Dice 0 in the "
                    "means and as an infinite distance in the medians.")  # fmt: skip
    if any(source.summary.get("chosen_on_scored_cases") for source in sources):
        said.append("Some figures come from a checkpoint chosen on the very cases that are scored "
                    "(best), which flatters it; --checkpoint last does not.")  # fmt: skip
    return said


def _shared(values: Sequence[Any]) -> str:
    known = dict.fromkeys(str(value) for value in values if value not in (None, "", []))
    return " · ".join(known)


def _versions(versions: Any) -> str:
    if not isinstance(versions, dict):
        return ""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _checkpoints(source: Source) -> str:
    names = dict.fromkeys(
        str(r["checkpoint"]) for r in source.journal.values() if "checkpoint" in r
    )
    return ", ".join(names)


def _number(value: Any, digits: int, signed: bool = False) -> str:
    if not isinstance(value, int | float) or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞"
    return f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
