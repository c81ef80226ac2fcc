"""What is varied in training: whole batches, on the device that trains, drawn by patch number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from monai.transforms import Transform
from torch import Tensor
from torch.nn import functional as F

from medseg.core.errors import OptionError

_DRAWS = 2
"""Sets the draws of this file apart from those of `medseg.data.patches` under the same seed."""

_LOW_RESOLUTION = (0.5, 1.0)
_BLUR = (0.5, 1.0)
_BRIGHTNESS = (0.75, 1.25)
_CONTRAST = (0.75, 1.25)
_GAMMA = (0.7, 1.5)
_NOISE = (0.0, 0.1)
_BIAS = 0.3
"""Ranges follow nnU-Net's (Isensee 2021, supplement): blur in voxels, noise in standard deviations
of the scaled image, the bias field's largest logarithm."""


_STRENGTHS = ("rotation", "scale")


@dataclass(frozen=True)
class Augmentation:
    """What is varied in training: the probability of each kind per patch.

    Attributes:
        flip_axes: Axes that may be mirrored; only where anatomy allows (no left and right classes).
        flip: Probability for each of these axes.
        affine: Probability of rotation up to `rotation` degrees and scaling.
        rotation: Largest angle about each axis, degrees; in mm, whatever the spacing.
        scale: Largest relative change of size.
        elastic: Probability of a smooth random deformation.
        noise: Probability of Gaussian noise.
        blur: Probability of Gaussian blur.
        brightness: Probability of multiplication by 0.75 to 1.25.
        contrast: Probability of stretching by 0.75 to 1.25 about the mean.
        gamma: Probability of a gamma curve, 0.7 to 1.5.
        low_resolution: Probability of a patch sampled down and up again.
        bias_field: Probability of a smooth multiplicative field, as MR coils make it.
        transforms: MONAI dictionary transforms of your own (class_path and init_args), over the
            keys image and label; applied to each patch in the loader, they must keep its shape.
    """

    flip_axes: list[int] = field(default_factory=list)
    flip: float = 0.5
    affine: float = 0.3
    rotation: float = 15.0
    scale: float = 0.2
    elastic: float = 0.0
    noise: float = 0.1
    blur: float = 0.1
    brightness: float = 0.15
    contrast: float = 0.15
    gamma: float = 0.2
    low_resolution: float = 0.1
    bias_field: float = 0.1
    transforms: list[Transform] | None = None

    def __post_init__(self) -> None:
        if any(axis not in (0, 1, 2) for axis in self.flip_axes):
            raise OptionError(f"flip_axes must be among 0, 1 and 2; got {self.flip_axes}.")
        for name, value in vars(self).items():
            if isinstance(value, float | int) and name not in _STRENGTHS and not 0 <= value <= 1:
                raise OptionError(f"augmentation.{name} is a probability, 0 to 1; got {value}.")
        if not (0 <= self.rotation <= 180 and 0 <= self.scale < 1):
            raise OptionError(
                "augmentation.rotation must be 0 to 180 degrees and scale in [0, 1); "
                f"got {self.rotation} and {self.scale}."
            )


