"""What `medseg doctor` has found, and the sentence that it comes to."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from medseg.networks.norms import is_frozen
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
        modes: Dice under the three modes; None where no layer has running statistics that move.
        without_own: Why there is no mode `own`, in words; empty where there is.
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
    without_own: str
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
        return f"nothing to mend: {alike(norm)}."
    facts = f"running statistics are {_away(layers, 'own' in modes.dice)}; Dice " + ", ".join(
        f"{modes.mean(mode):.3f} {mode}" for mode in modes.dice
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


def alike(norm: str) -> str:
    """Say why a norm without running statistics that move has nothing to compare."""
    if is_frozen(norm):
        has = "has running statistics that never move, not in training either"
    else:
        has = "keeps no running statistics"
    return f"norm {norm!r} {has}: training and prediction normalize alike"


def _away(layers: Sequence[LayerFinding], own: bool) -> str:
    """Say how far running statistics are from the cases' own, or from those of the training."""
    distances = [layer.running_own if own else layer.running_precise for layer in layers]
    most = max(distances)
    of_what = "the cases' own" if own else "those of the training patches"
    mean = sum(distances) / len(distances)
    name = layers[distances.index(most)].name
    return f"{most:.2f} SD away from {of_what} at layer {name} (mean of all layers {mean:.2f})"


def _gaps(gaps: dict[str, Difference]) -> str:
    """Return each difference with its interval."""
    return "; ".join(
        f"{mode} {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]" for mode, gap in gaps.items()
    )
