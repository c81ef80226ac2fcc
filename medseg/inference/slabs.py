"""Logits of an ensemble on a case's own grid, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medseg.core.geometry import Grid
from medseg.data.resample import GridMap, Span
from medseg.inference.cuts import Box, Cut, longest_span
from medseg.networks.window import SlidingWindow, Walk


@dataclass(frozen=True, eq=False)
class Source:
    """One network and what it sees of a case.

    Attributes:
        network: Logits of a batch of windows.
        window: How the windows lie.
        image: Shape (1, C, I, J, K), on its own grid.
        grid: Where its voxels lie.
    """

    network: Callable[[Tensor], Tensor]
    window: SlidingWindow
    image: Tensor
    grid: Grid


def blocks(
    sources: Sequence[Source], original: Grid, cut: Cut, device: torch.device
) -> Iterator[tuple[Box, Tensor]]:
    """Yield logits on the original grid, block by block; of several networks, log probabilities.

    Logits are brought back, not labels: interpolated labels would be jagged. Positions are counted
    in the whole volume, so that the blocks fit without a seam.

    Args:
        sources: The networks.
        original: The grid of the label map.
        cut: The blocks.
        device: Where logits are added up.

    Yields:
        A box of the original grid and its values, shape (classes, …).
    """
    for box in cut.boxes(original.shape):
        walks = [_Walk(source, original, cut, box, device) for source in sources]
        for rows in _steps(box[cut.axis], cut.step, walks[0].ascends):
            i, j, k = (rows if axis == cut.axis else span for axis, span in enumerate(box))
            yield (i, j, k), _together([walk.logits((i, j, k)) for walk in walks])


def _together(logits: list[Tensor]) -> Tensor:
    """Return the logits of one network, or the logarithm of the mean of probabilities."""
    if len(logits) == 1:
        return logits[0]
    mean = logits[0].softmax(dim=0)
    for others in logits[1:]:
        mean += others.softmax(dim=0)
    return mean.div_(len(logits)).log_()


def _steps(span: Span, step: int, ascending: bool) -> Iterator[Span]:
    """Yield the parts of a span, in the direction in which the networks' grids ascend."""
    first, last = span
    starts = range(first, last, step)
    for start in starts if ascending else reversed(starts):
        yield start, min(start + step, last)


class _Walk:
    """One network's way through a box of the original grid."""

    def __init__(
        self, source: Source, original: Grid, cut: Cut, box: Box, device: torch.device
    ) -> None:
        self._maps = GridMap(source.grid, original)
        self._along = self._maps.axes[cut.axis]
        self._part = self._maps.needed(box)
        self.ascends = self._maps.ascends(cut.axis)
        longest = longest_span(self._maps, cut.axis, box, cut.step)
        self._walk = Walk(
            source.window, source.image, source.network, self._along, self._part, longest, device
        )

    def logits(self, box: Box) -> Tensor:
        """Return the logits of some rows on the original grid."""
        rows = self._maps.needed(box)[self._along]
        first = [span[0] for span in self._part]
        first[self._along] = rows[0]
        return self._maps.sample(self._walk.rows(*rows), first, box)
