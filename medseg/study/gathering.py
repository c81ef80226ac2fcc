"""What comes of a study's runs: out-of-fold scores of each variant, and the page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.core.runs import RunFiles
from medseg.report.options import ReportOptions
from medseg.report.pages import write_report
from medseg.report.preface import Preface
from medseg.report.sources import Source, read_source
from medseg.study.cells import cell_of, write_cells
from medseg.study.comparable import comparable
from medseg.study.norm_page import PAGE, is_of_norms, write_norm_page
from medseg.study.out_of_fold import collect
from medseg.study.planned import Plan, Planned, manifest_of
from medseg.study.words import preface

log = logging.getLogger("medseg")

MOST_REPORTED = 24
"""Runs on report.html; where a study of norms has more, study.html sums them up instead."""


def finish(plan: Plan, output: Path, current: str | None = None) -> int:
    """Gather the out-of-fold predictions of each variant, and report on all.

    Args:
        plan: All runs of the study.
        output: Its folder.
        current: The norm in use today, if that is known.

    Returns:
        0, or 3 if a fold of a variant is missing or a case could not be scored.
    """
    planned = plan.runs
    if not any(entry.is_done for entry in planned):
        return 0
    variants: dict[str, list[Planned]] = {}
    for entry in planned:
        variants.setdefault(entry.run.variant, []).append(entry)
    status, sources = 0, []
    for name, entries in variants.items():
        scored = [entry for entry in entries if entry.state == "scored"]
        if len(entries) == 1:
            sources += [read_source(entry.files.run_dir) for entry in scored]
        elif scored:
            place = output / "oof" / (name if len(variants) > 1 else "")
            status = max(status, _pool(entries, place))
            title = f"{name}: " if len(variants) > 1 else ""
            sources.append(_pooled(place, f"{title}{_share(scored, entries)}", scored))
    cells = [cell_of(entry) for entry in planned]
    write_cells(cells, output)
    part = comparable(plan)
    summed_up = is_of_norms(part.plan)
    if summed_up:
        write_norm_page(part, output, current)
        log.info("which norm: %s", output / PAGE)
    if summed_up and len(sources) > MOST_REPORTED:
        log.info("no report.html: it would show %d runs; `medseg report --runs` takes some of them",
                 len(sources))  # fmt: skip
    elif sources:
        _report(sources, preface(variants, cells), output / "report.html")
    return status


def _report(sources: Sequence[Source], told: Preface, page: Path) -> None:
    """Write report.html of the first runs, and say so if there are more."""
    if len(sources) > MOST_REPORTED:
        words = (
            f"The first {MOST_REPORTED} of {len(sources)} runs are shown; cells.csv lists all, and "
            "`medseg report --runs` shows others."
        )
        log.info("report.html: %s", words)
        told = replace(told, sentences=(words, *told.sentences))
    write_report(ReportOptions(runs=(), output=page), sources[:MOST_REPORTED], told)


def _share(scored: Sequence[Planned], entries: Sequence[Planned]) -> str:
    if len(scored) == len(entries):
        return f"all {len(entries)} folds, out of fold"
    return f"{len(scored)} of {len(entries)} folds, out of fold"


def _pool(entries: Sequence[Planned], place: Path) -> int:
    folds: dict[int, RunFiles] = {}
    missing: dict[int, str] = {}
    for entry in entries:
        if entry.state == "scored":
            folds[entry.fold] = entry.files
        else:
            missing[entry.fold] = entry.why_not
    return collect(manifest_of(entries[0].settings["data"]), folds, missing, place)


def _pooled(place: Path, name: str, entries: Sequence[Planned]) -> Source:
    """Return the scores of a whole cross-validation, with what its trainings have in common."""
    fits = [entry.fitted for entry in entries]
    shared = {key: fits[0][key] for key in fits[0] if _all_equal(key, fits)}
    source = read_source(place)
    kept = tuple(text for text in source.missing if "`medseg fit`" not in text)
    return replace(source, name=name, fit=shared, missing=kept)


def _all_equal(key: str, fits: Sequence[Mapping[str, object]]) -> bool:
    return key != "name" and all(key in fit and fit[key] == fits[0][key] for fit in fits)
