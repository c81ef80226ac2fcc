"""Sliding-window inference: one object, shared by validation and prediction."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medseg.core.errors import GeometryError, OptionError
from medseg.networks.tiling import (
    Box,
    Span,
    box_at,
    content_of,
    gaussian_weight,
    pad_to,
    window_corners,
)

BACKGROUND_LOGIT = 20.0
"""Of the background, against 0 of the others, where every window was skipped as empty."""


@dataclass(frozen=True)
class SlidingWindow:
    """Predict a volume of any size from overlapping windows, weighted by a Gaussian.

    Attributes:
        roi_size: Window size, voxels; the training patch size.
        overlap: Share of a window that the next one covers again, in [0, 1).
        sw_batch_size: Windows in one forward pass.
        skip_empty: Lay the windows over the part of the image that is not empty, and leave out
            empty ones: air around a body, or the zeros around a cropped brain, are background.
    """

    roi_size: tuple[int, int, int]
    overlap: float = 0.5
    sw_batch_size: int = 4
    skip_empty: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise OptionError(f"overlap must be in [0, 1); got {self.overlap}.")
        if self.sw_batch_size < 1:
            raise OptionError(f"sw_batch_size must be at least 1; got {self.sw_batch_size}.")

    def __call__(self, image: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
        """Predict a whole volume.

        Args:
            image: Preprocessed image, shape (1, C, I, J, K), any size.
            network: Logits of a batch of windows, shape (B, C, *roi_size) to (B, classes, …).

        Returns:
            Logits on the image's grid, shape (1, classes, I, J, K), float32.

        Raises:
            GeometryError: If the image is not one volume, or an axis is empty.
        """
        return Walk(self, image, network).rows(0, image.shape[2], final=True)[None]

    def crops(self, image: Tensor) -> Iterator[Tensor]:
        """Yield the windows that are predicted of a volume, each shape (1, C, *roi_size)."""
        padded, _ = pad_to(image, self.roi_size)
        for box in self._boxes(padded):
            yield padded[:, :, *box]

    def is_same_on(self, image: Tensor, other: SlidingWindow) -> bool:
        """Return whether another one's windows of a volume are these very ones."""
        if self.roi_size != other.roi_size:
            return False
        padded, _ = pad_to(image, self.roi_size)
        return list(self._boxes(padded)) == list(other._boxes(padded))

    def _boxes(self, padded: Tensor) -> Iterator[Box]:
        content = content_of(padded[0]) if self.skip_empty else None
        corners = window_corners(padded.shape[2:], self.roi_size, self.overlap, content)
        for corner in itertools.product(*corners):
            box = box_at(corner, self.roi_size)
            if content is None or bool(content[box].any()):
                yield box


