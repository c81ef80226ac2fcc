"""Sliding-window inference: one object, shared by validation and prediction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.core.errors import GeometryError, OptionError

SIGMA_SCALE = 0.125
"""Standard deviation of the Gaussian weight as a share of the window (nnU-Net's 1/8)."""

SMALLEST_WEIGHT = 1e-3
"""A voxel only covered by a window's corner still has a usable weight; MONAI's value."""


@dataclass(frozen=True)
class SlidingWindow:
    """Predict a volume of any size from overlapping windows, weighted by a Gaussian.

    Attributes:
        roi_size: Window size, voxels; the training patch size.
        overlap: Share of a window that the next one covers again, in [0, 1).
        sw_batch_size: Windows in one forward pass.
    """

    roi_size: tuple[int, int, int]
    overlap: float = 0.5
    sw_batch_size: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise OptionError(f"overlap must be in [0, 1); got {self.overlap}.")

    def __call__(self, image: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
        """Predict a whole volume.

        Args:
            image: Preprocessed image, shape (1, C, I, J, K), any size.
            network: Logits of a batch of windows, shape (B, C, *roi_size) to (B, classes, …).

        Returns:
            Logits on the image's grid, shape (1, classes, I, J, K), float32.

        Raises:
            GeometryError: If the image is not one volume, or an axis is empty.
        """
        if image.ndim != 5 or image.shape[0] != 1 or min(image.shape) < 1:
            raise GeometryError(f"image must have shape (1, C, I, J, K); got {tuple(image.shape)}.")
        size = image.shape[2:]
        padded, start = _pad_to(image, self.roi_size)
        weight = gaussian_weight(self.roi_size).to(image.device)
        corners = window_corners(padded.shape[2:], self.roi_size, self.overlap)
        total: Tensor | None = None
        weights = torch.zeros(padded.shape[2:], device=image.device)
        for first in range(0, len(corners), self.sw_batch_size):
            some = corners[first : first + self.sw_batch_size]
            boxes = [_box(corner, self.roi_size) for corner in some]
            logits = network(torch.cat([padded[:, :, *box] for box in boxes])).float()
            if total is None:
                total = logits.new_zeros((1, logits.shape[1], *padded.shape[2:]))
            for box, window in zip(boxes, logits, strict=True):
                total[0, :, *box] += window * weight
                weights[box] += weight
        if total is None:  # cannot be: every volume has at least one window
            raise GeometryError(f"no window fits the image {tuple(size)}.")
        return total.div_(weights)[:, :, *_box(start, size)]


def _box(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, slice, slice]:
    i, j, k = (slice(c, c + n) for c, n in zip(corner, size, strict=True))
    return i, j, k


def gaussian_weight(roi_size: Sequence[int]) -> Tensor:
    """Return the weight of each voxel of a window, shape `roi_size`, in (0, 1]."""
    weight = torch.ones(())
    for length in roi_size:
        offset = torch.arange(length, dtype=torch.float32) - (length - 1) / 2
        axis = torch.exp(-0.5 * (offset / (SIGMA_SCALE * length)) ** 2)
        weight = weight[..., None] * axis
    # Never zero: a voxel in the corner of its only window would be divided by nothing.
    return weight.clamp_min(SMALLEST_WEIGHT)


def window_corners(
    size: Sequence[int], roi_size: Sequence[int], overlap: float
) -> list[tuple[int, ...]]:
    """Return the first voxel of every window: evenly spaced, the last flush with the end."""
    axes = []
    for length, window in zip(size, roi_size, strict=True):
        step = max(window * (1 - overlap), 1.0)
        count = math.ceil((length - window) / step) + 1
        last = length - window
        axes.append([round(i * last / max(count - 1, 1)) for i in range(count)])
    return list(itertools.product(*axes))


def _pad_to(image: Tensor, roi_size: Sequence[int]) -> tuple[Tensor, list[int]]:
    """Pad a small image evenly with zeros to the window size; return it and its first voxel."""
    missing = [max(w - n, 0) for n, w in zip(image.shape[2:], roi_size, strict=True)]
    start = [m // 2 for m in missing]
    pads = [p for s, m in zip(start[::-1], missing[::-1], strict=True) for p in (s, m - s)]
    return (F.pad(image, pads) if any(pads) else image), start
