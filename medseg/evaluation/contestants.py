"""Score files read to be compared: the variant each belongs to, and what they have in common."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.endpoints import PRIMARY, Design, Variant
from medseg.core.errors import OptionError, check_choice, problems
from medseg.core.metrics import METRICS
from medseg.evaluation.compare_options import CompareOptions
from medseg.report.sources import Source, read_source

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


def read_contestants(options: CompareOptions) -> list[Contestant]:
    """Read every score file.

    Raises:
        OptionError: If the options contradict each other, or a file is no complete score file; the
            message names all problems.
    """
    _check(options)
    sources = [read_source(path) for path in options.scores]
    found = [f"{source.path}: {text}" for source in sources for text in _problems(source)]
    found += _group_conflicts(sources) if options.unit == "group" else []
    if found:
        raise OptionError(problems("--scores", found))
    return [Contestant(name, source) for name, source in zip(_names(options), sources, strict=True)]


def _check(options: CompareOptions) -> None:
    found = []
    if len(options.scores) < 2:
        found.append("--scores needs two or more score files")
    found += [f"--scores: {path} is named twice" for path in _twice(options.scores)]
    found += [f"--scores: {path}: no such file or folder"
              for path in options.scores if not path.exists()]  # fmt: skip
    if options.variants and len(options.variants) != len(options.scores):
        found.append(
            f"--variants must name the variant of each of the {len(options.scores)} score files; "
            f"got {len(options.variants)} names"
        )
    elif options.variants and len(set(options.variants)) == 1 < len(options.scores):
        found.append(f"--variants: all files belong to {options.variants[0]!r}")
    elif not options.variants and (same := _twice(_names(options))):
        found.append(f"--variants is needed to tell the files named {same[0]!r} apart")
    if not 0 < options.difference < 1:
        found.append(f"--difference must be between 0 and 1; got {options.difference!r}")
    directed = [name for name, metric in METRICS.items() if metric.better]
    for metric in options.metrics:
        try:
            check_choice("--metrics", metric, directed)
        except OptionError as error:
            found.append(str(error))
    if found:
        raise OptionError(found[0] if len(found) == 1 else problems("compare", found))


def _twice(items: Sequence[object]) -> list[object]:
    same = [item.resolve() if isinstance(item, Path) else item for item in items]
    return [item for item, count in Counter(same).items() if count > 1]


def _names(options: CompareOptions) -> Sequence[str]:
    """Return the variant of each file: as told, else its folder's name, or its own."""
    if options.variants:
        return options.variants
    return [_own_name(path.resolve()) for path in options.scores]


def _own_name(path: Path) -> str:
    if path.is_dir():
        return path.name
    return path.parent.name if path.name == "scores.csv" else path.stem


def _problems(source: Source) -> Iterator[str]:
    if not source.scores:
        yield "holds no scores; `medseg evaluate` writes them"
        return
    rows = Counter((score.case_id, score.class_name, score.metric) for score in source.scores)
    if repeated := [key for key, count in rows.items() if count > 1]:
        case_id, class_name, metric = repeated[0]
        yield (
            f"{len(repeated)} scores are there more than once, the first for case {case_id!r}, "
            f"class {class_name!r}, {metric}"
        )
    dice = [score.value for score in source.scores if score.metric == PRIMARY]
    if not dice:
        yield "holds no Dice"
    if not all(math.isnan(value) or 0 <= value <= 1 for value in dice):
        yield "Dice must lie between 0 and 1"


def _group_conflicts(sources: Sequence[Source]) -> Iterator[str]:
    known: dict[str, str] = {}
    for source in sources:
        for score in source.scores:
            if score.group and known.setdefault(score.case_id, score.group) != score.group:
                yield (
                    f"{source.path}: case {score.case_id!r} is of group {score.group!r}, elsewhere "
                    f"of {known[score.case_id]!r}; --unit case compares without groups"
                )
                break


def design_of(contestants: Sequence[Contestant], options: CompareOptions) -> Design:
    """Return what is compared: the cases, classes and metrics that every file has.

    Raises:
        OptionError: If the files have no case or no class in common.
    """
    cases = common(list(c.source.case_ids) for c in contestants)
    classes = common(list(c.source.class_names) for c in contestants)
    if not cases:
        raise OptionError("--scores: no case is in all files without having trained a network.")
    if not classes:
        raise OptionError("--scores: no class is in all files.")
    groups = _groups(contestants) if options.unit == "group" else {}
    seeds: dict[str, list[Source]] = {}
    for contestant in contestants:
        seeds.setdefault(contestant.variant, []).append(contestant.source)
    return Design(
        variants=tuple(Variant(n, tuple(s.scores for s in found)) for n, found in seeds.items()),
        units={case: groups.get(case, case) for case in cases},
        class_names=tuple(classes),
        metrics=tuple(metric for metric in options.metrics if metric in _metrics(contestants)),
        difference=options.difference,
    )


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
    contestants: Sequence[Contestant], design: Design, options: CompareOptions
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
            name for name in classes if name not in design.class_names
        ],
        "Metrics that not all files have by one definition, left out": [
            metric for metric in options.metrics if metric not in design.metrics
        ],
        "Checkpoints chosen on cases that are scored here, which flatters them": chosen,
    }
    return [f"{what}: {_listed(names)}." for what, names in given.items() if names]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{len(names)} ({', '.join(names[:MOST_NAMED])}{more})"
