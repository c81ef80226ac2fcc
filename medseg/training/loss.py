"""Dice and cross-entropy, on every supervised level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.core.errors import OptionError
from medseg.data.transforms import IGNORE_INDEX

SMOOTH = 1e-5
"""Added to both sides of the Dice ratio, in units of the mean voxel count; nnU-Net's value."""


@dataclass(frozen=True)
class Loss:
    """What training minimizes: weighted cross-entropy + weighted 1 - Dice.

    Attributes:
        dice_weight: Of 1 - Dice.
        entropy_weight: Of the cross-entropy.
        dice_over: `batch` takes Dice over all patches as one large sample, so that a class absent
            from one patch does not swing the loss (Isensee 2021); `sample` over each patch, then
            their mean: a small structure counts as much as a large one of another patch.
        tversky_alpha: Weight of invented voxels in the Dice ratio; 0.5 and 0.5 are Dice
            (Salehi 2017, arXiv 1706.05721).
        tversky_beta: Weight of missed voxels; above 0.5, with alpha below, it favours finding small
            structures over inventing none.
        focal_gamma: Each voxel's entropy counts by its (1 - probability) to this power, so that
            voxels that are right already matter less (Lin 2017, arXiv 1708.02002); 0 is off.
    """

    dice_weight: float = 1.0
    entropy_weight: float = 1.0
    dice_over: Literal["batch", "sample"] = "batch"
    tversky_alpha: float = 0.5
    tversky_beta: float = 0.5
    focal_gamma: float = 0.0

    def __post_init__(self) -> None:
        weights = (self.dice_weight, self.entropy_weight, self.tversky_alpha, self.tversky_beta)
        nothing = 0 in (self.dice_weight + self.entropy_weight, sum(weights[2:]))
        if nothing or not all(0 <= number < math.inf for number in (*weights, self.focal_gamma)):
            raise OptionError(
                "model.loss needs weights >= 0 (dice_weight or entropy_weight, and tversky_alpha "
                f"or tversky_beta, above 0) and focal_gamma >= 0; got {weights} and "
                f"{self.focal_gamma}."
            )


PLAIN = Loss()


def dice_ce(logits: Tensor, label: Tensor, across: bool = False, loss: Loss = PLAIN) -> Tensor:
    """Return cross-entropy + 1 - soft Dice, ignoring voxels of `IGNORE_INDEX`.

    Dice is averaged over the foreground classes.

    Args:
        logits: Shape (B, classes, I, J, K).
        label: Class indices, shape (B, I, J, K).
        across: Over the batches of all devices, as if they were one. The gradient that DDP then
            averages is that of this loss.
        loss: Its weights and variants.
    """
    sums = loss_sums(logits, label, loss)
    return loss_of_sums(_over_devices(sums) if across else sums, loss)


def loss_sums(logits: Tensor, label: Tensor, loss: Loss) -> Tensor:
    """Return what the loss is made of: entropy, voxels, and two numbers for each foreground class.

    Those of several parts of a batch, or of a volume, add up; see `dice_ce`.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    # Of an ignored voxel no class is true: its index is none of them.
    classes = torch.arange(logits.shape[1], device=label.device).to(label.dtype)
    truth = label[:, None] == classes.view(1, -1, 1, 1, 1)
    counted = label != IGNORE_INDEX
    likelihood = logits.log_softmax(dim=1)
    entropy = _entropy(likelihood, truth, loss.focal_gamma)
    chance = likelihood[:, 1:].exp() * counted[:, None]
    overlap, total = _overlaps(chance, truth[:, 1:], loss)
    if loss.dice_over == "sample":  # the devices add up what is known of each: Dice, and how many
        overlap, total = _ratio(overlap, total).sum(0), torch.full_like(total[0], len(total))
    return torch.cat([entropy[None], counted.sum()[None].to(entropy.dtype), overlap, total])


def loss_of_sums(sums: Tensor, loss: Loss) -> Tensor:
    """Return the loss from `loss_sums`."""
    entropy, (overlap, total) = sums[0] / sums[1].clamp_min(1), sums[2:].chunk(2)
    dice = (overlap / total if loss.dice_over == "sample" else _ratio(overlap, total)).mean()
    # In this order the weights 1 and 1 change no bit of `entropy + 1 - dice`.
    result: Tensor = loss.entropy_weight * entropy + loss.dice_weight - loss.dice_weight * dice
    return result


class _SumOverDevices(torch.autograd.Function):
    """The sum over all devices; each gradient is the sum of theirs."""

    @staticmethod
    def forward(_context: Any, mine: Tensor) -> Tensor:
        """Return the sum of what each device has."""
        total = mine.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        """Return the sum of the gradients."""
        return _SumOverDevices.forward(_context, gradients[0])


def _over_devices(mine: Tensor) -> Tensor:
    return cast("Tensor", _SumOverDevices.apply(mine))  # type: ignore[no-untyped-call]


def _entropy(likelihood: Tensor, truth: Tensor, gamma: float) -> Tensor:
    """Return the sum of all voxels' cross-entropy, focal where gamma > 0.

    PyTorch's own has no deterministic sum over volumes on CUDA.
    """
    of_truth = torch.where(truth, likelihood, 0)
    if gamma == 0:
        return -of_truth.sum()
    entropy = -of_truth.sum(dim=1)
    # At 0 a power below 1 has no gradient.
    doubt = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).eps)
    return (doubt**gamma * entropy).sum()


def _overlaps(chance: Tensor, truth: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Return TP and 2 (TP + alpha FP + beta FN), the parts of Tversky's ratio.

    Shape (foreground classes,), or (B, foreground classes) where Dice is taken over samples.
    """
    axes = (0, 2, 3, 4) if loss.dice_over == "batch" else (2, 3, 4)
    overlap = (chance * truth).sum(axes)
    # FP = chance - TP and FN = truth - TP.
    alpha, beta = 2 * loss.tversky_alpha, 2 * loss.tversky_beta
    total = alpha * chance.sum(axes) + beta * truth.sum(axes).to(chance.dtype)
    if alpha + beta != 2:
        total = total + (2 - alpha - beta) * overlap
    return overlap, total


def _ratio(overlap: Tensor, total: Tensor) -> Tensor:
    return (2 * overlap + SMOOTH) / (total + SMOOTH)


def supervised_loss(
    heads: Sequence[Tensor], label: Tensor, across: bool = False, loss: Loss = PLAIN
) -> Tensor:
    """Return the weighted loss of all levels; each coarser one counts half (Isensee 2021).

    Args:
        heads: Logits, the finest first, each shape (B, classes, …).
        label: Class indices on the finest grid, shape (B, I, J, K), uint8.
        across: See `dice_ce`.
        loss: See `dice_ce`.
    """
    weights = [0.5**level for level in range(len(heads))]
    losses = [
        weight * dice_ce(logits, shrunk(label, logits.shape[2:]), across, loss)
        for weight, logits in zip(weights, heads, strict=True)
    ]
    return torch.stack(losses).sum() / sum(weights)


def shrunk(label: Tensor, size: Sequence[int]) -> Tensor:
    """Return the label on a coarser grid, by the nearest voxel."""
    if tuple(label.shape[1:]) == tuple(size):
        return label
    return F.interpolate(label[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0]
