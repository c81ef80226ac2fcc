"""How the logits of a case are made piece by piece, so that they fit a memory limit."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.core.geometry import Grid
from medseg.data.resample import GridMap, Span
from medseg.networks.checkpoint import Description
from medseg.networks.tiling import window_corners
from medseg.networks.window import SlidingWindow

STEP_BYTES = 64 << 20
"""Logits on the original grid at a time; larger steps are not faster."""

FEATURE_MAPS = 12
"""Most feature maps of the finest level that exist at once in a forward pass of the U-Net: 5 by
count (skip, concatenation of two, convolution and norm), 12 by measurement with oneDNN's copies."""

LOGIT_MAPS = 3
"""Copies of one window's logits: as the network gives them, in float32, and a product."""

_STEP_MAPS = 4  # logits of one step: as sampled, two neighbours of an interpolation, a softmax

_SLANTED_VOXELS, _SLANTED_BYTES = 1 << 20, 160
"""Voxels of a step, and what the coordinates of each take, where axes are not parallel."""

_PIECES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

Box = tuple[Span, Span, Span]


@dataclass(frozen=True)
class Footprint:
    """What one network takes.

    Attributes:
        window: How its windows lie.
        channels: Image channels.
        classes: Of its logits, the background included.
        widest: Channels times voxels of its largest feature map of one window.
        weights: Bytes of its weights.
    """

    window: SlidingWindow
    channels: int
    classes: int
    widest: int
    weights: int

    @classmethod
    def of(cls, description: Description, window: SlidingWindow, weights: int) -> Footprint:
        """Return what a described network takes with a sliding window."""
        voxels, widest = math.prod(window.roi_size), 0
        plan = description.architecture
        for channels, stride in zip(plan.channels, plan.level_strides, strict=True):
            voxels //= math.prod(stride)
            widest = max(widest, channels * voxels)
        task = description.task
        return cls(window, len(task["channel_names"]), len(task["labels"]), widest, weights)

    @property
    def window_bytes(self) -> int:
        """Bytes of one forward pass."""
        logits = self.classes * math.prod(self.window.roi_size)
        per_window = FEATURE_MAPS * self.widest + LOGIT_MAPS * logits
        return 4 * self.window.sw_batch_size * per_window


@dataclass(frozen=True)
class Cut:
    """How the logits of a case are made piece by piece.

    Attributes:
        axis: Axis of the original grid that is walked along.
        pieces: Into how many pieces each axis of the original grid is cut; 1 along `axis`.
        step: Rows along `axis` that are finished at a time.
        windows: Windows predicted; one that reaches into two pieces is predicted for both.
        fewest: The same with a single piece.
        slab_bytes: Logits that exist at once.
    """

    axis: int
    pieces: tuple[int, int, int]
    step: int
    windows: int
    fewest: int
    slab_bytes: int

    def boxes(self, shape: Sequence[int]) -> Iterator[Box]:
        """Yield the pieces of a grid of this shape."""
        spans = [_spans(length, count) for length, count in zip(shape, self.pieces, strict=True)]
        yield from itertools.product(spans[0], spans[1], spans[2])


def _spans(length: int, count: int) -> list[Span]:
    ends = [round(length * part / count) for part in range(count + 1)]
    return list(itertools.pairwise(ends))


def best_cut(
    original: Grid,
    footprints: Sequence[Footprint],
    grids: Sequence[Grid],
    room: int | None = None,
    axes: Sequence[int] = (0, 1, 2),
) -> Cut | None:
    """Return the cut with the fewest windows, and the smallest slab among those.

    Cases of one shape, spacing and orientation get theirs from a cache.

    Args:
        original: The grid of the label map.
        footprints: Of the networks.
        grids: The networks' grids.
        room: Most bytes of logits; any if None.
        axes: Axes of the original grid that may be walked along.

    Returns:
        None if no cut has room.
    """
    places = []
    for grid in grids:
        to_source = np.linalg.inv(grid.affine) @ original.affine
        places.append((grid.shape, tuple(np.round(to_source, 6).ravel().tolist())))
    return _best_cut(original.shape, tuple(footprints), tuple(places), room, tuple(axes))


