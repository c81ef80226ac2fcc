"""Dice and cross-entropy, on every supervised level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

from medseg.data.transforms import IGNORE_INDEX

SMOOTH = 1e-5
"""Added to both sides of the Dice ratio, in units of the mean voxel count; nnU-Net's value."""


def dice_ce(logits: Tensor, label: Tensor, across: bool = False) -> Tensor:
    """Return cross-entropy + 1 - soft Dice, ignoring voxels of `IGNORE_INDEX`.

    Dice is taken over the whole batch (one large sample) and averaged over the foreground classes,
    so that a class absent from one patch does not swing the loss (Isensee 2021, "batch Dice").

    Args:
        logits: Shape (B, classes, I, J, K).
        label: Class indices, shape (B, I, J, K).
        across: Over the batches of all devices, as if they were one. The gradient that DDP then
            averages is that of this loss.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    target = label.long()
    entropy = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="sum")
    counted = target != IGNORE_INDEX
    classes = logits.shape[1]
    inside = counted[:, None]
    truth = F.one_hot(torch.where(counted, target, 0), classes).movedim(-1, 1)[:, 1:] * inside
    chance = logits.softmax(dim=1)[:, 1:] * inside
    axes = (0, 2, 3, 4)
    overlap = (chance * truth).sum(axes)
    total = chance.sum(axes) + truth.sum(axes)
    sums = torch.cat([entropy[None], counted.sum()[None].to(entropy.dtype), overlap, total])
    if across:
        sums = all_reduce(sums)  # type: ignore[no-untyped-call]
    entropy, overlap, total = (
        sums[0] / sums[1].clamp_min(1),
        sums[2 : classes + 1],
        sums[classes + 1 :],
    )
    dice = (2 * overlap + SMOOTH) / (total + SMOOTH)
    loss: Tensor = entropy + 1 - dice.mean()
    return loss


def supervised_loss(heads: Sequence[Tensor], label: Tensor, across: bool = False) -> Tensor:
    """Return the weighted loss of all levels; each coarser one counts half (Isensee 2021).

    Args:
        heads: Logits, the finest first, each shape (B, classes, …).
        label: Class indices on the finest grid, shape (B, I, J, K), uint8.
        across: See `dice_ce`.
    """
    weights = [0.5**level for level in range(len(heads))]
    losses = [
        weight * dice_ce(logits, shrunk(label, logits.shape[2:]), across)
        for weight, logits in zip(weights, heads, strict=True)
    ]
    return torch.stack(losses).sum() / sum(weights)


def shrunk(label: Tensor, size: Sequence[int]) -> Tensor:
    """Return the label on a coarser grid, by the nearest voxel."""
    if tuple(label.shape[1:]) == tuple(size):
        return label
    return F.interpolate(label[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0]
