"""What comes of a study's runs: out-of-fold scores of each variant, and the page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from medseg.report.options import ReportOptions
from medseg.report.pages import report
from medseg.study.out_of_fold import collect
from medseg.study.planned import Planned, manifest_of

log = logging.getLogger("medseg")


def finish(planned: Sequence[Planned], output: Path) -> None:
    """Gather the out-of-fold predictions of each variant, and report on all runs."""
    scored = [entry for entry in planned if entry.state == "scored"]
    if not scored:
        return
    variants: dict[str, list[Planned]] = {}
    for entry in planned:
        variants.setdefault(entry.run.variant, []).append(entry)
    for name, entries in variants.items():
        if missing := [entry.run.name for entry in entries if entry.state != "scored"]:
            # Some folds are not the whole set, and must not look like it.
            log.error("no out-of-fold scores of %s: %s missing", name, ", ".join(missing))
            continue
        folds = {int(entry.settings["data"]["fold"]): entry.files for entry in entries}
        if len(folds) > 1:
            place = output / "oof" / (name if len(variants) > 1 else "")
            collect(manifest_of(entries[0].settings["data"]), folds, place)
    runs = tuple(entry.files.run_dir for entry in scored)
    report(ReportOptions(runs=runs, output=output / "report.html"))
    log.info("report: %s", output / "report.html")
