"""What the labels of a trained network depend on besides the image: its batch, its windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medseg.networks.norms import NORMS
from medseg.networks.population import batch_mode
from medseg.networks.unet import UNet
from medseg.networks.window import SlidingWindow
from medseg.study.doctor_modes import Difference, dice_of, difference, mean
from medseg.study.doctor_patient import Examined, Patient

DRAWS = 16
"""Sets of batch mates that one patch is seen with."""

FEW_DRAWS = 2
"""Likewise where a norm is not to mix a batch: enough to see that nothing changes."""

LARGER = 1.25
"""Windows of this length, or the next that fits the network, against those of the training."""

SMALLER = 0.75
"""Likewise; the next shorter one, where two voxels are left of it at the coarsest level."""

LITTLE_OVERLAP, USUAL_OVERLAP = 0.25, 0.5
"""Less overlap than usual shows seams at little cost; the usual one where a training had little."""


@dataclass(frozen=True)
class MateNoise:
    """How much the logits of one patch depend on the others of its batch, in training mode.

    Attributes:
        batch_size: Patches in a batch, at least 2.
        draws: Sets of batch mates.
        variance: Of a logit over these sets, mean over voxels and classes.
        share: The same as a share of the variance of the logits over voxels.
    """

    batch_size: int
    draws: int
    variance: float
    share: float


@dataclass(frozen=True)
class WindowChange:
    """What becomes of cases when the windows lie otherwise.

    Attributes:
        name: What is changed.
        logits: Mean absolute change of a logit, in standard deviations of the case's logits.
        changed: Share of voxels that get another class.
        dice: Mean Dice over cases with the change.
        against: Its difference to the windows of the training.
        same: Whether it changes no window, since these images are small.
    """

    name: str
    logits: float
    changed: float
    dice: float
    against: Difference
    same: bool = False


@torch.no_grad()
def mate_noise(patient: Patient) -> MateNoise:
    """Measure how a patch's logits vary over sets of batch mates; 0 where norms do not mix them."""
    size = max(patient.data.batch_size, 2)
    mixes = NORMS[patient.trained.description.norm].batch_dependent
    draws = DRAWS if mixes else FEW_DRAWS
    patches = _patches(patient, 1 + draws * (size - 1))
    fixed = next(patches)
    first: Tensor | None = None
    total = square = torch.zeros((), dtype=torch.float64)
    with batch_mode(patient.network):
        for _ in range(draws):
            mates = [next(patches) for _ in range(size - 1)]
            logits = patient.network(torch.cat([fixed, *mates]))[0].double().cpu()
            # Differences to the first draw: where all are equal the variance is exactly 0.
            first = logits if first is None else first
            total = total + (logits - first)
            square = square + (logits - first) ** 2
    variance = float((square / draws - (total / draws) ** 2).clamp_min(0.0).mean())
    scale = 0.0 if first is None else float(first.var())
    return MateNoise(size, draws, variance, variance / scale if scale else math.nan)


def _patches(patient: Patient, count: int) -> Iterator[Tensor]:
    """Yield single training patches, shape (1, C, *patch_size)."""
    for batch in patient.data.population(-(-count // patient.data.batch_size)):
        yield from torch.split(batch.to(patient.device), 1)


def window_changes(
    network: UNet, cases: Sequence[Examined], window: SlidingWindow
) -> tuple[list[float], list[WindowChange]]:
    """Label cases with other windows.

    Args:
        network: With running statistics.
        cases: With labels.
        window: Of the training's validation.

    Returns:
        Dice of each case with the windows of the training, and what each change does.
    """
    overlap = LITTLE_OVERLAP if window.overlap > LITTLE_OVERLAP else USUAL_OVERLAP
    variants = {f"overlap {overlap}": replace(window, overlap=overlap)}
    for resized in resized_windows(window, network.architecture.divisor):
        variants["windows of " + " × ".join(map(str, resized.roi_size))] = resized
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in variants}
    moved = dict.fromkeys(variants, False)
    usual = []
    with torch.no_grad():
        for case in cases:
            before = window(case.image, network)
            usual.append(dice_of(before, case))
            for name, changed in variants.items():
                same = changed.is_same_on(case.image, window)
                moved[name] |= not same
                after = before if same else changed(case.image, network)
                found[name].append((*_gap(before, after), dice_of(after, case)))
    return usual, [_change(name, rows, usual, not moved[name]) for name, rows in found.items()]


def resized_windows(window: SlidingWindow, divisor: Sequence[int]) -> list[SlidingWindow]:
    """Return larger windows, and smaller ones where there can be any, as the network takes them."""
    pairs = list(zip(window.roi_size, divisor, strict=True))
    larger = [max(math.ceil(n * LARGER / step), n // step + 1) * step for n, step in pairs]
    smaller = [max(min(int(n * SMALLER / step), n // step - 1), 2) * step for n, step in pairs]
    smaller = [min(length, n) for length, n in zip(smaller, window.roi_size, strict=True)]
    sizes = [larger] if tuple(smaller) == window.roi_size else [larger, smaller]
    return [replace(window, roi_size=(i, j, k)) for i, j, k in sizes]


def _gap(before: Tensor, after: Tensor) -> tuple[float, float]:
    change = float((after - before).abs().mean() / before.std())
    return change, float((after.argmax(1) != before.argmax(1)).double().mean())


def _change(
    name: str, rows: Sequence[tuple[float, float, float]], usual: Sequence[float], same: bool
) -> WindowChange:
    logits, changed, dice = (list(column) for column in zip(*rows, strict=True))
    return WindowChange(
        name, mean(logits), mean(changed), mean(dice), difference(dice, usual), same
    )
