"""THE norm registry: every normalization layer the networks know, and what it needs to work.

A row is complete: always affine, one epsilon, no bias on the convolution before it where it removes
the mean, so that two rows differ in nothing but the norm. A new norm is one class and one row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from medseg.core.errors import GeometryError, OptionError, check_choice

EPS = 1e-5
"""Added to every variance; PyTorch's and nnU-Net's value."""

DEFAULT_GROUPS = 8


@dataclass(frozen=True)
class Norm:
    """One row of the registry.

    Attributes:
        build: Makes the layer for a channel count and a group count.
        over: What the statistics run over, in words.
        values: Values behind one statistic: (batch, channels, groups, voxels) to their number.
        batch_dependent: Whether a sample's output in training depends on its batch mates.
        eval_differs: Whether evaluation uses other statistics than training.
        removes_mean: Whether it subtracts a mean; the convolution before it then has no bias.
        folds: Whether it can be merged into the convolution before it at inference.
        source: Where it comes from.
    """

    build: Callable[[int, int], nn.Module]
    over: str
    values: Callable[[int, int, int, int], int]
    batch_dependent: bool
    eval_differs: bool
    removes_mean: bool
    folds: bool
    source: str


def _unlimited(_batch: int, _channels: int, _groups: int, _voxels: int) -> int:
    return 1 << 62


NORMS: dict[str, Norm] = {
    "none": Norm(
        build=lambda _channels, _groups: nn.Identity(),
        over="nothing",
        values=_unlimited,
        batch_dependent=False,
        eval_differs=False,
        removes_mean=False,
        folds=True,
        source="-",
    ),
    "batch": Norm(
        build=lambda channels, _groups: nn.BatchNorm3d(channels, eps=EPS),
        over="batch and voxels, per channel",
        values=lambda batch, _channels, _groups, voxels: batch * voxels,
        batch_dependent=True,
        eval_differs=True,
        removes_mean=True,
        folds=True,
        source="Ioffe & Szegedy 2015, arXiv 1502.03167",
    ),
    "sync_batch": Norm(
        build=lambda channels, _groups: nn.SyncBatchNorm(channels, eps=EPS),
        over="batch of all devices and voxels, per channel",
        values=lambda batch, _channels, _groups, voxels: batch * voxels,
        batch_dependent=True,
        eval_differs=True,
        removes_mean=True,
        folds=True,
        source="torch.nn.SyncBatchNorm",
    ),
    "instance": Norm(
        build=lambda channels, _groups: nn.InstanceNorm3d(channels, eps=EPS, affine=True),
        over="voxels, per sample and channel",
        values=lambda _batch, _channels, _groups, voxels: voxels,
        batch_dependent=False,
        eval_differs=False,
        removes_mean=True,
        folds=False,
        source="Ulyanov 2016, arXiv 1607.08022",
    ),
    "group": Norm(
        build=lambda channels, groups: nn.GroupNorm(groups, channels, eps=EPS),
        over="voxels and the channels of a group, per sample",
        values=lambda _batch, channels, groups, voxels: channels // groups * voxels,
        batch_dependent=False,
        eval_differs=False,
        removes_mean=True,
        folds=False,
        source="Wu & He 2018, arXiv 1803.08494",
    ),
    "layer": Norm(
        build=lambda channels, _groups: nn.GroupNorm(1, channels, eps=EPS),
        over="voxels and all channels, per sample",
        values=lambda _batch, channels, _groups, voxels: channels * voxels,
        batch_dependent=False,
        eval_differs=False,
        removes_mean=True,
        folds=False,
        source="Ba 2016, arXiv 1607.06450, as group norm with one group",
    ),
}

MIN_VALUES = 3
"""Of one value a statistic leaves 0, of two only +1 and -1: nothing of the input is left."""


def get_norm(name: str, channels: int, groups: int = DEFAULT_GROUPS) -> nn.Module:
    """Build a normalization layer for volumes, shape (B, C, I, J, K).

    Args:
        name: A row of `NORMS`.
        channels: C.
        groups: Groups of the norms that have groups; never adapted silently.

    Raises:
        OptionError: If the name is unknown, or the groups do not divide the channels.
    """
    row = NORMS[check_choice("model.norm", name, NORMS)]
    if uses_groups(name) and channels % groups:
        raise OptionError(
            f"norm {name!r} needs channels divisible by {groups}; got channels {channels}. "
            "Choose other model.network.channels, or another model.norm_groups."
        )
    return row.build(channels, groups)


def uses_groups(name: str) -> bool:
    """Return whether a norm's statistics depend on the number of groups."""
    return name == "group"


def check_norm(
    name: str,
    channels: Sequence[int],
    strides: Sequence[Sequence[int]],
    patch_size: Sequence[int],
    batch_size: int,
    groups: int = DEFAULT_GROUPS,
) -> None:
    """Check that every level leaves the norm enough values to be more than a sign.

    Args:
        name: A row of `NORMS`.
        channels: Channels of each level.
        strides: Downsampling in front of each level, the first all 1.
        patch_size: Voxels of a patch.
        batch_size: Patches in one forward pass on one device.
        groups: See `get_norm`.

    Raises:
        OptionError: If the groups do not divide the channels of some level.
        GeometryError: If a statistic would run over fewer than `MIN_VALUES` values.
    """
    row = NORMS[check_choice("model.norm", name, NORMS)]
    if uses_groups(name) and any(count % groups for count in channels):
        raise OptionError(
            f"norm {name!r} needs channels divisible by {groups}; got channels {tuple(channels)}. "
            "Choose other model.network.channels, or another model.norm_groups."
        )
    size = list(patch_size)
    for level, (count, stride) in enumerate(zip(channels, strides, strict=True)):
        size = [length // step for length, step in zip(size, stride, strict=True)]
        values = row.values(batch_size, count, groups, math.prod(size))
        if values < MIN_VALUES:
            raise GeometryError(
                f"norm {name!r} has {values} value(s) per statistic at level {level} "
                f"({'×'.join(map(str, size))} voxels, batch {batch_size}), where at least "
                f"{MIN_VALUES} are needed. Enlarge data.patch_size {tuple(patch_size)}, or take "
                "fewer levels (model.network.channels)."
            )
