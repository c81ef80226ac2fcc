"""Hand-written norms with running statistics, folded (fold.py) like batch norm.

Those whose statistics move are batch norms to what freezes or measures these (population.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from medseg.networks.norms_sample import VOXELS, per_channel, precise

VIRTUAL_BATCH = 2
"""Samples that ghost batch norm normalizes together; a batch of more is split."""

_SAMPLES_AND_VOXELS = (0, *VOXELS)


class SyncBatchNorm(nn.SyncBatchNorm):
    """PyTorch's, which on the CPU of a single process is plain batch norm.

    PyTorch's own refuses a CPU as soon as a process group exists, be it of one process.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Normalize, shape (B, C, I, J, K); several processes on CPUs are refused by PyTorch."""
        if image.device.type == "cpu" and not _several_processes():
            return _BatchNorm.forward(self, image)
        return super().forward(image)


class FrozenBatchNorm(nn.Module):
    """Batch norm by running statistics that never move, with gamma and beta fixed.

    Its state is that of batch norm: weights of a batch norm run are trained on by it. Fresh, it
    is the identity. No `BatchNorm3d`: what measures statistics anew leaves it alone.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, image: Tensor) -> Tensor:
        """Normalize, shape (B, C, I, J, K), in training and evaluation alike."""
        # PyTorch's own would keep the image for the gradient of gamma, which is fixed.
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return (precise(image) * per_channel(scale) + per_channel(shift)).to(image.dtype)


class GhostBatchNorm(nn.BatchNorm3d):
    """Batch norm over parts of the batch (Hoffer 2017, arXiv 1705.08741).

    The running statistics take in one part after the other, as algorithm 1 there does.

    Args:
        channels: C.
        eps: Added to the variance.
        virtual_batch: Samples in a part at most; parts differ by one sample where it does not
            divide the batch.
    """

    def __init__(self, channels: int, eps: float, virtual_batch: int = VIRTUAL_BATCH) -> None:
        super().__init__(channels, eps=eps)
        self.virtual_batch = virtual_batch

    def forward(self, image: Tensor) -> Tensor:
        """Normalize, shape (B, C, I, J, K)."""
        if not self.training or len(image) <= self.virtual_batch:
            return super().forward(image)
        parts = image.tensor_split(math.ceil(len(image) / self.virtual_batch))
        return torch.cat([super(GhostBatchNorm, self).forward(part) for part in parts])


class BatchRenorm(nn.BatchNorm3d):
    """Batch renormalization (Ioffe 2017, arXiv 1702.03275): training as evaluation will be.

    The batch's statistics are corrected towards the running ones by r and d, which are clipped
    and have no gradient. How far they may correct grows with `progress`, the share of the training
    that is done: `set_progress` sets it, and a layer nobody tells corrects fully.
    """

    R_MAX, D_MAX = 3.0, 5.0
    """Final limits (section 4.2 of the paper)."""

    PLAIN, D_DONE, R_DONE = 0.04, 0.19, 0.31
    """Shares of the training: end of plain batch norm, and where d and r have their final limits.

    The paper's 5,000, 25,000 and 40,000 steps, of a training taken to have 130,000.
    """

    progress: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)
        self.register_buffer("progress", torch.tensor(1.0))
        self._reference: tuple[Tensor, Tensor] | None = None

    def forward(self, image: Tensor) -> Tensor:
        """Normalize, shape (B, C, I, J, K)."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(image)
        with torch.no_grad():
            values = precise(image)
            variance, mean = torch.var_mean(values, _SAMPLES_AND_VOXELS, correction=0)
            r, d = self._correction(mean, variance)
            move_statistics(self, mean, variance, values.numel() // len(mean))
        # gamma (r x + d) + beta, with PyTorch's batch norm as x: it keeps one tensor for backward.
        weight = self.weight * r.to(self.weight)
        bias = self.bias + self.weight * d.to(self.weight)
        return F.batch_norm(image, None, None, weight, bias, training=True, eps=self.eps)

    def _correction(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return r and d, shape (C,) each."""
        if self._frozen and self._reference is not None:
            there_mean, there_variance = self._reference  # a pass that is computed a second time
        else:
            there_mean, there_variance = self._reference = self._statistics()
        scale = (there_variance + self.eps).sqrt()
        largest_r = 1 + (self.R_MAX - 1) * self._share(self.R_DONE)
        largest_d = self.D_MAX * self._share(self.D_DONE)
        r = ((variance + self.eps).sqrt() / scale).clamp(1 / largest_r, largest_r)
        return r, ((mean - there_mean) / scale).clamp(-largest_d, largest_d)

    @property
    def _frozen(self) -> bool:
        return self.num_batches_tracked is None  # by population.frozen_statistics

    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, variance = self.running_mean, self.running_var
        if mean is None or variance is None:
            raise RuntimeError("batch renormalization has running statistics always")
        return mean.clone(), variance.clone()

    def _share(self, done: float) -> Tensor:
        return ((self.progress - self.PLAIN) / (done - self.PLAIN)).clamp(0, 1)


@torch.no_grad()
def move_statistics(layer: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move running statistics towards a batch's as PyTorch does, unless they are frozen.

    Args:
        layer: `population.frozen_statistics` takes its counter away.
        mean: Of the batch, shape (C,).
        variance: Of the batch, biased; the running one is unbiased.
        count: Values behind each.
    """
    if layer.num_batches_tracked is None or layer.running_mean is None or layer.running_var is None:
        return
    share = layer.momentum or 0.0
    layer.running_mean.lerp_(mean.to(layer.running_mean), share)
    unbiased = variance * (count / max(count - 1, 1))
    layer.running_var.lerp_(unbiased.to(layer.running_var), share)
    layer.num_batches_tracked.add_(1)


def set_progress(network: nn.Module, share: float) -> None:
    """Tell every batch renormalization of a network the share of the training that is done.

    Args:
        network: Any.
        share: In [0, 1]; 0 is plain batch norm.
    """
    for layer in network.modules():
        if isinstance(layer, BatchRenorm):
            layer.progress.fill_(share)


@contextmanager
def as_plain_batch_norm(network: nn.Module) -> Iterator[None]:
    """Have batch renormalizations correct nothing: their running statistics are yet to be found."""
    layers = [layer for layer in network.modules() if isinstance(layer, BatchRenorm)]
    before = [layer.progress.clone() for layer in layers]
    set_progress(network, 0.0)
    try:
        yield
    finally:
        for layer, share in zip(layers, before, strict=True):
            layer.progress.copy_(share)


def _several_processes() -> bool:
    distributed = torch.distributed
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
