"""`medseg study`: trains, predicts and scores every run of a grid, each in processes of its own."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import FrameType

from medseg.core.errors import OptionError, check_choice
from medseg.core.manifest import load_manifest
from medseg.engine.shards import parse_shard
from medseg.study.crew import Crew, threads_of
from medseg.study.doing import alone, note_end
from medseg.study.folds import cross_validation
from medseg.study.gathering import finish
from medseg.study.grid import Run, is_study, read_study
from medseg.study.halving import expected_shares, groups, note_halved, reached
from medseg.study.held_back import require_files
from medseg.study.hours import predicted_hours
from medseg.study.needs import Memory, seconds_of_steps, step_of
from medseg.study.options import StudyOptions
from medseg.study.planned import Plan, Planned, manifest_of, plan_runs
from medseg.study.profiles import read_profile
from medseg.study.resolving import resolved
from medseg.study.work import work_of

log = logging.getLogger("medseg")


def study(options: StudyOptions) -> int:
    """Run a study; return 3 if runs failed, 130 or 143 if it was interrupted.

    Raises:
        OptionError: If the study cannot be read, or its folder holds another one.
        ManifestError: If files of the data set are missing.
    """
    runs = _runs(options)
    plan = plan_runs(runs, options.output, options.skip_impossible)
    planned = plan.runs
    if options.current is not None:
        norms = {entry.settings["model"]["norm"] for entry in planned}
        check_choice("--current", options.current, sorted(norms))
    share = parse_shard(options.shard)
    # Learning rates that compete stay together.
    kept = [group for place, group in enumerate(groups(planned)) if share.takes(place)]
    taken = {entry.run.name for group in kept for entry in group}
    mine = [entry for entry in planned if entry.run.name in taken]
    for entry in mine:
        log.info("%-11s %s", entry.state, entry.run.name)
    require_files((e.settings["data"], e.reported) for e in mine if not e.is_done)
    predicted = _predict(planned, mine, options)
    if options.dry_run:
        return 0
    for entry in mine:
        if entry.is_done and entry.record and (end := note_end(entry)).status:
            log.info("%-11s %s", "done" if end.status == "scored" else end.status, entry.run.name)
    with contextlib.closing(Crew(options, predicted)) as crew:
        _work(crew, mine)
    failed = crew.failures
    if crew.signalled:
        log.info("interrupted; the same command goes on")
        return 128 + crew.signalled
    status = 3 if failed else 0
    # What failed in another share is done with as well; its study.json says so.
    others = [
        entry.run.name
        for entry in planned
        if not entry.is_done and entry.record.get("status") != "failed"
    ]
    if not others:
        status = max(status, _finish(plan, options))
    elif not failed or not options.fail_fast:
        log.info("%d runs are left to other shares: no report yet", len(others))
    _tell(failed)
    if others and failed and options.fail_fast:
        log.error("--fail_fast: %s failed; not done: %s", next(iter(failed)), ", ".join(others))
    return status


def _work(crew: Crew, mine: Sequence[Planned]) -> None:
    """Train up to each rung, halve the learning rates there, then do what is left."""
    for rung in sorted({rung for entry in mine for rung in entry.run.rungs}):
        _halve(mine)
        begun = [e for e in mine if e.state in ("new", "interrupted") and reached(e, rung) is None]
        crew.work(begun, rung)
    _halve(mine)
    crew.work([e for e in mine if not e.is_done and e.run.name not in crew.failures])


def _halve(mine: Sequence[Planned]) -> None:
    for name in note_halved(mine):
        log.info("halved away %s", name)


def _predict(
    planned: Sequence[Planned], mine: Sequence[Planned], options: StudyOptions
) -> Mapping[str, float]:
    """Say how much memory and how many hours are left to spend; return the seconds of each run."""
    left = [entry for entry in mine if not entry.is_done]
    load = functools.cache(load_manifest)
    jobs = {e.run.name: step_of(e.settings, manifest_of(e.settings["data"], load)) for e in left}
    if jobs:
        log.info("%s", Memory().words(jobs, options.workers))
    measure = functools.partial(seconds_of_steps, jobs, threads_of(options))
    hours = predicted_hours(
        planned,
        left,
        options.workers,
        functools.partial(work_of, load=load),
        dict if options.engine == "ray" else measure,  # this machine tells nothing of a cluster
        expected_shares(planned),
    )
    log.info("%s", hours.words)
    return hours.seconds


def _finish(plan: Plan, options: StudyOptions) -> int:
    """Gather and report, one process at a time; after SIGTERM the next start does it anew."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with alone(options.output, threading.Event()):
            return finish(plan, options.output, options.current)
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(failed: Mapping[str, str]) -> None:
    for name, reason in failed.items():
        log.error("%s failed: %s", name, reason)


def _runs(options: StudyOptions) -> list[Run]:
    """Return what is asked; `--root` is a fixed flag of every run."""
    if missing := [str(path) for path in options.config if not path.is_file()]:
        raise OptionError(f"--config: no such file: {', '.join(missing)}.")
    if options.samples is not None and options.profile is None:
        raise OptionError("--samples goes with --profile.")
    root = {} if options.root is None else {"data.root": str(options.root.absolute())}
    return [replace(run, fixed={**run.fixed, **root}) for run in _asked(options, root)]


def _asked(options: StudyOptions, root: Mapping[str, str]) -> list[Run]:
    studies = any(map(is_study, options.config))
    if options.profile is not None and studies:
        raise OptionError("--profile takes configuration files of medseg fit, not a study.")
    if studies and len(options.config) > 1:
        raise OptionError("--config takes one study, or configuration files of medseg fit.")
    if studies:
        return read_study(options.config[0])
    manifest = manifest_of(resolved(Run({}, options.config, root))["data"])
    if options.profile is None:
        return cross_validation(options.config, manifest, options.folds)
    return read_profile(options.profile, options.config, manifest, options.samples)