class Augmenter:
    """Vary batches of patches; what happens to a patch depends on (seed, its number) alone.

    Args:
        settings: Probabilities.
        seed: Of all draws.
        spacing: Of the patches, mm; rotations are in mm. Isotropic if None.
    """

    def __init__(
        self, settings: Augmentation, seed: int, spacing: Sequence[float] | None = None
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.spacing = np.asarray(spacing or (1.0, 1.0, 1.0), dtype=float)

    def __call__(
        self, image: Tensor, label: Tensor, numbers: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return varied copies.

        Args:
            image: Shape (B, C, I, J, K), float32.
            label: Class indices, shape (B, I, J, K), uint8.
            numbers: Of the B patches.
        """
        image, label = image.clone(), label.clone()
        for place, number in enumerate(numbers):
            rng = np.random.default_rng([self.seed, _DRAWS, int(number)])
            self._mirror(rng, image[place], label[place])
            self._move(rng, image[place], label[place])
            for channel in image[place]:
                self._recolour(rng, channel)
        return image, label

    def _mirror(self, rng: np.random.Generator, image: Tensor, label: Tensor) -> None:
        axes = [axis for axis in self.settings.flip_axes if rng.random() < self.settings.flip]
        if axes:
            image.copy_(image.flip([axis + 1 for axis in axes]))
            label.copy_(label.flip(axes))

    def _move(self, rng: np.random.Generator, image: Tensor, label: Tensor) -> None:
        """Rotate, scale and deform image and label together."""
        chosen = self.settings
        affine, elastic = rng.random() < chosen.affine, rng.random() < chosen.elastic
        if not affine and not elastic:
            return
        size = np.asarray(label.shape, dtype=float)
        matrix = self._matrix(rng, size) if affine else np.eye(3)
        # `grid_sample` counts axes from the last one.
        theta = torch.zeros(1, 3, 4)
        theta[0, :, :3] = torch.from_numpy(matrix[::-1, ::-1].copy()).float()
        places = F.affine_grid(theta.to(image.device), [1, 1, *label.shape], align_corners=False)
        if elastic:
            places = places + _waves(rng, size, places)
        places = places.to(image.dtype)
        moved = F.grid_sample(image[None], places, padding_mode="border", align_corners=False)
        image.copy_(moved[0])
        classes = label[None, None].to(image.dtype)
        nearest = F.grid_sample(
            classes, places, mode="nearest", padding_mode="border", align_corners=False
        )
        label.copy_(nearest[0, 0].round())

    def _matrix(self, rng: np.random.Generator, size: np.ndarray) -> np.ndarray:
        """Return a rotation and scaling in mm, as it acts on places from -1 to 1."""
        angles = np.deg2rad(rng.uniform(-1, 1, 3) * self.settings.rotation)
        matrix = np.diag(1 + rng.uniform(-1, 1, 3) * self.settings.scale)
        for axis, angle in enumerate(angles):
            one, other = [index for index in range(3) if index != axis]
            turn = np.eye(3)
            turn[one, one] = turn[other, other] = math.cos(angle)
            turn[one, other], turn[other, one] = -math.sin(angle), math.sin(angle)
            matrix = turn @ matrix
        extent = size * self.spacing / 2
        return np.asarray(matrix * extent[None, :] / extent[:, None])

    def _recolour(self, rng: np.random.Generator, channel: Tensor) -> None:
        """Vary the intensities of one channel, shape (I, J, K), in place."""
        chosen = self.settings
        if rng.random() < chosen.noise:
            # Drawn on the CPU: the same on every device.
            generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
            pinned = channel.is_cuda  # or the copy would wait for all that the GPU has to do
            noise = torch.randn(channel.shape, generator=generator, pin_memory=pinned)
            channel += noise.mul_(rng.uniform(*_NOISE)).to(channel.device, non_blocking=True)
        if rng.random() < chosen.blur:
            channel.copy_(_blurred(channel, rng.uniform(*_BLUR)))
        if rng.random() < chosen.brightness:
            channel *= rng.uniform(*_BRIGHTNESS)
        if rng.random() < chosen.contrast:
            mean, low, high = channel.mean(), channel.min(), channel.max()
            channel.sub_(mean).mul_(rng.uniform(*_CONTRAST)).add_(mean).clamp_(low, high)
        if rng.random() < chosen.bias_field:
            channel *= _bias_field(rng, channel)
        if rng.random() < chosen.low_resolution:
            channel.copy_(_coarse(channel, rng.uniform(*_LOW_RESOLUTION)))
        if rng.random() < chosen.gamma:
            channel.copy_(_gamma(channel, rng.uniform(*_GAMMA)))


_WAVE_VOXELS = 10.0
"""Distance between the random displacements that a deformation runs through, voxels."""
_WAVE_SIZE = 1.5
"""Their standard deviation, voxels: well below a third of the distance, where folds begin."""


def _waves(rng: np.random.Generator, size: np.ndarray, places: Tensor) -> Tensor:
    """Return smooth displacements, shape (1, I, J, K, 3), in `grid_sample`'s places."""
    knots = np.maximum(np.ceil(size / _WAVE_VOXELS).astype(int) + 1, 2)
    drawn = rng.normal(0, _WAVE_SIZE, (3, *knots)) * (2 / size[::-1])[:, None, None, None]
    coarse = torch.from_numpy(drawn).float()[None].to(places.device)
    shape = tuple(int(length) for length in size)
    return F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True).movedim(1, -1)


def _blurred(channel: Tensor, sigma: float) -> Tensor:
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, device=channel.device, dtype=channel.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel /= kernel.sum()
    out = channel[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = len(kernel)
        padding = [0, 0, 0, 0, 0, 0]
        padding[4 - 2 * axis : 6 - 2 * axis] = [reach, reach]
        out = F.conv3d(F.pad(out, padding, mode="replicate"), kernel.reshape(shape))
    return out[0, 0]


def _coarse(channel: Tensor, zoom: float) -> Tensor:
    """Return the channel sampled down by the nearest voxel and up again."""
    size = [max(1, round(length * zoom)) for length in channel.shape]
    small = F.interpolate(channel[None, None], size=size, mode="nearest-exact")
    return F.interpolate(small, size=channel.shape, mode="trilinear", align_corners=False)[0, 0]


def _gamma(channel: Tensor, gamma: float) -> Tensor:
    """Return the gamma curve over the channel's own range, with its mean and deviation."""
    low, mean, spread = channel.min(), channel.mean(), channel.std()
    width = (channel.max() - low).clamp_min(1e-7)
    curved = ((channel - low) / width) ** gamma
    return (curved - curved.mean()) / curved.std().clamp_min(1e-7) * spread + mean


def _bias_field(rng: np.random.Generator, channel: Tensor) -> Tensor:
    """Return a smooth positive field about 1: the exponential of a polynomial of degree 2."""
    axes = [torch.linspace(-1, 1, length, device=channel.device) for length in channel.shape]
    powers = [torch.stack([torch.ones_like(axis), axis, axis**2 - 1 / 3]) for axis in axes]
    drawn = torch.from_numpy(rng.uniform(-1, 1, (3, 3, 3))).float().to(channel.device)
    drawn[0, 0, 0] = 0.0
    wave = torch.einsum("abc,ai,bj,ck->ijk", drawn, *powers)
    return torch.exp(wave * (_BIAS / wave.abs().max().clamp_min(1e-7)))
