"""`medseg check`: every file of a manifest opened, and what is wrong told at once."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence

from medseg.check.cases import CaseJob, check_case
from medseg.check.findings import Finding, as_json, as_text, count
from medseg.check.options import CheckOptions
from medseg.core.errors import MedsegError, OptionError
from medseg.core.manifest import Case, Manifest, load_manifest
from medseg.core.runs import atomic_text, strict_json
from medseg.engine.parallel import run_jobs
from medseg.engine.progress import track

log = logging.getLogger("medseg")

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
    manifest = load_manifest(options.manifest, options.root)
    if options.fold is None:
        cases = (*manifest.training, *manifest.test)
    else:
        cases = manifest.in_folds([options.fold])
    absent = manifest.absent(cases)
    if len(absent) == len(cases):
        manifest.require_files(cases)
    present = [case for case in cases if case not in set(absent)]
    findings = list(_absent_cases(manifest, absent, needed=options.fold is not None))
    findings += _check_cases(manifest, present, options.workers)
    _tell(options, manifest, len(present), findings)
    return FAILED if count(findings, "error") else 0


def _absent_cases(manifest: Manifest, absent: Sequence[Case], needed: bool) -> Iterator[Finding]:
    """Find cases that are there in part; whole absent ones are an error only if needed."""
    away = []
    for case in absent:
        missing = [path for path in manifest.files(case) if not path.exists()]
        words = f"no such file: {', '.join(map(str, missing))}"
        if len(missing) < len(manifest.files(case)):
            yield Finding("error", "incomplete-case", case.case_id, f"{words}; the rest is there")
        elif needed:
            yield Finding("error", "missing-file", case.case_id, words)
        else:
            away.append(case)
    if away:
        listed = Counter(_part(case) for case in (*manifest.training, *manifest.test))
        parts = [f"{part}: {n} of {listed[part]}" for part, n in Counter(map(_part, away)).items()]
        words = f"{len(away)} cases have no file here ({', '.join(parts)}). {manifest.source}"
        yield Finding("warning", "absent-cases", "", words.strip())


def _part(case: Case) -> str:
    if case.fold is not None:
        return f"fold {case.fold}"
    return "test" if case.label is None else "training"


def _check_cases(manifest: Manifest, cases: Sequence[Case], workers: int) -> list[Finding]:
    """Return what is found in cases, in their order."""
    jobs = [CaseJob.of(case, manifest) for case in cases]
    found: dict[str, list[Finding]] = {}
    done = run_jobs(check_case, jobs, workers)
    for job, result in track(done, "checking", len(jobs), lambda item: item[0].case_id):
        if isinstance(result, list):
            found[job.case_id] = result
        elif isinstance(result, MedsegError | OSError | MemoryError):
            words = str(result) or type(result).__name__
            found[job.case_id] = [Finding("error", "not-checked", job.case_id, words)]
        else:
            raise result
    return [finding for case in cases for finding in found[case.case_id]]


def _tell(
    options: CheckOptions, manifest: Manifest, checked: int, findings: Sequence[Finding]
) -> None:
    if options.json:
        content = strict_json(as_json(manifest, checked, findings))
        text = json.dumps(content, indent=2, ensure_ascii=False)
    else:
        text = as_text(manifest, checked, findings)
    if options.output is None:
        log.info("%s", text)
        return
    with atomic_text(options.output) as file:
        file.write(text + "\n")
    log.info("%s", as_text(manifest, checked, findings).splitlines()[0])
    log.info("%s", options.output)
