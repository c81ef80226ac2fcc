"""Dice of cases when batch norm takes running, measured or the case's own statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medseg.core.statistics import mean_interval
from medseg.networks.population import (
    ByLayer,
    own_statistics,
    running_statistics,
    use_statistics,
)
from medseg.networks.unet import UNet
from medseg.networks.window import SlidingWindow
from medseg.study.doctor_patient import Examined
from medseg.training.validation import hard_dice


@dataclass(frozen=True)
class Difference:
    """A mean difference of Dice over cases, with its interval at 95 %; NaN for one case."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ModeScores:
    """Dice under each mode.

    Attributes:
        dice: Mean over foreground classes of each case, by mode, in the order of the cases.
        against_running: Difference of each other mode to running statistics.
    """

    dice: dict[str, list[float]]
    against_running: dict[str, Difference]

    def mean(self, mode: str) -> float:
        """Return the mean over cases of a mode."""
        return mean(self.dice[mode])


def own_of_cases(network: UNet, cases: Sequence[Examined], window: SlidingWindow) -> list[ByLayer]:
    """Return each case's own statistics."""
    return [own_statistics(network, case.image, window) for case in cases]


def three_modes(
    network: UNet,
    cases: Sequence[Examined],
    window: SlidingWindow,
    usual: Sequence[float],
    statistics: tuple[ByLayer, Sequence[ByLayer]],
) -> ModeScores:
    """Score cases under the three modes, or under two where cases have no own statistics.

    Args:
        network: Has the running statistics again afterwards.
        cases: With labels.
        window: Of the validation.
        usual: Dice of these cases with running statistics.
        statistics: Those of training patches, and each case's own, or none.
    """
    precise, own = statistics
    running = running_statistics(network)
    modes = {"precise": [precise] * len(cases), **({"own": own} if own else {})}
    dice: dict[str, list[float]] = {"running": [*usual], **{mode: [] for mode in modes}}
    try:
        for mode, of_cases in modes.items():
            for case, values in zip(cases, of_cases, strict=True):
                use_statistics(network, values)
                dice[mode].append(case_dice(network, case, window))
    finally:
        use_statistics(network, running)
    return ModeScores(dice, {mode: difference(dice[mode], usual) for mode in modes})


@torch.no_grad()
def case_dice(network: UNet, case: Examined, window: SlidingWindow) -> float:
    """Return Dice of a case on the training grid, mean over the classes that occur."""
    return dice_of(window(case.image, network), case)


def dice_of(logits: torch.Tensor, case: Examined) -> float:
    """Return the mean Dice over the foreground classes that occur in either; NaN if none does."""
    return float(hard_dice(logits.argmax(1), case.label, logits.shape[1]).nanmean())


def difference(one: Sequence[float], other: Sequence[float]) -> Difference:
    """Return the mean paired difference of two lists of Dice over the same cases."""
    gaps = np.asarray(one, dtype=float) - np.asarray(other, dtype=float)
    gaps = gaps[np.isfinite(gaps)]
    if not len(gaps):
        return Difference(math.nan, math.nan, math.nan)
    interval = mean_interval(gaps)
    return Difference(float(gaps.mean()), interval.low, interval.high)


def mean(values: Sequence[float]) -> float:
    """Return the mean of the finite numbers; NaN if there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
