"""Batch norm merged into the convolution before it: the same network with less to compute."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medseg.core.errors import CheckpointError
from medseg.networks.blocks import ConvNorm
from medseg.networks.norms import NORMS
from medseg.networks.norms_batch import FrozenBatchNorm
from medseg.networks.norms_switchable import SwitchableNorm
from medseg.networks.norms_weight import with_plain_weights
from medseg.networks.unet import UNet

TOLERANCE = 1e-4
"""Largest accepted difference of the logits, as a share of their range.

Rounding of float32 gives about 1e-6; statistics of a broken training (variances near 0, infinite
values) give far more.
"""

_PROBE_LENGTH = 2  # voxels an axis at the coarsest level: a norm of one voxel is undefined
_SHORTEST_PROBE = 16  # voxels an axis: enough for every kernel a network is computed with


def folds(norm: str) -> bool:
    """Return whether `folded` takes something away from a network with this norm but dropout."""
    row = NORMS[norm]
    return norm != "none" and (row.folds or row.standardizes)


def folded(network: UNet) -> UNet:
    """Return a copy for inference: every batch norm merged into its convolution, no dropout.

    Norms that look at the image they are given stay as they are; weights are standardized once.

    Args:
        network: Left alone.

    Returns:
        A network in evaluation mode, without gradients.

    Raises:
        CheckpointError: If the copy's logits differ by more than `TOLERANCE` on a probe.
    """
    original = copy.deepcopy(network).eval().requires_grad_(False)
    result = copy.deepcopy(original)
    merged = with_plain_weights(result)
    for block in result.modules():
        if isinstance(block, ConvNorm):
            merged += _simplify(block)
    if merged and not (gap := difference(original, result)) <= TOLERANCE:
        raise CheckpointError(
            f"folding {merged} norms into their convolutions changes the logits by {gap:.2g} "
            f"of their range, where at most {TOLERANCE:g} is accepted: the running statistics are "
            "not those of a healthy training. Train again, or use the network unfolded."
        )
    return result


def _simplify(block: ConvNorm) -> int:
    """Take a block's dropout away and fold its norm; return how many norms were folded."""
    merged = 0
    for place, layer in enumerate(block):
        if isinstance(layer, nn.Dropout3d):
            block[place] = nn.Identity()
        elif (
            isinstance(layer, _BatchNorm | FrozenBatchNorm)
            and not isinstance(layer, SwitchableNorm)  # two of its three statistics are the image's
            and isinstance(block[0], nn.Conv3d)
        ):
            _fold(block[0], layer)
            block[place] = nn.Identity()
            merged += 1
    return merged


def _fold(convolution: nn.Conv3d, norm: _BatchNorm | FrozenBatchNorm) -> None:
    """Give a convolution the weights and the bias of itself followed by the norm.

    norm(w * x + b) = (s w) * x + s (b - mean) + beta, where s = gamma / sqrt(variance + eps);
    computed in float64, kept in the weights' type.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise CheckpointError("a batch norm without running statistics cannot be folded.")
    weight = convolution.weight
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    bias = torch.zeros_like(mean) if convolution.bias is None else convolution.bias.double()
    scale = norm.weight.double() / torch.sqrt(variance + norm.eps)
    shifted = scale * (bias - mean) + norm.bias.double()
    scaled = weight.double() * scale.reshape(-1, 1, 1, 1, 1)
    convolution.weight = nn.Parameter(scaled.to(weight.dtype), False)
    convolution.bias = nn.Parameter(shifted.to(weight.dtype), False)


@torch.no_grad()
def difference(one: UNet, other: UNet) -> float:
    """Return the largest difference of the logits of a probe as a share of their range."""
    weight = next(one.parameters())
    size = [
        math.ceil(max(_PROBE_LENGTH * step, _SHORTEST_PROBE) / step) * step
        for step in one.architecture.divisor
    ]
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn((1, _in_channels(one), *size), generator=generator).to(weight)
    return relative_difference(one(probe), other(probe))


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two tensors as a share of the range of the first."""
    span = float(one.max() - one.min())
    gap = float((one - other).abs().max())
    return 0.0 if gap == 0 else gap / max(span, torch.finfo(torch.float32).tiny)


def _in_channels(network: UNet) -> int:
    first = next(module for module in network.modules() if isinstance(module, nn.Conv3d))
    return first.in_channels
