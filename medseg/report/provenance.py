"""What the page says of its origin: data, settings, cases given and left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.report.sources import Source

MOST_REASONS = 8

MINUTES = len("2000-12-31T23:59")

_FIT_FIELDS = {
    "Manifest": "manifest",
    "Data digest": "data_digest",
    "Training folds": "train_folds",
    "Held-out fold": "fold",
    "Training cases": "train_cases",
    "Seed": "seed",
    "Precision": "precision",
    "Device": "device",
    "Threads": "threads",
    "Devices": "devices",
    "Deterministic": "deterministic",
    "Reproducible": "reproducible",
    "Platform": "platform",
    "medseg commit": "git_commit",
}


def data_set(sources: Sequence[Source]) -> str:
    """Return the name of the data set, else of its manifest, or nothing."""
    names = [
        source.fit.get("data_set") or Path(str(source.fit.get("manifest", ""))).stem
        for source in sources
    ]
    return ", ".join(dict.fromkeys(str(name) for name in names if name))


def provenance_rows(sources: Sequence[Source]) -> list[tuple[str, str]]:
    """Return settings by name; where runs differ, each value with its runs."""
    facts = [_facts(source) for source in sources]
    names = [source.name for source in sources]
    rows = [(label, _by_value(names, [fact[label] for fact in facts])) for label in facts[0]]
    return [(label, text) for label, text in rows if text]


def _facts(source: Source) -> dict[str, Any]:
    """Return settings of one run by name, None if not known."""
    finished = str(source.fit.get("finished") or "")
    checkpoints = (r["checkpoint"] for r in source.journal.values() if "checkpoint" in r)
    return {
        "Cases in the figures": len(source.case_ids) or None,
        "Classes": list(source.class_names),
        "Spacing, mm": _spacing(source),
        **{label: source.fit.get(key) for label, key in _FIT_FIELDS.items()},
        "Training finished": finished[:MINUTES].replace("T", " "),
        "Checkpoint": list(dict.fromkeys(map(str, checkpoints))),
        "Metric definitions": source.summary.get("metric_version"),
        "NSD tolerance, mm": source.summary.get("tolerance_mm"),
        "Versions": source.fit.get("versions"),
    }


def _spacing(source: Source) -> str:
    """Return the smallest and largest spacing on each axis of the files."""
    rows = {row["spacing_mm"] for row in source.cases if row.get("spacing_mm")}
    try:
        axes = zip(*([float(part) for part in row.split(" x ")] for row in rows), strict=True)
        ends = [(min(axis), max(axis)) for axis in axes]
    except ValueError:
        return ""
    return " × ".join(f"{a:g}" if a == b else f"{a:g}–{b:g}" for a, b in ends)


def missing_parts(sources: Sequence[Source]) -> list[str]:
    """Say once what is missing, and in which runs."""
    runs: dict[str, list[str]] = {}
    for source in sources:
        for text in source.missing:
            runs.setdefault(text, []).append(source.name)
    return [text + which(names, sources) for text, names in runs.items()]


def flow_rows(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Return how many cases went where: a row a run."""
    return [_flow_row(source) for source in sources]


def _flow_row(source: Source) -> dict[str, str]:
    flow = case_flow(source)
    failed = flow.get("failed") or {
        case_id: str(record.get("message", ""))
        for case_id, record in source.journal.items()
        if record.get("status") == "failed"
    }
    scored = len(source.case_ids)
    reasons = [f"{case_id}: {reason}" for case_id, reason in failed.items()]
    for key, words in (
        ("unmatched_predictions", "prediction without reference"),
        ("unmatched_references", "reference without prediction"),
    ):
        reasons += [f"{case_id}: {words}" for case_id in flow.get(key) or ()]
    more = len(reasons) - MOST_REASONS
    shown = "; ".join(reasons[:MOST_REASONS]) + (f"; and {more} more" if more > 0 else "")
    return {
        "run": source.name,
        "given": str(flow.get("given", scored + source.trained + len(failed))),
        "failed": str(len(failed)),
        "trained": str(source.trained),
        "scored": str(scored),
        "groups": str(len(set(source.groups.values()))) if source.groups else "–",
        "reasons": shown or "–",
    }


def case_flow(source: Source) -> Mapping[str, Any]:
    """Return where the cases went, as the evaluation says; nothing if it does not."""
    flow = source.summary.get("cases")
    return flow if isinstance(flow, dict) else {}


def _by_value(names: Sequence[str], values: Sequence[Any]) -> str:
    """Return what all runs share, or each value with the runs that have it."""
    runs: dict[str, list[str]] = {}
    for name, value in zip(names, values, strict=True):
        runs.setdefault(_words(value), []).append(name)
    if len(runs) == 1:
        return next(iter(runs))
    return " · ".join(f"{value} ({', '.join(having)})" for value, having in runs.items() if value)


def which(names: Sequence[str], sources: Sequence[Source]) -> str:
    """Name the runs that are meant, unless all are."""
    return "" if len(names) == len(sources) else f" (In {', '.join(names)}.)"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
