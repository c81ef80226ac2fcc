"""Where the windows of a sliding window lie, and how much each of their voxels counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SIGMA_SCALE = 0.125
"""Standard deviation of the Gaussian weight as a share of the window (nnU-Net's 1/8)."""

SMALLEST_WEIGHT = 1e-3
"""A voxel only covered by a window's corner still has a usable weight; MONAI's value."""

EMPTY_SHARE = 0.01
"""A window is empty if no channel in it rises above its minimum by this share of its range."""

Span = tuple[int, int]
"""First index, and one past the last."""

Box = tuple[slice, slice, slice]


def box_at(corner: Sequence[int], size: Sequence[int]) -> Box:
    """Return the slices of a box, from its first voxel and its size."""
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


def axis_corners(span: Span, window: int, overlap: float) -> list[int]:
    """Return where the windows along an axis begin: evenly, the last flush with the end."""
    first, last = span
    step = max(window * (1 - overlap), 1.0)
    rest = last - first - window
    count = math.ceil(rest / step) + 1
    return [first + round(i * rest / max(count - 1, 1)) for i in range(count)]


def pad_to(image: Tensor, roi_size: Sequence[int]) -> tuple[Tensor, list[int]]:
    """Pad a small image evenly with zeros to the window size; return it and its first voxel."""
    missing = [max(w - n, 0) for n, w in zip(image.shape[2:], roi_size, strict=True)]
    start = [m // 2 for m in missing]
    pads = [p for s, m in zip(start[::-1], missing[::-1], strict=True) for p in (s, m - s)]
    return (F.pad(image, pads) if any(pads) else image), start


def content_of(image: Tensor) -> Tensor | None:
    """Return where an image (C, I, J, K) is not empty, or None if it is so everywhere."""
    content = torch.zeros(image.shape[1:], dtype=torch.bool, device=image.device)
    for channel in image:
        low, high = torch.aminmax(channel)
        content |= channel > low + EMPTY_SHARE * (high - low)
    return content if bool(content.any()) else None


def window_corners(
    size: Sequence[int], roi_size: Sequence[int], overlap: float, content: Tensor | None = None
) -> list[list[int]]:
    """Return the first voxels of the windows along each axis.

    Args:
        size: Of the image, at least the window's.
        roi_size: Of the window.
        overlap: Share of a window that the next one covers again.
        content: Where the image is not empty; the windows are laid over its box if given.
    """
    if content is None:
        pairs = zip(size, roi_size, strict=True)
        return [axis_corners((0, length), roi, overlap) for length, roi in pairs]
    corners = []
    for axis, (length, roi) in enumerate(zip(size, roi_size, strict=True)):
        others = [other for other in range(3) if other != axis]
        filled = content.any(dim=others[1]).any(dim=others[0]).nonzero()
        first, last = int(filled[0]), int(filled[-1]) + 1
        missing = max(roi - (last - first), 0)
        first = min(max(first - missing // 2, 0), length - max(roi, last - first))
        corners.append(axis_corners((first, max(last, first + roi)), roi, overlap))
    return corners
