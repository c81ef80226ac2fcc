"""THE norm registry: every normalization layer the networks know, and what it needs to work.

A row is complete: always affine, one epsilon, no bias on the convolution before it where it removes
the mean, so that two rows differ in nothing but the norm. A new norm is one class and one row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import nn

from medseg.core.errors import GeometryError, OptionError, check_choice
from medseg.networks.norms_row import Norm
from medseg.networks.norms_table import EPS, NORMS

__all__ = [
    "DEFAULT_GROUPS",
    "EPS",
    "MIN_VALUES",
    "NORMS",
    "Norm",
    "check_norm",
    "get_norm",
    "interchangeable",
    "is_frozen",
    "no_statistics",
    "register_in_monai",
    "uses_groups",
]

DEFAULT_GROUPS = 8

MIN_VALUES = 3
"""Of one value a statistic leaves 0, of two only +1 and -1: nothing of the input is left."""


def get_norm(
    name: str, channels: int, groups: int = DEFAULT_GROUPS, activate: bool = False
) -> nn.Module:
    """Build a normalization layer for volumes, shape (B, C, I, J, K).

    Args:
        name: A row of `NORMS`.
        channels: C.
        groups: Groups of the norms that have groups; never adapted silently.
        activate: Include the row's own activation, where it brings one.

    Raises:
        OptionError: If the name is unknown, or the groups do not divide the channels.
    """
    row = NORMS[check_choice("model.norm", name, NORMS)]
    if row.groups and channels % groups:
        raise OptionError(_indivisible(name, groups, channels))
    if activate and row.fused:
        return row.fused(channels, groups)
    layer = row.build(channels, groups)
    if activate and row.activation:
        return nn.Sequential(layer, row.activation(channels))
    return layer


def uses_groups(name: str) -> bool:
    """Return whether a norm's statistics depend on the number of groups."""
    return NORMS[name].groups


def interchangeable(one: str, other: str) -> bool:
    """Return whether a network with one norm can start from the weights of one with the other."""
    return one == other or (
        NORMS[one].family != "" and other in NORMS and NORMS[one].family == NORMS[other].family
    )


def is_frozen(name: str) -> bool:
    """Return whether a norm has running statistics that never move."""
    return NORMS[name].family == NORMS["batch"].family and not NORMS[name].eval_differs


def no_statistics(name: str) -> str:
    """Say why a norm has no running statistics that others may take the place of."""
    if is_frozen(name):
        return f"norm {name!r} was trained with running statistics that never move; no others fit"
    return f"norm {name!r} keeps no running statistics to be replaced"


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
    if row.groups and any(count % groups for count in channels):
        raise OptionError(_indivisible(name, groups, tuple(channels)))
    size = list(patch_size)
    for level, (count, stride) in enumerate(zip(channels, strides, strict=True)):
        size = [length // step for length, step in zip(size, stride, strict=True)]
        values = row.values(batch_size, count, groups, math.prod(size))
        if values < MIN_VALUES:
            raise GeometryError(
                f"norm {name!r} has {values} value(s) per statistic at level {level} "
                f"({count} channels, {'×'.join(map(str, size))} voxels, batch {batch_size}), "
                f"where at least {MIN_VALUES} are needed. Enlarge data.patch_size "
                f"{tuple(patch_size)}, or take fewer levels or more channels "
                "(model.network.channels)."
            )


def register_in_monai() -> None:
    """Put every row into MONAI's `Norm` factory as `medseg_<name>`, for volumes.

    MONAI's networks then take `norm="medseg_group"` or `("medseg_group", {"num_groups": 4})`. A
    layer includes the row's own activation: give the network `act=None` with such a row.
    """
    from monai.networks.layers.factories import Norm as MonaiNorm

    for name in NORMS:
        if f"medseg_{name}".upper() not in MonaiNorm.names:
            MonaiNorm.add_factory_callable(f"medseg_{name}", _monai_factory(name))


def _monai_factory(name: str) -> Callable[[int], Callable[..., nn.Module]]:
    def for_dimensions(spatial_dims: int) -> Callable[..., nn.Module]:
        if spatial_dims != 3:
            raise OptionError(f"norm 'medseg_{name}' is for volumes; got {spatial_dims} axes.")
        if NORMS[name].standardizes:
            raise OptionError(
                f"norm 'medseg_{name}' also changes the convolutions, which MONAI's norms cannot. "
                "Build the network with 'medseg_group', then call "
                "medseg.networks.norms_weight.standardize on it."
            )

        def build(num_features: int, num_groups: int = DEFAULT_GROUPS) -> nn.Module:
            return get_norm(name, num_features, num_groups, activate=True)

        return build

    for_dimensions.__doc__ = f"medseg's {name}: statistics over {NORMS[name].over}."
    return for_dimensions


def _indivisible(name: str, groups: int, channels: int | tuple[int, ...]) -> str:
    return (
        f"norm {name!r} needs channels divisible by {groups}; got channels {channels}. "
        "Choose other model.network.channels, or another model.norm_groups."
    )
