"""Weight standardization: a convolution whose kernels have mean 0 and variance 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.networks.convolution import Conv3d
from medseg.networks.norms_sample import precise

FEWEST_WEIGHTS = 3
"""Of one weight standardization leaves 0, of two only +1 and -1; smaller kernels stay plain."""

_EPS = 1e-6
"""Far below the variance of initial weights, 2 / (weights of a kernel)."""


class StandardizedConv3d(Conv3d):
    """Convolution with standardized weights (Qiao 2019, arXiv 1903.10520); keeps the raw ones."""

    def _conv_forward(self, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = super()._conv_forward(image, standardized(weight), bias)
        return out


def standardized(weight: Tensor) -> Tensor:
    """Return each kernel, shape (out, in, I, J, K), less its mean, over its deviation."""
    values = precise(weight)
    variance, mean = torch.var_mean(values, (1, 2, 3, 4), correction=0, keepdim=True)
    return ((values - mean) * (variance + _EPS).rsqrt()).to(weight.dtype)


def standardize(network: nn.Module) -> nn.Module:
    """Standardize the weights of every 3D convolution of a network that has kernels large enough.

    Args:
        network: Changed in place; its state dict keeps its names.
    """
    for layer in network.modules():
        if type(layer) is nn.Conv3d and layer.weight[0].numel() >= FEWEST_WEIGHTS:
            layer.__class__ = StandardizedConv3d
    return network


@torch.no_grad()
def with_plain_weights(network: nn.Module) -> int:
    """Make standardized convolutions plain ones with the same result; returns their number."""
    found = [layer for layer in network.modules() if isinstance(layer, StandardizedConv3d)]
    for layer in found:
        layer.weight = nn.Parameter(standardized(layer.weight), layer.weight.requires_grad)
        layer.__class__ = nn.Conv3d  # type: ignore[assignment]
    return len(found)
