"""`medseg check`: every file of a data set opened and compared, and what is wrong told at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from medseg.check.cases import CheckedCase, check_case
from medseg.check.facts import CaseFacts, SetFacts
from medseg.check.findings import Finding, by_severity, count, finding
from medseg.check.fixes import fix, require_fix_output
from medseg.check.leaks import patients
from medseg.check.opened import CaseJob
from medseg.check.options import CheckOptions
from medseg.check.output import Result, tell
from medseg.check.sets import SET_CHECKS
from medseg.check.sources import open_data_set, unlisted_jobs
from medseg.core.errors import MedsegError, OptionError
from medseg.core.manifest import Case, Manifest
from medseg.engine.parallel import run_jobs
from medseg.engine.progress import track

FAILED = 3
"""Exit status: finished, but some cases are wrong."""


def check(options: CheckOptions) -> int:
    """Check a data set, tell what was found, and return the exit status.

    Raises:
        ManifestError: If the manifest is wrong, or not one case is there.
        OptionError: If an option is out of range, or the output cannot be written.
    """
    if options.workers < 0:
        raise OptionError(f"--workers must be 0 or more; got {options.workers}.")
    manifest, findings = open_data_set(options.manifest, options.root)
    if options.fix:
        require_fix_output(options.output, manifest)
    result = examine(manifest, findings, options.fold, options.workers)
    if options.fix and options.output is not None:
        fix(result, options.output)
    tell(result, options.output, options.json)
    return FAILED if count(result.findings, "error") else 0


def examine(manifest: Manifest, known: Sequence[Finding], fold: int | None, workers: int) -> Result:
    """Check the cases of a data set, alone and against each other.

    Args:
        manifest: The data set.
        known: What was found in its list of cases.
        fold: Only this fold, all of which has to be there; all cases if None.
        workers: Processes that check cases side by side.

    Raises:
        ManifestError: If not one case is there.
    """
    cases = (*manifest.training, *manifest.test) if fold is None else manifest.in_folds([fold])
    absent = manifest.absent(cases)
    partly = [case for case in absent if any(path.exists() for path in manifest.files(case))]
    if len(absent) == len(cases) and not partly:
        manifest.require_files(cases)
    findings = [*known, *patients(manifest), *_absent_cases(manifest, absent, fold is not None)]
    test = set(manifest.test)
    jobs = [
        CaseJob.of(case, manifest, "test" if case in test else "training")
        for case in cases
        if case not in set(absent) - set(partly)
    ]
    beside, unlisted = unlisted_jobs(manifest, known) if fold is None else ([], [])
    checked = _check_cases([*jobs, *beside], workers)
    findings += [found for case in checked for found in case.findings]
    facts = SetFacts(manifest, tuple(case.facts for case in checked))
    findings += [found for set_check in SET_CHECKS for found in set_check(facts)]
    in_order = by_severity(_once([*findings, *unlisted]))
    return Result(manifest, len(cases) - len(absent), in_order, facts)


def _once(findings: Sequence[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))


def _absent_cases(manifest: Manifest, absent: Sequence[Case], needed: bool) -> Iterator[Finding]:
    """Find cases that are there in part; whole absent ones are an error only if needed."""
    away = []
    for case in absent:
        missing = [path for path in manifest.files(case) if not path.exists()]
        words = f"no such file: {', '.join(map(str, missing))}"
        if len(missing) < len(manifest.files(case)):
            words += "; the rest is there"
            yield finding("error", "incomplete-case", case.case_id, words, *missing)
        elif needed:
            yield finding("error", "missing-file", case.case_id, words, *missing)
        else:
            away.append(case)
    if away:
        listed = Counter(_part(case) for case in (*manifest.training, *manifest.test))
        parts = [f"{part}: {n} of {listed[part]}" for part, n in Counter(map(_part, away)).items()]
        words = f"{len(away)} cases have no file here ({', '.join(parts)}). {manifest.source}"
        yield finding("warning", "absent-cases", "", words.strip())


def _part(case: Case) -> str:
    if case.fold is not None:
        return f"fold {case.fold}"
    return "test" if case.label is None else "training"


def _check_cases(jobs: Sequence[CaseJob], workers: int) -> list[CheckedCase]:
    """Return what comes back of each job, in their order."""
    found: dict[CaseJob, CheckedCase] = {}
    done = run_jobs(check_case, jobs, workers)
    for job, result in track(done, "checking", len(jobs), lambda item: item[0].case_id):
        if isinstance(result, CheckedCase):
            found[job] = result
        elif isinstance(result, MedsegError | OSError | MemoryError):
            found[job] = _not_checked(job, str(result) or type(result).__name__)
        else:
            raise result
    return [found[job] for job in jobs]


def _not_checked(job: CaseJob, words: str) -> CheckedCase:
    return CheckedCase(
        (finding("error", "not-checked", job.case_id, words, *job.images),),
        CaseFacts(job, (), None, None),
    )
