"""3x3x3 convolutions on a CPU by Winograd's minimal filtering along one axis.

Four outputs along the first axis take 6 products where the definition takes 12 (F(4, 3); Winograd
1980; Lavin and Gray 2016, arXiv 1509.09308); the other two axes stay a plain 3x3 convolution. So
the arithmetic is halved, and the transforms, sums of whole slices, are cheap where these lie in
one piece: with the channels last in memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4
"""Outputs along the first axis that are made together."""

FEWEST_CHANNELS = 16
"""With fewer channels the transforms cost as much as they save."""

SMALLEST = 8
"""Along the first axis; below it, too much of the last tile lies outside the image."""

_CHUNK_VALUES = 1 << 20
"""Values of the input that are transformed at a time: their six transforms stay in a cache."""


class WinogradConv3d(nn.Module):
    """A convolution with the results of another one, up to rounding (5e-6 of the largest value).

    Args:
        convolution: As `applies` wants it; its weights are transformed once, here.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.plain = convolution
        first, middle, last = convolution.weight.detach().double().unbind(dim=2)
        both = first + last
        transformed = (
            first / 4,
            -(both + middle) / 6,
            -(both - middle) / 6,
            first / 24 + middle / 12 + last / 6,
            first / 24 - middle / 12 + last / 6,
            last,
        )
        self.filters = [
            each.float().contiguous(memory_format=torch.channels_last) for each in transformed
        ]

    @staticmethod
    def applies(convolution: nn.Conv3d) -> bool:
        """Return whether a convolution can be done in this way, and it pays."""
        return (
            convolution.kernel_size == (3, 3, 3)
            and convolution.stride == convolution.dilation == (1, 1, 1)
            and convolution.padding == (1, 1, 1)
            and convolution.groups == 1
            and convolution.in_channels >= FEWEST_CHANNELS
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the convolution of one image, shape (1, C, I, J, K)."""
        _, channels, length, width, depth = image.shape
        if length < SMALLEST:
            return self.plain(image)  # type: ignore[no-any-return]
        slices = image.permute(0, 2, 3, 4, 1).contiguous()[0]  # (I, J, K, C): no copy if so already
        tiles = math.ceil(length / TILE)
        out = image.new_empty((tiles, TILE, width, depth, self.plain.out_channels))
        step = max(_CHUNK_VALUES // (TILE * width * depth * channels), 1)
        for first in range(0, tiles, step):
            chunk = slice(first, min(first + step, tiles))
            self._convolve(_rows(slices, chunk.start, chunk.stop), out[chunk])
        if self.plain.bias is not None:
            out += self.plain.bias
        whole = out.view(1, tiles * TILE, width, depth, -1)
        return whole[:, :length].permute(0, 4, 1, 2, 3)

    def _convolve(self, rows: Tensor, out: Tensor) -> None:
        """Fill some tiles, shape (T, 4, J, K, C), from the rows they are made from."""
        end = rows.shape[0] - TILE + 1
        d0, d1, d2, d3, d4, d5 = (
            rows[first : first + end : TILE].permute(0, 3, 1, 2) for first in range(TILE + 2)
        )
        even, odd = torch.sub(d4, d2, alpha=4), torch.sub(d3, d1, alpha=4)
        half, step = d4 - d2, (d3 - d1).mul_(2)
        inputs = (
            torch.sub(d4, d2, alpha=5).add_(d0, alpha=4),
            even + odd,
            even.sub_(odd),
            half + step,
            half.sub_(step),
            torch.sub(d5, d3, alpha=5).add_(d1, alpha=4),
        )
        m0, m1, m2, m3, m4, m5 = (
            torch.mkldnn_convolution(values, each, None, (1, 1), (1, 1), (1, 1), 1)
            for values, each in zip(inputs, self.filters, strict=True)
        )
        places = out.permute(1, 0, 4, 2, 3)
        near, far = m1 + m2, m3 + m4
        torch.add(near, far, out=places[0]).add_(m0)
        torch.add(near, far, alpha=4, out=places[2])
        near, far = m1.sub_(m2), m3.sub_(m4)
        torch.add(near, far, alpha=2, out=places[1])
        torch.add(near, far, alpha=8, out=places[3]).add_(m5)


def _rows(slices: Tensor, first: int, last: int) -> Tensor:
    """Return the slices that the tiles from `first` to `last` are made from, zero outside."""
    begin, end = TILE * first - 1, TILE * last + 1
    inside = slices[max(begin, 0) : min(end, len(slices))]
    before, after = max(-begin, 0), max(end - len(slices), 0)
    return F.pad(inside, (0, 0, 0, 0, 0, 0, before, after)) if before or after else inside


def with_winograd(network: nn.Module) -> nn.Module:
    """Replace the convolutions of a network that gain by it; returns the network."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Conv3d) and WinogradConv3d.applies(child):
                setattr(module, name, WinogradConv3d(child))
    return network
