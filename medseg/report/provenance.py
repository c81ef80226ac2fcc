"""What the page says of its origin: data, settings, cases given and left out, what may be said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.core.geometry import SAME_GRID
from medseg.core.statistics import BOOTSTRAP_FROM
from medseg.report.sources import Source

SETTLED_FROM = 50
"""Cases from which intervals hold although a structure is lost now and then (core.statistics)."""

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
        **{label: source.fit.get(key) for label, key in _FIT_FIELDS.items()},
        "Training finished": finished[:MINUTES].replace("T", " "),
        "Checkpoint": list(dict.fromkeys(map(str, checkpoints))),
        "Metric definitions": source.summary.get("metric_version"),
        "NSD tolerance, mm": source.summary.get("tolerance_mm"),
        "Versions": source.fit.get("versions"),
    }


def missing_parts(sources: Sequence[Source]) -> list[str]:
    """Say once what is missing, and in which runs."""
    runs: dict[str, list[str]] = {}
    for source in sources:
        for text in source.missing:
            runs.setdefault(text, []).append(source.name)
    return [text + _which(names, sources) for text, names in runs.items()]


def flow_rows(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Return how many cases went where: a row a run."""
    return [_flow_row(source) for source in sources]


def _flow_row(source: Source) -> dict[str, str]:
    flow = _flow(source)
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


def conclusions(sources: Sequence[Source]) -> list[str]:
    """Say what the figures allow to be said, and what they do not."""
    scored = [source for source in sources if source.case_ids]
    if not scored:
        return []
    said = [_of_seeds(scored), *_of_cases(scored), *_of_lost(scored), *_of_comparability(scored)]
    said += _of_flaws(scored)
    return said


def _of_seeds(sources: Sequence[Source]) -> str:
    seeds = {source.fit["seed"] for source in sources if "seed" in source.fit}
    known = all("seed" in source.fit for source in sources)
    if not known:
        trained = "how often and with which seeds the networks were trained is not recorded"
    elif len(seeds) == 1:
        trained = "one seed, so what another seed would change is not known"
    else:
        trained = f"{len(seeds)} seeds, whose spread is not separated from that of the settings"
    if len(sources) == 1:
        return f"Descriptive only: one run; {trained}."
    return (
        f"Descriptive only: {len(sources)} runs; {trained}. No paired comparison is made on this "
        "page: intervals that overlap are not a test, and neither are intervals that do not."
    )


def _of_cases(sources: Sequence[Source]) -> Iterator[str]:
    fewest = min(len(source.case_ids) for source in sources)
    if fewest < BOOTSTRAP_FROM:
        yield (
            f"{_count(fewest, 'case')}: intervals (Student's t) are wide, and hold only if no "
            "structure is lost altogether."
        )
    if any(len(set(source.groups.values())) < len(source.groups) for source in sources):
        yield (
            "Several cases share a group (a patient or a site). Intervals take cases for "
            "independent and are therefore too narrow."
        )


def _of_lost(sources: Sequence[Source]) -> Iterator[str]:
    lost = sum(1 for source in sources for _ in source.lost())
    if not lost:
        return
    are = "was" if lost == 1 else "were"
    yield (
        f"{_count(lost, 'structure')} {are} missed or invented; each counts as Dice 0 and NSD 0 in "
        "the means and as an infinite distance in the medians."
        + (
            f" Below about {SETTLED_FROM} cases no interval of a mean covers such losses as it "
            "should: read their counts first."
            if min(len(source.case_ids) for source in sources) < SETTLED_FROM
            else ""
        )
    )


def _of_comparability(sources: Sequence[Source]) -> Iterator[str]:
    if len({frozenset(source.case_ids) for source in sources}) > 1:
        yield "The runs were not scored on the same cases: their means are of different cases."
    if len({source.class_names for source in sources}) > 1:
        yield "The runs were not scored on the same classes: their foreground means differ in kind."
    for key, words in (
        ("metric_version", "definitions of the metrics"),
        ("tolerance_mm", "tolerances of NSD"),
    ):
        if len({str(source.summary[key]) for source in sources if key in source.summary}) > 1:
            yield f"The runs were scored with different {words} and cannot be compared in them."
    if len({source.fit["data_digest"] for source in sources if "data_digest" in source.fit}) > 1:
        yield "The runs did not see the same data: their data digests differ."


def _of_flaws(sources: Sequence[Source]) -> Iterator[str]:
    checks: Mapping[str, Callable[[Source], Any]] = {
        "The checkpoint was chosen on the very cases that are scored (best), which flatters it; "
        "`--checkpoint last` does not": lambda s: s.summary.get("chosen_on_scored_cases"),
        "The tolerance of NSD is below the largest voxel spacing of some cases, where NSD reads "
        "too high": lambda s: _flow(s).get("spacing_above_tolerance"),
        "Grids of prediction and reference were allowed to differ (--grid_tolerance)": lambda s: (
            _as_number(s.summary.get("grid_tolerance")) > SAME_GRID
        ),
        "The training was interrupted": lambda s: s.fit.get("interrupted"),
    }
    for words, is_flawed in checks.items():
        names = [source.name for source in sources if is_flawed(source)]
        if names:
            yield f"{words}.{_which(names, sources)}"


def _flow(source: Source) -> Mapping[str, Any]:
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


def _which(names: Sequence[str], sources: Sequence[Source]) -> str:
    """Name the runs that are meant, unless all are."""
    return "" if len(names) == len(sources) else f" (In {', '.join(names)}.)"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _as_number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
