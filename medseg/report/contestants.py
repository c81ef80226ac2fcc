"""What several score files are compared on: the cases, classes and metrics they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from medseg.core.endpoints import DIFFERENCE, Design, Variant
from medseg.core.errors import OptionError
from medseg.report.sources import Source

MOST_NAMED = 10
"""Names in one sentence."""


@dataclass(frozen=True)
class Contestant:
    """One score file.

    Attributes:
        variant: Name of the variant it is a training of.
        source: What it holds.
    """

    variant: str
    source: Source


def design_of(
    contestants: Sequence[Contestant],
    metrics: Sequence[str],
    difference: float = DIFFERENCE,
    by_group: bool = True,
) -> Design:
    """Return what is compared: the cases, classes and metrics that every file has.

    Args:
        contestants: Two or more.
        metrics: Metrics to compare, as far as every file has them by one definition.
        difference: Mean difference of Dice worth seeing.
        by_group: Whether cases of one group (a patient) are one independent unit.

    Raises:
        OptionError: If the files have no case or no class in common.
    """
    cases = common(list(c.source.case_ids) for c in contestants)
    classes = common(list(c.source.plain_classes) for c in contestants)
    if not cases:
        raise _nothing_shared(contestants)
    if not classes:
        raise OptionError("no class is in all files.")
    groups = _groups(contestants) if by_group else {}
    seeds: dict[str, list[Source]] = {}
    for contestant in contestants:
        seeds.setdefault(contestant.variant, []).append(contestant.source)
    return Design(
        variants=tuple(Variant(n, tuple(s.scores for s in found)) for n, found in seeds.items()),
        units={case: groups.get(case, case) for case in cases},
        class_names=tuple(classes),
        metrics=tuple(metric for metric in metrics if metric in _metrics(contestants)),
        difference=difference,
        regions=tuple(
            name
            for name in common(list(c.source.class_names) for c in contestants)
            if name not in classes
        ),
    )


def _nothing_shared(contestants: Sequence[Contestant]) -> OptionError:
    """Return the error of files without a case to compare them on."""
    scored = [list(dict.fromkeys(s.case_id for s in c.source.scores)) for c in contestants]
    told = _listed(
        [
            f"{c.source.path} with {len(cases)} case{'s' if len(cases) != 1 else ''}"
            for c, cases in zip(contestants, scored, strict=True)
        ]
    )
    if shared := common(iter(scored)):
        return OptionError(
            f"all case ids that are in each of the files trained a network: {_listed(shared)}; "
            f"files: {told}. Score cases that none was trained on."
        )
    return OptionError(f"no case id is in all files: {told}. Score the same cases with each.")


def common(lists: Iterator[list[str]]) -> list[str]:
    """Return what is in every list, in the order of the first."""
    first, *others = lists
    sets = [set(other) for other in others]
    return [item for item in first if all(item in other for other in sets)]


def _groups(contestants: Sequence[Contestant]) -> Mapping[str, str]:
    return {s.case_id: s.group for c in contestants for s in c.source.scores if s.group}


def _metrics(contestants: Sequence[Contestant]) -> list[str]:
    """Return the metrics that every file has by one definition."""
    found = common(
        list(dict.fromkeys(score.metric for score in c.source.scores)) for c in contestants
    )
    return [m for m in found if m != "nsd" or len(_tolerances(contestants)) < 2]


def _tolerances(contestants: Sequence[Contestant]) -> set[float]:
    told = (c.source.summary.get("tolerance_mm") for c in contestants)
    return {float(value) for value in told if isinstance(value, int | float)}


def notes_on(
    contestants: Sequence[Contestant], design: Design, metrics: Sequence[str]
) -> list[str]:
    """Say what was left out, and why."""
    every = list(dict.fromkeys(s.case_id for c in contestants for s in c.source.scores))
    tested = [{*c.source.case_ids} for c in contestants]
    scored = [{s.case_id for s in c.source.scores} for c in contestants]
    trained = {x for a, b in zip(scored, tested, strict=True) for x in a - b}
    absent = [x for x in every if x not in trained and not all(x in cases for cases in tested)]
    classes = dict.fromkeys(n for c in contestants for n in c.source.class_names)
    chosen = [str(c.source.path) for c in contestants
              if c.source.summary.get("chosen_on_scored_cases") is True]  # fmt: skip
    given = {
        "Cases that trained a network, left out": [x for x in every if x in trained],
        "Cases that are not in all files, left out": absent,
        "Classes that are not in all files, left out": [
            name for name in classes if name not in (*design.class_names, *design.regions)
        ],
        "Metrics that not all files have by one definition, left out": [
            metric for metric in metrics if metric not in design.metrics
        ],
        "Checkpoints chosen on cases that are scored here, which flatters them": chosen,
    }
    return [f"{what}: {_listed(names)}." for what, names in given.items() if names]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{len(names)} ({', '.join(names[:MOST_NAMED])}{more})"
