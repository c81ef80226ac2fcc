"""A convolution that is as fast for a batch of one small volume on a CPU as for a larger batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.networks.devices import runs_on_cpu

SMALL = 20480
"""Channels times the first two axes up to which PyTorch sends a batch of one to code of its own.

A rule made for images (`use_mkldnn` in ATen/native/Convolution.cpp, torch 2.13) that leaves out the
last axis. That code takes 2 to 8 times as long as oneDNN's, forward and backward together.
"""


class Conv3d(nn.Conv3d):
    """PyTorch's, which computes such a volume as a batch of its two halves: the same sums."""

    def _conv_forward(self, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if _is_slow(image) and self.kernel_size != (1, 1, 1):
            depth = (image.shape[2] + 2 * int(self.padding[0]) - self.kernel_size[0]) // (
                self.stride[0]
            ) + 1
            if depth > 1:
                return self._in_halves(image, weight, bias, depth)
        out: Tensor = super()._conv_forward(image, weight, bias)
        return out

    def _in_halves(self, image: Tensor, weight: Tensor, bias: Tensor | None, depth: int) -> Tensor:
        """Return the convolution; `depth` is the length of its result's first axis."""
        pad, stride = int(self.padding[0]), self.stride[0]
        half = -(-depth // 2)
        length = (half - 1) * stride + self.kernel_size[0]
        start = (depth - half) * stride
        padded = F.pad(image, (0, 0, 0, 0, pad, pad))
        halves = torch.cat([padded[:, :, :length], padded[:, :, start : start + length]])
        padding = (0, *self.padding[1:])
        both = F.conv3d(halves, weight, bias, self.stride, padding)
        # Of an odd length the middle is in both.
        return torch.cat([both[:1], both[1:, :, 2 * half - depth :]], dim=2)


def _is_slow(image: Tensor) -> bool:
    """Return whether PyTorch would compute this by its own code."""
    return (
        runs_on_cpu(image)
        and image.dtype == torch.float32
        and len(image) == 1
        and image[0, :, :, :, 0].numel() <= SMALL
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and not torch.is_autocast_enabled("cpu")
    )
