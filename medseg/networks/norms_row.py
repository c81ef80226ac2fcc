"""What a row of the norm registry says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from medseg.networks.norms_batch import VIRTUAL_BATCH

Build = Callable[[int, int], nn.Module]
UNLIMITED = 1 << 62


@dataclass(frozen=True)
class Norm:
    """One row of the registry.

    Attributes:
        build: Makes the layer, without activation, for a channel count and a group count.
        over: What the statistics run over, in words.
        values: Values behind one statistic: (batch, channels, groups, voxels) to their number.
        source: Where it comes from.
        saved: Tensors kept for backward by layer and own activation, in multiples of its input.
        batch_dependent: Whether a sample's output in training depends on its batch mates.
        eval_differs: Whether evaluation uses other statistics than training.
        removes_mean: Whether it subtracts a mean; the convolution before it then has no bias.
        folds: Whether it can be merged into the convolution before it at inference.
        groups: Whether the number of groups matters.
        standardizes: Whether the weights of the convolution before it are standardized.
        activation: Makes its own activation for a channel count; None: it brings none.
        fused: Makes norm and activation as one layer, where they cannot follow one another.
        family: Rows of one family have the same state, and start from one another's weights.
    """

    build: Build
    over: str
    values: Callable[[int, int, int, int], int]
    source: str
    saved: int
    batch_dependent: bool = False
    eval_differs: bool = False
    removes_mean: bool = True
    folds: bool = False
    groups: bool = False
    standardizes: bool = False
    activation: Callable[[int], nn.Module] | None = None
    fused: Build | None = None
    family: str = ""


def unlimited(_batch: int, _channels: int, _groups: int, _voxels: int) -> int:
    """Return a number for norms without statistics."""
    return UNLIMITED


def of_batch(samples: int, _channels: int, _groups: int, voxels: int) -> int:
    """Count what batch norm's statistics run over."""
    return samples * voxels


def of_ghost(samples: int, _channels: int, _groups: int, voxels: int) -> int:
    """Count what those of the smallest part of a batch run over."""
    parts = -(-samples // VIRTUAL_BATCH)
    return samples // parts * voxels


def of_sample(_batch: int, _channels: int, _groups: int, voxels: int) -> int:
    """Count what instance norm's run over."""
    return voxels


def of_group(_batch: int, channels: int, groups: int, voxels: int) -> int:
    """Count what group norm's run over."""
    return channels // groups * voxels


def of_layer(_batch: int, channels: int, _groups: int, voxels: int) -> int:
    """Count what layer norm's run over."""
    return channels * voxels


def of_voxel(_batch: int, channels: int, _groups: int, _voxels: int) -> int:
    """Count what those over channels run over."""
    return channels
