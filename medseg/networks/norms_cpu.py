"""Instance and group norm that cost on a CPU what batch norm costs; elsewhere PyTorch's own.

Parameters, state and results are PyTorch's; times are in docs/norms.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from medseg.networks.devices import runs_on_cpu
from medseg.networks.norms_sample import precise


class InstanceNorm(nn.InstanceNorm3d):
    """PyTorch's, computed on a CPU as the batch norm of each sample alone, which it equals.

    PyTorch's puts the channels first in memory, and has the next convolution put them last again.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Normalize, shape (B, C, I, J, K)."""
        if not runs_on_cpu(image):
            return super().forward(image)
        # Of an empty batch an empty one, as of batch norm; PyTorch's own raises there.
        samples = [
            F.batch_norm(sample, None, None, self.weight, self.bias, training=True, eps=self.eps)
            for sample in image.chunk(max(len(image), 1))
        ]
        return samples[0] if len(samples) == 1 else torch.cat(samples)


class GroupNorm(nn.GroupNorm):
    """PyTorch's, with another backward pass on a CPU.

    PyTorch's walks over volumes with the channels last a group at a time: in bfloat16 it takes up
    to 20 times as long as batch norm's. With one group it is fast.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Normalize, shape (B, C, I, J, K)."""
        slow = self.num_groups > 1 and torch.is_grad_enabled() and len(image) > 0
        if slow and runs_on_cpu(image):
            out: Tensor = _GroupNorm.apply(image, self.weight, self.bias, self.num_groups, self.eps)  # type: ignore[no-untyped-call]
            return out
        return super().forward(image)


class _GroupNorm(torch.autograd.Function):
    """PyTorch's forward pass; its gradient from sums over the voxels of each channel."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        """Return the normalized image; see `torch.nn.functional.group_norm`."""
        samples, channels, *size = image.shape
        voxels = torch.Size(size).numel()
        out, mean, scale = torch.native_group_norm(
            image, weight, bias, samples, channels, voxels, groups, eps
        )
        ctx.save_for_backward(image, weight, mean, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of image, weight and bias (Wu & He 2018, eq. 1 to 3, derived)."""
        image, weight, mean, scale = ctx.saved_tensors
        samples, groups = mean.shape
        channels, values = len(weight), image[0].numel() // groups
        mean, scale = (
            precise(each).repeat_interleave(channels // groups, 1) for each in (mean, scale)
        )
        with_image, alone = _sums(gradient, image, mean)

        def of_group(per_channel: Tensor) -> Tensor:
            """Return the sum over the group of each channel, shape (B, C)."""
            by_group = per_channel.reshape(samples, groups, -1)
            return by_group.sum(2, keepdim=True).expand_as(by_group).flatten(1)

        gamma = precise(weight)
        slope = -of_group(with_image * gamma) * scale**3 / values
        shift = -of_group(alone * gamma) * scale / values - slope * mean
        of_image = torch.empty_like(image)
        for sample, (f, s, o) in enumerate(zip(gamma * scale, slope, shift, strict=True)):
            total = torch.addcmul(_column(o), precise(image[sample]), _column(s))
            of_image[sample] = total.addcmul_(precise(gradient[sample]), _column(f))
        of_weight = (with_image * scale).sum(0)
        return of_image, of_weight.to(weight), alone.sum(0).to(weight), None, None


def _sums(gradient: Tensor, image: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums over voxels of gradient times (image - mean), and of the gradient.

    In one pass: they are the gradients of a batch norm's gamma and beta where the variance is 1.

    Args:
        gradient: Of the output, shape (B, C, I, J, K).
        image: The input, same shape.
        mean: Shape (B, C), as the sums.
    """
    one = torch.ones_like(mean[0])
    sums = [
        torch.ops.aten.native_batch_norm_backward(
            g, x, one, m, one, None, None, False, 0.0, [False, True, True]
        )[1:]
        for g, x, m in zip(gradient.chunk(len(mean)), image.chunk(len(mean)), mean, strict=True)
    ]
    return torch.stack([each[0] for each in sums]), torch.stack([each[1] for each in sums])


def _column(values: Tensor) -> Tensor:
    """Return one value per channel in a shape that goes with one volume, (C, 1, 1, 1)."""
    return values[:, None, None, None]
