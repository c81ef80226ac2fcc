"""`medseg evaluate`: predictions and references to scores, one bad case stopping nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg.core.errors import MedsegError, OptionError, problems
from medseg.core.metrics import METRIC_VERSION
from medseg.core.runs import ScoreFiles, write_json, write_scores
from medseg.engine.parallel import run_jobs
from medseg.engine.progress import track
from medseg.evaluation.options import EvaluateOptions
from medseg.evaluation.pairing import Pairing, pair_cases
from medseg.evaluation.result import Evaluation
from medseg.evaluation.resume import Outcome, ResumableJob, ScoreJournal, score_or_recall
from medseg.evaluation.scoring import ScoringJob
from medseg.evaluation.summary import summary_of
from medseg.evaluation.tables import score_rows, screen_table, write_cases
from medseg.evaluation.wanted import Wanted

SOME_FAILED = 3
WORTH_A_WORKER = 500_000
"""Bytes of label maps that take some seconds to score: compressed, some 10 ms for each 1000."""

MOST_NAMED = 20
"""Names in one line on screen; summary.json holds them all."""

log = logging.getLogger("medseg")


def evaluate(options: EvaluateOptions) -> int:
    """Score predictions and write scores.csv, cases.csv and summary.json.

    Returns:
        0, or 3 if some cases could not be scored; each is named on screen and in summary.json.

    Raises:
        OptionError: If the options contradict each other, or the output cannot be written.
        ManifestError: If the manifest is wrong.
        MedsegError: If no case could be scored.
    """
    _check(options)
    files = ScoreFiles.at(options.output)
    pairing = pair_cases(options)
    wanted = Wanted.of(options, pairing.class_values)
    _name("predictions without reference, not scored", pairing.unmatched_predictions)
    _name("references without prediction, not scored", pairing.unmatched_references)
    _make_writable(files.scores.parent)
    journal = ScoreJournal(files.scores)
    scored, failed = _score_all(options, pairing, wanted, journal)
    if not scored:
        raise MedsegError(_nothing_scored(failed))
    cases = tuple(outcome.scores for outcome in scored)
    evaluation = Evaluation(options, pairing, wanted, cases, failed)
    if not evaluation.class_values:
        raise MedsegError("there is no class to score: every label map is empty.")
    write_scores(files.scores, score_rows(evaluation))
    write_cases(files.cases, evaluation)
    write_json(files.summary, summary_of(evaluation))
    journal.finish(scored)
    _tell(evaluation, files)
    return SOME_FAILED if failed else 0


def _check(options: EvaluateOptions) -> None:
    found = []
    if not 0 <= options.grid_tolerance < float("inf"):
        found.append(f"--grid_tolerance must be 0 or more; got {options.grid_tolerance!r}")
    if options.workers < 0:
        found.append(f"--workers must be 0 or more; got {options.workers!r}")
    if found:
        raise OptionError(problems("evaluate", found))


def _make_writable(folder: Path) -> None:
    """Make the output folder now, rather than fail when all is scored."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--output {folder} cannot be made ({error.strerror}).") from error
    if not os.access(folder, os.W_OK):
        raise OptionError(f"--output {folder} cannot be written to.")


def _score_all(
    options: EvaluateOptions, pairing: Pairing, wanted: Wanted, journal: ScoreJournal
) -> tuple[tuple[Outcome, ...], Mapping[str, str]]:
    """Return the scored cases, and why the others are not."""
    known = {} if options.overwrite else journal.records()
    jobs = [
        ResumableJob(
            ScoringJob(pair, wanted, pairing.ignore_value, options.grid_tolerance),
            known.get(pair.case_id, {}),
        )
        for pair in pairing.pairs
    ]
    scored: dict[str, Outcome] = {}
    failed = dict(pairing.failed)
    done = run_jobs(score_or_recall, jobs, min(options.workers, _worth(pairing)))
    for job, result in track(done, "scoring", len(jobs), lambda item: item[0].job.pair.case_id):
        case_id = job.job.pair.case_id
        if isinstance(result, Outcome):
            scored[case_id] = result
            if not result.recalled:
                journal.add(result)
        elif isinstance(result, MedsegError | OSError | MemoryError):
            failed[case_id] = str(result) or type(result).__name__
        else:
            raise result
    if recalled := sum(outcome.recalled for outcome in scored.values()):
        log.info("%d of %d cases were scored before and have not changed", recalled, len(jobs))
    order = [pair.case_id for pair in pairing.pairs if pair.case_id in scored]
    return tuple(scored[case_id] for case_id in order), failed


def _worth(pairing: Pairing) -> int:
    """Return how many workers have enough to do to be worth their start, about a second each."""
    paths = (path for pair in pairing.pairs for path in (pair.prediction, pair.reference))
    return 1 + sum(path.stat().st_size for path in paths if path.is_file()) // WORTH_A_WORKER


def _nothing_scored(failed: Mapping[str, str]) -> str:
    if not failed:
        return "no case could be scored: no prediction and reference have the same name."
    lines = [f"  - {case_id}: {reason}" for case_id, reason in failed.items()]
    if len(lines) > MOST_NAMED:
        lines[MOST_NAMED:] = [f"  … and {len(lines) - MOST_NAMED} more"]
    return "\n".join([f"no case could be scored, {len(failed)} failed:", *lines])


def _tell(evaluation: Evaluation, files: ScoreFiles) -> None:
    """Log the warnings, the table and where the rest lies."""
    for case_id, reason in evaluation.failed.items():
        log.warning("case %r is not scored: %s", case_id, reason)
    _tell_warnings(evaluation)
    log.info("\n%s\n", screen_table(evaluation))
    log.info("HD95 is the mean over cases with the structure on both sides; %s.", METRIC_VERSION)
    if evaluation.trained:
        _name("cases with the names of training cases, kept out of all means", evaluation.trained)
    flow = f"{len(evaluation.scored)} cases scored, {len(evaluation.failed)} failed"
    log.info("%s: %s, %s, %s", flow, files.scores, files.cases.name, files.summary.name)


def _tell_warnings(evaluation: Evaluation) -> None:
    by_code: dict[str, list[str]] = {}
    for case in evaluation.scored:
        for warning in case.warnings:
            by_code.setdefault(warning, []).append(case.pair.case_id)
    for warning, case_ids in by_code.items():
        _name(warning, case_ids)
    tolerance = f"--tolerance_mm {evaluation.smallest_tolerance_mm:g}"
    _name(f"{tolerance} is below the largest spacing, NSD reads too high", evaluation.coarse)
    if nowhere := evaluation.regions_of_nothing:
        log.warning("--regions: no label map holds a value of %s", ", ".join(map(repr, nowhere)))
    if evaluation.chosen_on_scored_cases:
        log.warning(
            "The checkpoint `best` was chosen by its score on cases that are scored here, which "
            "flatters it; `medseg predict --checkpoint last` gives unbiased figures."
        )
    if evaluation.postprocessing_learned_on_scored_cases:
        log.warning(
            "Post-processing was applied that was learned on cases that are scored here, which "
            "flatters it; `medseg predict --postprocessing off` gives figures free of that."
        )


def _name(what: str, case_ids: Sequence[str]) -> None:
    """Warn about cases by name."""
    if case_ids:
        names = ", ".join(map(repr, case_ids[:MOST_NAMED]))
        more = f" and {len(case_ids) - MOST_NAMED} more" if len(case_ids) > MOST_NAMED else ""
        count = "1 case" if len(case_ids) == 1 else f"{len(case_ids)} cases"
        log.warning("%s: %s: %s%s", count, what, names, more)