class Walk:
    """Logits of a volume, some rows after the other along one axis.

    Only the rows that a window may still add to, and those asked for last, are held.

    Args:
        window: How the windows lie.
        image: Shape (1, C, I, J, K).
        network: See `SlidingWindow`.
        axis: The axis that is walked along.
        box: The part of the image, a span of each axis, whose logits are wanted; along `axis` it
            says nothing. All of it if None. Windows that reach into it are predicted whole.
        longest: Most rows that are asked for at once; all of the axis if None.
        device: Where logits are added up; the image's if None.

    Raises:
        GeometryError: If the image is not one volume, or an axis is empty.
    """

    def __init__(
        self,
        window: SlidingWindow,
        image: Tensor,
        network: Callable[[Tensor], Tensor],
        axis: int = 0,
        box: Sequence[Span] | None = None,
        longest: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        if image.ndim != 5 or image.shape[0] != 1 or min(image.shape) < 1:
            raise GeometryError(f"image must have shape (1, C, I, J, K); got {tuple(image.shape)}.")
        self._window = window
        self._network = network
        self._axis = axis
        self._device = device or image.device
        size = list(image.shape[2:])
        spans = list(box) if box is not None else [(0, length) for length in size]
        spans[axis] = (0, size[axis])
        self._image, self._start = pad_to(image, window.roi_size)
        self._box = [(a + s, b + s) for (a, b), s in zip(spans, self._start, strict=True)]
        self._content = content_of(self._image[0]) if window.skip_empty else None
        corners = window_corners(
            self._image.shape[2:], window.roi_size, window.overlap, self._content
        )
        self._waiting = corners[axis]
        corners[axis] = [0]
        self._plane = [
            corner
            for corner in itertools.product(*corners)
            if all(
                other == axis or (corner[other] < b and corner[other] + roi > a)
                for other, ((a, b), roi) in enumerate(zip(self._box, window.roi_size, strict=True))
            )
        ]
        self._capacity = min(
            (longest or size[axis]) + window.roi_size[axis], self._image.shape[2 + axis]
        )
        self._weight = gaussian_weight(window.roi_size).to(self._device)
        self._base = self._start[axis]  # the first row that is held
        self._total: Tensor | None = None
        self._weights = torch.empty(0)

    def rows(self, start: int, stop: int, final: bool = False) -> Tensor:
        """Return the logits of some rows, which must not begin before those asked for earlier.

        Args:
            start: First row.
            stop: One past the last row.
            final: Nothing is asked for afterwards: the sums themselves become the logits.

        Returns:
            Shape (classes, …) of the box, `stop - start` rows along the axis, float32.
        """
        begin, end = start + self._start[self._axis], stop + self._start[self._axis]
        roi = self._window.roi_size[self._axis]
        while self._waiting and self._waiting[0] < end:
            corner = self._waiting.pop(0)
            if corner + roi > begin:
                self._forget(begin)
                self._add_windows(corner)
        self._forget(begin)
        total, weights = self._buffers()
        logits = total.narrow(1 + self._axis, 0, end - begin)
        weight = weights.narrow(self._axis, 0, end - begin)
        if self._content is None:
            return logits.div_(weight) if final else logits / weight
        holes = weight == 0
        weight = weight.masked_fill(holes, 1.0)
        logits = logits.div_(weight) if final else logits / weight
        logits[0].masked_fill_(holes, BACKGROUND_LOGIT)
        return logits

    def _add_windows(self, corner: int) -> None:
        """Predict the windows that begin at one row."""
        axis, roi = self._axis, self._window.roi_size
        boxes = []
        for place in self._plane:
            box = box_at([corner if a == axis else c for a, c in enumerate(place)], roi)
            if self._content is None or bool(self._content[box].any()):
                boxes.append(box)
        size = self._window.sw_batch_size
        for first in range(0, len(boxes), size):
            some = boxes[first : first + size]
            logits = self._predict(some)
            for box, window in zip(some, logits, strict=True):
                self._add(box, window)

    def _predict(self, boxes: Sequence[Box]) -> Tensor:
        crops = [self._image[:, :, *box] for box in boxes]
        return self._network(torch.cat(crops)).float().to(self._device)

    def _add(self, box: Box, logits: Tensor) -> None:
        """Add the part of a window's logits that lies within the box and the held rows."""
        total, weights = self._buffers(logits)
        held = list(self._box)
        held[self._axis] = (self._base, self._base + self._capacity)
        there, here = [], []
        for span, (first, last) in zip(box, held, strict=True):
            low, high = max(span.start, first), min(span.stop, last)
            there.append(slice(low - first, high - first))
            here.append(slice(low - span.start, high - span.start))
        weight = self._weight[*here]
        total[:, *there].addcmul_(logits[:, *here], weight)
        weights[*there].add_(weight)

    def _buffers(self, logits: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the sums of logits and of weights; the first logits say how many classes."""
        if self._total is None:
            if logits is None:  # every window so far was empty
                logits = self._predict([box_at((0, 0, 0), self._window.roi_size)])[0]
            shape = [b - a for a, b in self._box]
            shape[self._axis] = self._capacity
            self._total = torch.zeros((logits.shape[0], *shape), device=self._device)
            self._weights = torch.zeros(shape, device=self._device)
        return self._total, self._weights

    def _forget(self, row: int) -> None:
        """Move the held rows so that they begin with `row`."""
        gone = row - self._base
        self._base = row
        if gone <= 0 or self._total is None:
            return
        for buffer in (*self._total, self._weights):  # class by class: no second copy of all
            kept = self._capacity - min(gone, self._capacity)
            if kept:
                live = buffer.narrow(self._axis, gone, kept).clone()
                buffer.narrow(self._axis, 0, kept).copy_(live)
            buffer.narrow(self._axis, kept, self._capacity - kept).zero_()
