"""Studies made by hand: outcomes of given numbers."""

from dataclasses import replace

import numpy as np

from medseg.study.measurements import CaseScores, Curve, Probes
from medseg.study.outcomes import Outcome, Study


def outcome(norm, dice=None, *, batch_size=2, rate=0.01, seed=0, choosing=0.8, **others):
    """Return one outcome; `dice` of each reporting case, or complete scores."""
    scores = CaseScores(tuple(map(float, dice))) if isinstance(dice, list | np.ndarray) else dice
    return Outcome(norm, batch_size, rate, seed, choosing=choosing, scores=scores, **others)


def study(outcomes, cases=None, **others):
    outcomes = tuple(outcomes)
    if cases is None:
        cases = max((len(o.scores.dice) for o in outcomes if o.scores), default=0)
    return Study(outcomes, tuple(f"case_{i:03d}" for i in range(cases)), **others)


def noisy(gains, *, cases=40, seeds=3, seed=0, case_sd=0.01, seed_sd=0.002, **others):
    """Return a study in which each norm has a gain over 0.8, and its own noise."""
    rng = np.random.default_rng(seed)
    base = 0.8 + rng.normal(0, 0.05, cases)
    return study(
        outcome(norm, base + gain + rng.normal(0, case_sd, cases) + rng.normal(0, seed_sd),
                seed=s, **others)
        for norm, gain in gains.items() for s in range(seeds)
    )  # fmt: skip


def changed(table, **by_norm):
    """Return a study in which the outcomes of some norms have other fields."""
    rows = (replace(o, **by_norm.get(o.norm, {})) for o in table.outcomes)
    return replace(table, outcomes=tuple(rows))


def curve(dice, every=10, batch_size=2, seconds=0.5, train=None):
    """Return a curve with validations every so many samples."""
    samples = tuple(float(every * (i + 1)) for i in range(len(dice)))
    steps = tuple(x / batch_size for x in samples)
    return Curve(samples, steps, tuple(x * seconds for x in steps), tuple(dice), train)


def probed(norm, values, *, name, batch_size=2):
    """Return the outcomes of one norm, a probe of each seed."""
    return [
        outcome(norm, batch_size=batch_size, seed=s, probes=Probes(**{name: float(v)}))
        for s, v in enumerate(values)
    ]
