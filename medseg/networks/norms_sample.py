"""Hand-written norms without running statistics, and the activations some of them bring.

Statistics are computed in float32 (float64 stays): squares of float16 overflow beyond 255.
Shapes are (B, C, I, J, K); the memory layout of the input is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOXELS = (2, 3, 4)


class _Affine(nn.Module):
    """A gain and a shift per channel.

    Args:
        channels: C.
        eps: Added to variances, mean squares or norms.
        gain: Initial gamma.
    """

    def __init__(self, channels: int, eps: float, gain: float = 1.0) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.full((channels,), gain))
        self.bias = nn.Parameter(torch.zeros(channels))

    def extra_repr(self) -> str:
        """Return what printing the layer shows."""
        return f"{len(self.weight)}, eps={self.eps}"


class ChannelLayerNorm(_Affine):
    """Layer norm of each voxel's channels (ConvNeXt, Liu 2022, arXiv 2201.03545)."""

    def forward(self, image: Tensor) -> Tensor:
        """Normalize."""
        values = precise(image).movedim(1, -1)
        weight, bias = self.weight.to(values.dtype), self.bias.to(values.dtype)
        out = F.layer_norm(values, weight.shape, weight, bias, self.eps)
        return out.movedim(-1, 1).to(image.dtype)


class ChannelRmsNorm(_Affine):
    """Root-mean-square norm of each voxel's channels (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def forward(self, image: Tensor) -> Tensor:
        """Normalize."""
        values = precise(image).movedim(1, -1)
        out = F.rms_norm(values, self.weight.shape, self.weight.to(values.dtype), self.eps)
        return (out + self.bias).movedim(-1, 1).to(image.dtype)


class FilterResponseNorm(_Affine):
    """Division by a channel's root mean square (Singh & Krishnan 2020, arXiv 1911.09737, eq. 1-3).

    The paper's `ThresholdedUnit` follows it.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Normalize."""
        values = precise(image)
        scale = (values.square().mean(VOXELS, keepdim=True) + self.eps).rsqrt()
        return (values * (scale * per_channel(self.weight)) + per_channel(self.bias)).to(
            image.dtype
        )


class ThresholdedUnit(nn.Module):
    """max(x, tau), tau learned per channel (arXiv 1911.09737, eq. 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(channels))

    def forward(self, image: Tensor) -> Tensor:
        """Activate."""
        return torch.maximum(image, per_channel(self.threshold).to(image.dtype))


class EvoNormS0(_Affine):
    """EvoNorm-S0 (Liu 2020, arXiv 2004.02967): x sigmoid(v x) over the deviation of x in a group.

    Args:
        channels: C.
        groups: Groups of channels.
        eps: Added to the variance.
        activate: False: x over the deviation, for where a block has no activation.
    """

    def __init__(self, channels: int, groups: int, eps: float, activate: bool = True) -> None:
        super().__init__(channels, eps)
        self.groups = groups
        self.swish = LearnedSwish(channels) if activate else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """Normalize and activate."""
        values = precise(image)
        scale = (self._variance(values) + self.eps).rsqrt() * per_channel(self.weight)
        out: Tensor = self.swish(values) * scale + per_channel(self.bias)
        return out.to(image.dtype)

    def _variance(self, values: Tensor) -> Tensor:
        """Return the variance of each channel's group, shape (B, C, 1, 1, 1).

        From those of the channels: regrouping the volume would copy it in another layout.
        """
        shape = (len(values), self.groups, -1)
        variance, mean = torch.var_mean(values, VOXELS, correction=0)
        variance, mean = variance.reshape(shape), mean.reshape(shape)
        return pooled_variance(mean, variance, 2).expand_as(mean).flatten(1)[:, :, None, None, None]


class LearnedSwish(nn.Module):
    """x sigmoid(v x), v learned per channel; the activation within EvoNorm-S0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(channels))

    def forward(self, image: Tensor) -> Tensor:
        """Activate."""
        return image * torch.sigmoid(image * per_channel(self.slope).to(image.dtype))


class GlobalResponseNorm(_Affine):
    """x (1 + gamma n) + beta, n a channel's share of the L2 norms (Woo 2023, arXiv 2301.00808).

    gamma is 0 at first, as in the paper: the layer starts as the identity.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps, gain=0.0)

    def forward(self, image: Tensor) -> Tensor:
        """Normalize."""
        values = precise(image)
        length: Tensor = torch.linalg.vector_norm(values, dim=VOXELS, keepdim=True)
        share = length / (length.mean(1, keepdim=True) + self.eps)
        return (values * (1 + per_channel(self.weight) * share) + per_channel(self.bias)).to(
            image.dtype
        )


def precise(image: Tensor) -> Tensor:
    """Return values in which statistics can be computed: float32, or float64 as it is."""
    return image if image.dtype == torch.float64 else image.float()


def pooled_variance(mean: Tensor, variance: Tensor, axis: int) -> Tensor:
    """Return the variance over an axis too, of equally many values each (law of total variance)."""
    return variance.mean(axis, keepdim=True) + mean.var(axis, correction=0, keepdim=True)


def per_channel(values: Tensor | None) -> Tensor:
    """Return one value per channel in a shape that goes with volumes, (1, C, 1, 1, 1)."""
    if values is None:
        raise TypeError("a value per channel is needed")
    return values.reshape(1, -1, 1, 1, 1)
