"""Score files read to be compared, and the variant each belongs to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from medseg.core.endpoints import PRIMARY
from medseg.core.errors import OptionError, check_choice, problems
from medseg.core.metrics import METRICS
from medseg.evaluation.compare_options import CompareOptions
from medseg.report.contestants import Contestant
from medseg.report.sources import Source, read_source


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
