"""Dice of cases whose intensities another scanner might have given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medseg.core.manifest import Case
from medseg.data.resample import resample
from medseg.data.transforms import Reading, canonical_grid, read_channels, scale_intensity
from medseg.study.doctor_modes import Difference, case_dice, difference, mean
from medseg.study.doctor_patient import Examined, Patient

Alteration = Callable[[Tensor], Tensor]
"""From a channel as read, shape (I, J, K), to one as another scanner gives it."""

FIELD = 0.3
"""Logarithm of the bias field at the ends of an axis; the largest that training draws."""


def _shift(channel: Tensor) -> Tensor:
    """Add half a standard deviation of what is not zero."""
    return channel + 0.5 * channel[channel != 0].std().nan_to_num(0.0)


def _gamma(power: float) -> Alteration:
    """Return a gamma curve between the darkest and the brightest voxel."""

    def bent(channel: Tensor) -> Tensor:
        low, high = channel.min(), channel.max()
        span = (high - low).clamp_min(torch.finfo(channel.dtype).tiny)
        return ((channel - low) / span) ** power * span + low

    return bent


def _bias_field(channel: Tensor) -> Tensor:
    """Brighten one end of the first axis and darken the other."""
    ramp = torch.linspace(-FIELD, FIELD, channel.shape[0]).exp()
    return channel * ramp[:, None, None]


ALTERATIONS: dict[str, Alteration] = {
    "gain 0.5": lambda channel: channel * 0.5,
    "gain 2": lambda channel: channel * 2.0,
    "shift by 0.5 SD": _shift,
    "gamma 0.7": _gamma(0.7),
    "gamma 1.5": _gamma(1.5),
    "bias field ±0.3": _bias_field,
}
"""Gain and shift as in a study of invariance; gamma and field at the ends of training's ranges."""


@dataclass(frozen=True)
class Altered:
    """What an alteration of the images does.

    Attributes:
        name: Of the alteration.
        dice: Mean Dice over cases with it.
        against: Its difference to the images as they are.
    """

    name: str
    dice: float
    against: Difference


def invariance(
    patient: Patient, cases: Sequence[Examined], usual: Sequence[float]
) -> list[Altered]:
    """Label altered images, read and scaled anew, so that scaling may undo what it can.

    Args:
        patient: Network with running statistics.
        cases: With labels.
        usual: Dice of these cases as they are.
    """
    listed = {case.case_id: case for case in patient.data.val_cases}
    dice: dict[str, list[float]] = {name: [] for name in ALTERATIONS}
    for case, as_it_is in zip(cases, usual, strict=True):
        images = _altered(patient, listed[case.case_id])
        for name, image in zip(ALTERATIONS, images, strict=True):
            changed = Examined(case.case_id, image.to(patient.device), case.label)
            undone = torch.equal(changed.image, case.image)  # by the scaling, a gain often is
            dice[name].append(
                as_it_is if undone else case_dice(patient.network, changed, patient.window)
            )
    return [Altered(name, mean(rows), difference(rows, usual)) for name, rows in dice.items()]


def _altered(patient: Patient, case: Case) -> list[Tensor]:
    """Return a case under each alteration as the network sees it, each (1, C, I, J, K)."""
    data = patient.data
    paths = [data.manifest.file(name) for name in case.images]
    values, original, _ = read_channels(paths, len(data.manifest.channel_names), Reading())
    grid = canonical_grid(original, data.preprocessing)
    values = resample(values, original, grid)
    images = []
    for alter in ALTERATIONS.values():
        image = torch.stack([alter(channel) for channel in values])
        scale_intensity(image, data.preprocessing.intensity)
        images.append(image[None])
    return images