@functools.lru_cache(maxsize=64)
def _best_cut(
    shape: tuple[int, int, int],
    footprints: tuple[Footprint, ...],
    places: tuple[tuple[tuple[int, int, int], tuple[float, ...]], ...],
    room: int | None,
    axes: tuple[int, ...],
) -> Cut | None:
    """Return the best cut of a grid, each network's voxels being its world."""
    networks = []
    for footprint, (source, matrix) in zip(footprints, places, strict=True):
        target = Grid(shape, np.reshape(matrix, (4, 4)))
        networks.append((footprint, GridMap(Grid(source, np.eye(4)), target)))
    fewest = _all_windows(networks, (1, 1, 1))
    found = [cut for axis in axes for cut in _cuts_along(shape, networks, axis, room, fewest)]
    return min(found, key=lambda cut: (cut.windows, cut.slab_bytes), default=None)


Networks = Sequence[tuple[Footprint, GridMap]]


def _cuts_along(
    shape: Sequence[int], networks: Networks, axis: int, room: int | None, fewest: int
) -> Iterator[Cut]:
    """Yield the cuts that fit: the whole if it does, or all kinds of pieces."""
    first, second = (other for other in range(3) if other != axis)
    for many, more in itertools.product(_PIECES, _PIECES):
        if many > shape[first] or more > shape[second]:
            continue
        pieces = [1, 1, 1]
        pieces[first], pieces[second] = many, more
        cut = _cut_with(shape, networks, axis, (pieces[0], pieces[1], pieces[2]), fewest)
        if room is None or cut.slab_bytes <= room:
            yield cut
            if many == more == 1:
                return


def _cut_with(
    shape: Sequence[int],
    networks: Networks,
    axis: int,
    pieces: tuple[int, int, int],
    fewest: int,
) -> Cut:
    largest = [math.ceil(n / p) for n, p in zip(shape, pieces, strict=True)]
    plane = math.prod(largest) // shape[axis]
    classes = networks[0][0].classes
    voxels = STEP_BYTES // (4 * classes)
    is_slanted = any(grids.parallel is None for _, grids in networks)
    if is_slanted:
        voxels = min(voxels, _SLANTED_VOXELS)
    step = min(max(voxels // plane, 1), shape[axis])
    slab = (_STEP_MAPS * 4 * classes + _SLANTED_BYTES * is_slanted) * step * plane
    box = [((n - m) // 2, (n - m) // 2 + m) for n, m in zip(shape, largest, strict=True)]
    slab += sum(_held(footprint, grids, axis, box, step) for footprint, grids in networks)
    return Cut(axis, pieces, step, _all_windows(networks, pieces), fewest, slab)


def longest_span(grids: GridMap, axis: int, box: Sequence[Span], step: int) -> int:
    """Return the most rows of the source that `step` rows of a target box are made from."""
    along = grids.axes[axis]
    length = grids.target.shape[axis]
    spans = []
    for start in {0, max((length - step) // 2, 0), max(length - step, 0)}:
        rows = list(box)
        rows[axis] = (start, min(start + step, length))
        low, high = grids.needed(rows)[along]
        spans.append(high - low)
    return min(max(spans) + 1, grids.source.shape[along])  # 1: the place of the edge varies


def _held(footprint: Footprint, grids: GridMap, axis: int, box: Sequence[Span], step: int) -> int:
    """Return the bytes of one network's logits while a box is walked through."""
    along = grids.axes[axis]
    rows = longest_span(grids, axis, box, step)
    roi = footprint.window.roi_size
    size = [max(n, r) for n, r in zip(grids.source.shape, roi, strict=True)]
    held = min(rows + roi[along], size[along])
    plane = math.prod(b - a for a, b in grids.needed(box)) // grids.source.shape[along]
    # The sums, one class of them while they move on, and the rows that are finished.
    return 4 * plane * ((footprint.classes + 2) * held + footprint.classes * rows)


def _all_windows(networks: Networks, pieces: Sequence[int]) -> int:
    return sum(_windows(footprint, grids, pieces) for footprint, grids in networks)


def _windows(footprint: Footprint, grids: GridMap, pieces: Sequence[int]) -> int:
    """Return how many windows are predicted, those that reach into two pieces for both."""
    window, count = footprint.window, 1
    size = [max(n, r) for n, r in zip(grids.source.shape, window.roi_size, strict=True)]
    corners = window_corners(size, window.roi_size, window.overlap)
    whole = [(0, length) for length in grids.target.shape]
    for axis, along in enumerate(grids.axes):
        roi, shift = window.roi_size[along], (size[along] - grids.source.shape[along]) // 2
        reached = 0
        for span in _spans(grids.target.shape[axis], pieces[axis]):
            first, last = grids.needed([*whole[:axis], span, *whole[axis + 1 :]])[along]
            reached += sum(c < last + shift and c + roi > first + shift for c in corners[along])
        count *= reached
    return count
