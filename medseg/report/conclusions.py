"""What the figures allow to be said, and what they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from medseg.core.geometry import SAME_GRID
from medseg.core.statistics import BOOTSTRAP_FROM
from medseg.report.provenance import case_flow, which
from medseg.report.sources import Source

SETTLED_FROM = 50
"""Cases from which intervals hold although a structure is lost now and then (core.statistics)."""

UNLIKE_STEPS = 1.25
"""Most by fewest steps of trainings bounded by time, above which it is said. Within it lie batch,
instance and group norm on one machine: steps cost 1 to 1.07 (docs/norms.md), and three trainings of
15 minutes beside other work made steps by 1.19 (docs/training.md)."""


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
        f"Descriptive only: {len(sources)} runs; {trained}. What the runs differ in is under "
        "Verdict, case by case: intervals that overlap are no test, nor are those that do not."
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
    if len({source.plain_classes for source in sources}) > 1:
        yield "The runs were not scored on the same classes: their foreground means differ in kind."
    for key, words in (
        ("metric_version", "definitions of the metrics"),
        ("tolerance_mm", "tolerances of NSD"),
    ):
        if len({str(source.summary[key]) for source in sources if key in source.summary}) > 1:
            yield f"The runs were scored with different {words} and cannot be compared in them."
    yield from _of_steps(sources)
    if len({source.fit["data_digest"] for source in sources if "data_digest" in source.fit}) > 1:
        yield "The runs did not see the same data: their data digests differ."


def _of_steps(sources: Sequence[Source]) -> Iterator[str]:
    ended_otherwise = ("interrupted", "stopped_early")
    steps = sorted(
        (_as_number(source.fit.get("steps")), source.name)
        for source in sources
        if source.fit.get("max_seconds") and not any(map(source.fit.get, ended_otherwise))
    )
    if steps and steps[-1][0] > UNLIKE_STEPS * steps[0][0]:
        (fewest, slow), (most, fast) = steps[0], steps[-1]
        yield (
            f"The trainings were bounded by time (--trainer.max_time) and made unlike numbers of "
            f"steps: most in {fast} ({most:.0f}), fewest in {slow} ({fewest:.0f}). What their "
            "scores differ in may come from the clock and not from what the runs vary: train them "
            "with equal --trainer.max_steps in place of --trainer.max_time."
        )


def _of_flaws(sources: Sequence[Source]) -> Iterator[str]:
    checks: Mapping[str, Callable[[Source], Any]] = {
        "The checkpoint was chosen on the very cases that are scored (best), which flatters it; "
        "`--checkpoint last` does not": lambda s: s.summary.get("chosen_on_scored_cases"),
        "The tolerance of NSD is below the largest voxel spacing of some cases, where NSD reads "
        "too high": lambda s: case_flow(s).get("spacing_above_tolerance"),
        "Grids of prediction and reference were allowed to differ (--grid_tolerance)": lambda s: (
            _as_number(s.summary.get("grid_tolerance")) > SAME_GRID
        ),
        "The training was interrupted": lambda s: s.fit.get("interrupted"),
    }
    for words, is_flawed in checks.items():
        names = [source.name for source in sources if is_flawed(source)]
        if names:
            yield f"{words}.{which(names, sources)}"


def _as_number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
