"""What `medseg doctor` has found, and the sentence that it comes to."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from medseg.study.doctor_invariance import Altered
from medseg.study.doctor_layers import LayerFinding
from medseg.study.doctor_modes import Difference, ModeScores
from medseg.study.doctor_probes import MateNoise, WindowChange

MARGIN = 0.005
"""A difference of Dice that is worth acting on; a convention, as in the studies' recommendation."""


@dataclass(frozen=True)
class Findings:
    """One examination.

    Attributes:
        name: Of the run.
        run: Its directory as given.
        checkpoint: Which, as named.
        checkpoint_sha256: Of its file.
        norm: Of the network.
        fold: Whose cases it was examined with.
        cases: These cases.
        training_patches: Patches behind the measured statistics; 0 where there was nothing to do.
        seconds: Time it took.
        finding: What it comes to, in one sentence.
        layers: Layers with running statistics.
        modes: Dice under the three modes; None where no layer has running statistics.
        usual_dice: Mean Dice as predicted.
        mates: Dependence on the batch in training mode.
        windows: Dependence on how the windows lie.
        altered: Dependence on intensities.
    """

    name: str
    run: str
    checkpoint: str
    checkpoint_sha256: str
    norm: str
    fold: int
    cases: tuple[str, ...]
    training_patches: int
    seconds: float
    finding: str
    layers: tuple[LayerFinding, ...]
    modes: ModeScores | None
    usual_dice: float
    mates: MateNoise
    windows: tuple[WindowChange, ...]
    altered: tuple[Altered, ...]


def finding(run: str, norm: str, layers: Sequence[LayerFinding], modes: ModeScores | None) -> str:
    """Return the one sentence that says what is wrong and what mends it, or that nothing is.

    Args:
        run: Run directory, for the command that mends it.
        norm: Of the network.
        layers: Layers with running statistics.
        modes: Dice under the three modes.
    """
    if modes is None or not layers:
        return (
            f"nothing to mend: norm {norm!r} keeps no running statistics, so that training and "
            "prediction normalize alike."
        )
    far = max(layers, key=lambda layer: layer.running_own)
    facts = (
        f"running statistics are {far.running_own:.2f} SD away from the cases' own at layer "
        f"{far.name} (mean of all layers {_mean_distance(layers):.2f}); Dice "
        + ", ".join(f"{modes.mean(mode):.3f} {mode}" for mode in modes.dice)
    )
    cases = len(modes.dice["running"])
    if cases < 2:
        return f"not decidable with one case: {facts}. Examine more (--cases_max)."
    better = {
        mode: gap for mode, gap in modes.against_running.items()
        if gap.low > 0 and gap.mean >= MARGIN
    }  # fmt: skip
    if not better:
        return (
            f"nothing to mend: {facts}; no mode gains {MARGIN} Dice over running statistics with "
            f"certainty on {cases} cases ({_gaps(modes.against_running)})."
        )
    best = max(better, key=lambda mode: better[mode].mean)
    mends = {
        "precise": f"recalibrate: `medseg doctor --run {shlex.quote(run)} --recalibrate pooled`",
        "own": "predict with --norm_statistics own",
    }
    return f"{facts}: {mends[best]} ({_gaps({best: better[best]})} on {cases} cases)."


def _mean_distance(layers: Sequence[LayerFinding]) -> float:
    return sum(layer.running_own for layer in layers) / len(layers)


def _gaps(gaps: dict[str, Difference]) -> str:
    """Return each difference with its interval."""
    return "; ".join(
        f"{mode} {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]" for mode, gap in gaps.items()
    )
