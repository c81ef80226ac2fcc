"""The content of summary.json: our figures, and those of nnU-Net under its own keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from medseg.core.metrics import METRIC_VERSION, METRICS, ClassScore
from medseg.core.statistics import CONFIDENCE, Interval, Summary, wilson_interval
from medseg.evaluation.result import Evaluation
from medseg.evaluation.scoring import CaseScores

SCHEMA = "medseg-summary-1"


def summary_of(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of summary.json; NaN and infinities become null when it is written.

    `metric_per_case`, `mean` and `foreground_mean` are those of nnU-Net v2's summary.json, with
    classes keyed by label value, so that tools that read one read the other.
    """
    options = evaluation.options
    return {
        "schema": SCHEMA,
        "metric_version": METRIC_VERSION,
        "definitions": {name: metric.definition for name, metric in METRICS.items()},
        "tolerance_mm": options.tolerance_mm,
        "grid_tolerance": options.grid_tolerance,
        "confidence": CONFIDENCE,
        "penalty": _penalty(evaluation),
        "cases": _flow(evaluation),
        "chosen_on_scored_cases": evaluation.chosen_on_scored_cases,
        "classes": {name: _class(evaluation, name) for name in evaluation.class_values},
        "foreground": {metric: _foreground(evaluation, metric) for metric in METRICS},
        **_nnunet(evaluation),
    }


def _penalty(evaluation: Evaluation) -> dict[str, Any]:
    diagonals = [case.diagonal_mm for case in evaluation.scored]
    return {
        "name": "diagonal of the case's image",
        "smallest_mm": min(diagonals),
        "largest_mm": max(diagonals),
    }


def _flow(evaluation: Evaluation) -> dict[str, Any]:
    pairing = evaluation.pairing
    return {
        "given": len(evaluation.scored) + len(evaluation.failed),
        "scored": len(evaluation.scored),
        "in_means": len(evaluation.counted),
        "failed": dict(evaluation.failed),
        "training_kept_out_of_means": evaluation.trained,
        "unmatched_predictions": pairing.unmatched_predictions,
        "unmatched_references": pairing.unmatched_references,
        "spacing_above_tolerance": evaluation.coarse,
    }


def _class(evaluation: Evaluation, name: str) -> dict[str, Any]:
    summaries = evaluation.summaries[name]
    counts = summaries["dice"]
    with_structure = sum(
        case.of(evaluation.class_values[name]).n_ref > 0 for case in evaluation.counted
    )
    without = len(evaluation.counted) - with_structure
    return {
        "value": evaluation.class_values[name],
        "missed_rate": _rate(counts.n_missed, with_structure),
        "invented_rate": _rate(counts.n_invented, without),
        "metrics": {metric: _figures(summary, metric) for metric, summary in summaries.items()},
    }


def _figures(summary: Summary, metric: str) -> dict[str, Any]:
    figures = asdict(summary)
    if not METRICS[metric].is_distance:
        del figures["mean_with_penalty"]
    return figures


def _rate(count: int, of: int) -> dict[str, Any]:
    interval: Interval = wilson_interval(count, of)
    rate = count / of if of else None
    return {"rate": rate, "of": of, "ci_low": interval.low, "ci_high": interval.high}


def _foreground(evaluation: Evaluation, metric: str) -> dict[str, Any]:
    means = [summaries[metric].mean for summaries in evaluation.summaries.values()]
    return {
        "mean": evaluation.foreground_mean(metric),
        "n_classes": int(np.count_nonzero(~np.isnan(means))),
    }


def _nnunet(evaluation: Evaluation) -> dict[str, Any]:
    values = list(evaluation.class_values.values())
    rows = [
        {value: _nnunet_metrics(case, case.of(value)) for value in values}
        for case in evaluation.counted
    ]
    mean = {value: _mean_row([row[value] for row in rows]) for value in values}
    return {
        "metric_per_case": [_nnunet_case(case, values) for case in evaluation.scored],
        "mean": mean,
        "foreground_mean": _mean_row(list(mean.values())),
    }


def _nnunet_case(case: CaseScores, values: Sequence[int]) -> dict[str, Any]:
    return {
        "case_id": case.pair.case_id,
        "prediction_file": str(case.pair.prediction),
        "reference_file": str(case.pair.reference),
        "role": case.pair.record.role,
        "metrics": {value: _nnunet_metrics(case, case.of(value)) for value in values},
    }


def _nnunet_metrics(case: CaseScores, score: ClassScore) -> dict[str, float]:
    return {
        "Dice": score.values["dice"],
        "IoU": score.values["iou"],
        "TP": score.n_overlap,
        "FP": score.n_pred - score.n_overlap,
        "FN": score.n_ref - score.n_overlap,
        "TN": case.n_voxels - score.n_ref - score.n_pred + score.n_overlap,
        "n_pred": score.n_pred,
        "n_ref": score.n_ref,
    }


def _mean_row(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each number over rows, NaN left out."""
    columns = {key: np.array([row[key] for row in rows]) for key in (rows[0] if rows else ())}
    known = {key: column[~np.isnan(column)] for key, column in columns.items()}
    return {key: float(c.mean()) if len(c) else float("nan") for key, c in known.items()}
