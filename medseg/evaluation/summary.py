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
    classes keyed by label value and regions by their tuple, so that tools that read one read the
    other.
    """
    options = evaluation.options
    return {
        "schema": SCHEMA,
        "metric_version": METRIC_VERSION,
        "definitions": {name: metric.definition for name, metric in METRICS.items()},
        "tolerance_mm": _tolerance(evaluation),
        "lesion_rule": asdict(evaluation.wanted.lesion_rule) if options.lesions else None,
        "empty_dice": options.empty_dice,
        "grid_tolerance": options.grid_tolerance,
        "confidence": CONFIDENCE,
        "penalty": _penalty(evaluation),
        "cases": _flow(evaluation),
        "chosen_on_scored_cases": evaluation.chosen_on_scored_cases,
        "postprocessing_learned_on_scored_cases": evaluation.postprocessing_learned_on_scored_cases,
        "classes": {name: _class(evaluation, name) for name in evaluation.members},
        "confusion": _confusion(evaluation),
        "foreground": {metric: _foreground(evaluation, metric) for metric in METRICS},
        **_nnunet(evaluation),
    }


def _tolerance(evaluation: Evaluation) -> float | dict[str, float]:
    """Return the one tolerance, or that of each class and region where they differ."""
    by_name = {name: evaluation.wanted.tolerance_of(name) for name in evaluation.members}
    return by_name if len(set(by_name.values())) > 1 else evaluation.smallest_tolerance_mm


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
    with_structure = sum(evaluation.score(case, name).n_ref > 0 for case in evaluation.counted)
    without = len(evaluation.counted) - with_structure
    return {
        "value": evaluation.class_values.get(name),
        "values": evaluation.members[name],
        "tolerance_mm": evaluation.wanted.tolerance_of(name),
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
    return {
        "mean": evaluation.foreground_mean(metric),
        "n_classes": len(evaluation.class_means(metric)),
    }


def _confusion(evaluation: Evaluation) -> dict[str, Any]:
    """Return the voxels of all counted cases, reference in rows and prediction in columns."""
    values = [0, *evaluation.class_values.values()]
    table = [[evaluation.confusion.get((r, p), 0) for p in values] for r in values]
    return {"values": values, "voxels": table}


def _nnunet(evaluation: Evaluation) -> dict[str, Any]:
    rows = [_nnunet_row(evaluation, case) for case in evaluation.counted]
    keys = {name: _nnunet_key(values) for name, values in evaluation.members.items()}
    mean = {key: _mean_row([row[key] for row in rows]) for key in keys.values()}
    return {
        "metric_per_case": [_nnunet_case(evaluation, case) for case in evaluation.scored],
        "mean": mean,
        "foreground_mean": _mean_row([mean[keys[name]] for name in evaluation.class_values]),
    }


def _nnunet_case(evaluation: Evaluation, case: CaseScores) -> dict[str, Any]:
    return {
        "case_id": case.pair.case_id,
        "prediction_file": str(case.pair.prediction),
        "reference_file": str(case.pair.reference),
        "role": case.pair.record.role,
        "warnings": case.warnings,
        "metrics": _nnunet_row(evaluation, case),
    }


def _nnunet_row(evaluation: Evaluation, case: CaseScores) -> dict[str, dict[str, float]]:
    return {
        _nnunet_key(values): _nnunet_metrics(case, evaluation.score(case, name))
        for name, values in evaluation.members.items()
    }


def _nnunet_key(values: tuple[int, ...]) -> str:
    """Return a class or region as nnU-Net names it: `1`, or `(1, 2, 3)`."""
    return str(values[0]) if len(values) == 1 else str(values)


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
