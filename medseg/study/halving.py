"""Successive halving: of each norm's learning rates the worse half stops early; norms never do.

Jamieson and Talwalkar 2016, with learning rates as the arms. All seeds and folds of a rate stand
and fall together, since a rate is chosen by the mean of all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from medseg.report.files import read_curves
from medseg.study.flags import FOLD, SHORT_NAMES, word
from medseg.study.planned import HALVED, Planned

RATE, SEED = SHORT_NAMES["learning_rate"], SHORT_NAMES["seed"]


def groups(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Return the runs whose learning rates compete: all of one norm, batch size and so on.

    A run of a study without halving is alone.
    """
    found: dict[str, list[Planned]] = {}
    for entry in planned:
        if not entry.run.rungs:
            found[entry.run.name] = [entry]
            continue
        rest = {k: word(v) for k, v in entry.run.cell.items() if k not in (RATE, SEED, FOLD)}
        found.setdefault(json.dumps(rest, sort_keys=True), []).append(entry)
    return list(found.values())


def note_halved(planned: Sequence[Planned]) -> list[str]:
    """Note in each run whether it is halved away; return the names of those that are now.

    Runs that have come to their end stay as they are. A group of which a run that still takes part
    has failed, or is not there yet, is not judged further.
    """
    halved = []
    for group in _competing(planned):
        behind = dict(_behind(group))
        for entry in group:
            was = entry.state == HALVED
            if reason := behind.get(entry.run.name):
                entry.note(status=HALVED, reason=reason)
                halved += [] if was else [entry.run.name]
            elif was:
                entry.note(status="paused")
    return halved


def reached(entry: Planned, rung: int) -> float | None:
    """Return the Dice on the choosing fold after so many validations; None before that.

    A network that diverged has 0 from then on.
    """
    rows = read_curves(entry.files.curves)
    if len(rows) >= rung:
        return rows[rung - 1].get("val/dice", 0.0)
    return 0.0 if entry.divergence else None


def expected_shares(planned: Sequence[Planned]) -> dict[str, float]:
    """Return which share of its steps each run will take, on the average over learning rates."""
    shares: dict[str, float] = {}
    for group in _competing(planned):
        rates, rungs = len({entry.run.cell[RATE] for entry in group}), group[0].run.rungs
        data, trainer = group[0].settings["data"], group[0].settings["trainer"]
        ends = [*rungs, trainer["max_steps"] / data["steps_per_epoch"]]
        spent, kept, begin = 0.0, rates, 0.0
        for end in ends:
            spent += (end - begin) * kept / rates
            kept, begin = -(-kept // 2), end
        shares |= dict.fromkeys((entry.run.name for entry in group), spent / ends[-1])
    return shares


def _competing(planned: Sequence[Planned]) -> list[list[Planned]]:
    return [group for group in groups(planned) if group[0].run.rungs]


def _behind(group: Sequence[Planned]) -> Iterator[tuple[str, str]]:
    """Yield the runs of the rates that are behind, each with the reason."""
    alive: dict[float, list[Planned]] = {}
    for entry in group:
        alive.setdefault(float(entry.run.cell[RATE]), []).append(entry)
    for rung in group[0].run.rungs:
        means = {}
        for rate, entries in alive.items():
            values = [reached(entry, rung) for entry in entries]
            known = [value for value in values if value is not None]
            if len(known) < len(values):
                return
            means[rate] = sum(known) / len(known)
        # The smaller of equals, as where a rate is chosen.
        order = sorted(means, key=lambda rate: (-means[rate], rate))
        kept = order[: -(-len(order) // 2)]
        told = ", ".join(f"{rate:g} had {means[rate]:.3f}" for rate in kept)
        for rate in order[len(kept) :]:
            reason = (
                f"Dice {means[rate]:.3f} on fold {group[0].fold} after {rung} validations; {told}"
            )
            yield from (
                (entry.run.name, reason)
                for entry in alive.pop(rate)
                if entry.state in ("new", "interrupted", HALVED)
            )
