"""Which cases are shown as pictures: lost structures, and the lowest Dice of each class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from medseg.report.sources import Source

MOST_LOST = 12
"""Cases with a missed or invented structure shown for each run, besides the worst."""

MOST_PICTURES = 18
"""Cases shown for each run, whatever the number of classes."""


@dataclass(frozen=True)
class Choice:
    """Why a case is shown.

    Attributes:
        words: The reason.
        class_name: The class whose error the slices go through.
    """

    words: str
    class_name: str


@dataclass(frozen=True)
class Lost:
    """What was lost in one case.

    Attributes:
        words: Every lost structure, in words.
        largest: Class of the largest one.
        volume_ml: Volume of that one.
    """

    words: str
    largest: str
    volume_ml: float


def choose(source: Source, worst: int) -> tuple[Mapping[str, Choice], int, int]:
    """Choose the cases of a run that are shown.

    Args:
        source: The run.
        worst: Cases of lowest Dice for each class; lost structures come on top.

    Returns:
        The cases; how many cases with a lost structure, and how many others, are too many.
    """
    lost = lost_structures(source)
    chosen = {c: Choice(lost[c].words, lost[c].largest) for c in list(lost)[:MOST_LOST]}
    for case_id, choice in _lowest(source, worst).items():
        chosen.setdefault(case_id, choice)
    shown = dict(list(chosen.items())[:MOST_PICTURES])
    left_out = chosen.keys() - shown.keys() - lost.keys()
    return shown, len(lost.keys() - shown.keys()), len(left_out)


def lost_structures(source: Source) -> Mapping[str, Lost]:
    """Return what was lost in each case that lost something, the largest volume first."""
    found: dict[str, Lost] = {}
    for case_id, name, status in source.lost():
        word, side = ("missed", "ref") if status == "missed" else ("invented", "pred")
        size = source.value(case_id, name, f"volume_{side}_ml")
        new = Lost(f"{name} {word}", name, 0.0 if math.isnan(size) else size)
        old = found.get(case_id)
        if old:
            larger = max(old, new, key=lambda lost: lost.volume_ml)
            new = replace(larger, words=f"{old.words}, {new.words}")
        found[case_id] = new
    return dict(sorted(found.items(), key=lambda item: -item[1].volume_ml))


def _lowest(source: Source, worst: int) -> Mapping[str, Choice]:
    """Return the cases of lowest Dice of each class, the lowest of every class first."""
    ranks: dict[str, tuple[int, list[str]]] = {}
    for name in source.class_names:
        values = {c: source.value(c, name, "dice") for c in source.case_ids}
        known = sorted((c for c in values if not math.isnan(values[c])), key=values.__getitem__)
        for rank, case_id in enumerate(known[:worst]):
            best, names = ranks.get(case_id, (rank, []))
            ranks[case_id] = min(best, rank), [*names, name]
    ordered = sorted(ranks.items(), key=lambda item: item[1][0])
    return {
        case_id: Choice(f"among the lowest Dice of {' and '.join(names)}", names[0])
        for case_id, (_, names) in ordered
    }
