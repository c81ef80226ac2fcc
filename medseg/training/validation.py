"""Whole volumes predicted and scored some rows at a time: logits of all of one need not be held."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from medseg.data.transforms import IGNORE_INDEX
from medseg.networks.window import SlidingWindow, Walk
from medseg.training.loss import Loss, loss_of_sums, loss_sums

SLAB = 1 << 23
"""Logits of a slab, voxels times classes; to score it takes about five times that besides."""

SUMS_SHARE = 1 / 16
"""Of a GPU's memory that the sums of overlapping windows may take; larger ones are held in the
machine's memory. Training has left room: what backward keeps is free by then."""


@dataclass(frozen=True)
class Slab:
    """Some rows of a volume along one axis.

    Attributes:
        logits: Shape (1, classes, I, J, K) of these rows.
        axis: The axis, 0 to 2.
        start: The first row.
    """

    logits: Tensor
    axis: int
    start: int

    def of(self, label: Tensor) -> Tensor:
        """Return these rows of the volume's label, shape (1, I, J, K), on the logits' device."""
        rows = label.narrow(1 + self.axis, self.start, self.logits.shape[2 + self.axis])
        return rows.to(self.logits.device)


def slabs(
    window: SlidingWindow, image: Tensor, network: Callable[[Tensor], Tensor], classes: int
) -> Iterator[Slab]:
    """Yield the logits of a volume, some rows after the other along its longest axis.

    Args:
        window: How the windows lie.
        image: Shape (1, C, I, J, K).
        network: See `SlidingWindow`.
        classes: How many logits it gives a voxel.
    """
    shape = image.shape[2:]
    axis = max(range(3), key=shape.__getitem__)
    row = classes * math.prod(shape) // shape[axis]
    rows = min(max(SLAB // row, 1), shape[axis])
    held = min(rows + window.roi_size[axis], shape[axis])
    device = image.device
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        if 4 * row * held > SUMS_SHARE * total:
            device = torch.device("cpu")
    walk = Walk(window, image, network, axis, longest=rows, device=device)
    for start in range(0, shape[axis], rows):
        stop = min(start + rows, shape[axis])
        yield Slab(walk.rows(start, stop, stop == shape[axis])[None], axis, start)


def score_volume(parts: Iterator[Slab], label: Tensor, classes: int, loss: Loss) -> Tensor:
    """Return the loss of a volume and Dice of each foreground class, float64 on the CPU.

    Args:
        parts: All of it.
        label: Class indices, shape (1, I, J, K); `IGNORE_INDEX` is left out.
        classes: Number of classes, the background included.
        loss: Its weights and variants.
    """
    # Of one volume Dice over samples is that over the batch, whose sums add up.
    whole = dataclasses.replace(loss, dice_over="batch")
    sums, table = torch.zeros(2 * classes), torch.zeros(classes, classes, dtype=torch.float64)
    for slab in parts:
        truth = slab.of(label)
        sums = sums + loss_sums(slab.logits, truth, whole).double().cpu()
        table += confusion(slab.logits.argmax(1), truth, classes).cpu()
    return torch.cat([loss_of_sums(sums, whole)[None], dice_of_table(table)])


def predict_volume(parts: Iterator[Slab]) -> Tensor:
    """Return the class indices of a volume, shape (I, J, K), uint8 on the CPU."""
    found = [(slab.axis, slab.logits.argmax(1)[0].to(torch.uint8).cpu()) for slab in parts]
    return torch.cat([labels for _, labels in found], dim=found[0][0])


def hard_dice(prediction: Tensor, label: Tensor, classes: int) -> Tensor:
    """Return Dice of each foreground class, NaN where a class is absent from both.

    Args:
        prediction: Class indices, shape (1, I, J, K).
        label: Class indices, same shape; `IGNORE_INDEX` is left out.
        classes: Number of classes, the background included.
    """
    return dice_of_table(confusion(prediction, label, classes)).cpu()


def confusion(prediction: Tensor, label: Tensor, classes: int) -> Tensor:
    """Return voxels by class of the label (rows) and of the prediction, shape (K, K), float64."""
    # What is ignored is counted apart: to select the rest would take seven times as long.
    ignored = classes**2
    pairs = (label.long() * classes + prediction).masked_fill_(label == IGNORE_INDEX, ignored)
    counts = torch.bincount(pairs.flatten(), minlength=ignored + 1)
    return counts[:ignored].reshape(classes, classes).double()


def dice_of_table(table: Tensor) -> Tensor:
    """Return Dice of each foreground class from counts of voxels, NaN where absent from both."""
    return (2 * table.diagonal() / (table.sum(0) + table.sum(1)))[1:]
