"""Convolution blocks of the U-Net: plain and residual, any norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from medseg.networks.convolution import Conv3d
from medseg.networks.dropout import ChannelDropout
from medseg.networks.norms import NORMS, get_norm
from medseg.networks.norms_weight import FEWEST_WEIGHTS, StandardizedConv3d

Triple = tuple[int, int, int]
UNIT: Triple = (1, 1, 1)

NEGATIVE_SLOPE = 0.01
"""Leaky ReLU's slope below zero, as in nnU-Net."""


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network share.

    Attributes:
        norm: A row of `medseg.networks.norms.NORMS`.
        groups: Groups for the norms that have groups.
        conv_bias: Bias on a convolution before a norm; None: only where the norm keeps the mean.
        dropout: Probability of dropping a channel after the last norm of a block.
    """

    norm: str
    groups: int
    conv_bias: bool | None = None
    dropout: float = 0.0

    @property
    def bias(self) -> bool:
        """Whether a convolution that a norm follows has a bias."""
        return not NORMS[self.norm].removes_mean if self.conv_bias is None else self.conv_bias

    def convolution(
        self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple
    ) -> nn.Conv3d:
        """Return a convolution that a norm follows; the norm may want its weights standardized."""
        kind: type[nn.Conv3d] = Conv3d
        if NORMS[self.norm].standardizes and in_channels * math.prod(kernel) >= FEWEST_WEIGHTS:
            kind = StandardizedConv3d
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        return kind(in_channels, out_channels, kernel, stride, padding, bias=self.bias)

    def normalization(self, channels: int, activate: bool) -> nn.Module:
        """Return the norm for `channels`, one with the activation where these are one layer."""
        activate = activate and NORMS[self.norm].fused is not None
        return get_norm(self.norm, channels, self.groups, activate)

    def activation(self, channels: int) -> nn.Module:
        """Return the norm's own activation, or leaky ReLU."""
        own = NORMS[self.norm].activation
        return own(channels) if own else nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)


class ConvNorm(nn.Sequential):
    """Convolution, norm, and an activation unless `activate` is False."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        stride: Triple,
        style: BlockStyle,
        activate: bool = True,
        last: bool = False,
    ) -> None:
        layers: list[nn.Module] = [
            style.convolution(in_channels, out_channels, kernel, stride),
            style.normalization(out_channels, activate),
        ]
        if last and style.dropout:
            # After the norm: dropout before batch norm shifts the variance it has learned
            # (Li 2019, arXiv 1801.05134).
            layers.append(ChannelDropout(style.dropout, out_channels))
        if activate and NORMS[style.norm].fused is None:
            layers.append(style.activation(out_channels))
        super().__init__(*layers)


class PlainStage(nn.Sequential):
    """Convolutions in a row; the first one may stride."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        stride: Triple,
        depth: int,
        style: BlockStyle,
    ) -> None:
        super().__init__(
            *(
                ConvNorm(
                    in_channels if index == 0 else out_channels,
                    out_channels,
                    kernel,
                    stride if index == 0 else UNIT,
                    style,
                    last=index == depth - 1,
                )
                for index in range(depth)
            )
        )


class Mean(nn.AvgPool3d):
    """Mean over windows side by side, with a deterministic gradient where that is asked for."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the mean of each window; PyTorch's own gradient is not deterministic on a GPU."""
        if image.is_cuda and torch.are_deterministic_algorithms_enabled():
            return window_means(image, cast("Triple", self.kernel_size))
        out: Tensor = super().forward(image)
        return out


def window_means(image: Tensor, size: Sequence[int]) -> Tensor:
    """Return the mean of each window, shape (B, C, I / i, J / j, K / k).

    Args:
        image: Shape (B, C, I, J, K), each axis divisible by its window.
        size: Of a window, (i, j, k).
    """
    pairs = ((n // s, s) for n, s in zip(image.shape[2:], size, strict=True))
    return image.reshape(*image.shape[:2], *chain.from_iterable(pairs)).mean((3, 5, 7))


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut (He 2016; the D variant of He 2019 for strides)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        stride: Triple,
        style: BlockStyle,
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(in_channels, out_channels, kernel, stride, style),
            ConvNorm(out_channels, out_channels, kernel, UNIT, style, activate=False, last=True),
        )
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(Mean(stride, stride))
        if in_channels != out_channels:
            shortcut.append(ConvNorm(in_channels, out_channels, UNIT, UNIT, style, activate=False))
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = style.activation(out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Return the activated sum of body and shortcut."""
        out: Tensor = self.activation(self.body(image) + self.shortcut(image))
        return out


class ResidualStage(nn.Sequential):
    """Residual blocks in a row; the first one may stride."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        stride: Triple,
        depth: int,
        style: BlockStyle,
    ) -> None:
        super().__init__(
            *(
                ResidualBlock(
                    in_channels if index == 0 else out_channels,
                    out_channels,
                    kernel,
                    stride if index == 0 else UNIT,
                    style,
                )
                for index in range(depth)
            )
        )


def initialize(network: nn.Module, seed: int, scale: float = 1.0) -> None:
    """Draw convolution weights (He 2015 for the leaky ReLU), the same for every norm of one seed.

    The weights come from a generator of their own, in the order of the modules, so that networks
    that differ only in the norm get equal convolution weights. Biases are 0, gamma 1, beta 0.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE, generator=generator)
            with torch.no_grad():
                module.weight.mul_(scale)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
