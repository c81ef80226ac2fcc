"""What labelling a case takes: arithmetic on headers, before anything is read.

The answers depend on the case, the networks and the options alone, never on the memory that
happens to be free, so that a case is labelled in the same way each time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.core.postprocessing import Postprocessing, bytes_needed
from medseg.data.transforms import Preprocessing, canonical_grid, channels_per_file
from medseg.inference.cuts import Cut, Footprint, best_cut
from medseg.io import read_extent
from medseg.io.memory import size

PROCESS_BYTES = 450 << 20
"""One process with torch and SimpleITK loaded: 260 MiB measured, and room for its heap."""


@dataclass(frozen=True)
class Plan:
    """What a case takes in a process, beyond the process and its networks.

    Attributes:
        cut: How its logits are made.
        reading: Bytes while it is read and preprocessed.
        labelling: Bytes while the networks run.
        writing: Bytes while it is post-processed and written.
    """

    cut: Cut
    reading: int
    labelling: int
    writing: int

    @property
    def bytes(self) -> int:
        """The largest of the three."""
        return max(self.reading, self.labelling, self.writing)


@dataclass(frozen=True)
class Request:
    """What is asked of every case.

    Attributes:
        footprints: Of the networks.
        preprocessings: Of the networks, in the same order.
        label_bytes: Of one voxel of a label map.
        uncertainty: Whether a map of the uncertainty is made.
        probabilities: Whether probabilities are written.
        rules: Post-processing of every label map.
        on_host: Whether the networks run in this machine's memory, and not in a GPU's.
    """

    footprints: tuple[Footprint, ...]
    preprocessings: tuple[Preprocessing, ...]
    label_bytes: int = 1
    uncertainty: bool = False
    probabilities: bool = False
    rules: Postprocessing = ()
    on_host: bool = True

    @property
    def fixed_bytes(self) -> int:
        """Bytes of a process and its networks.

        Weights count six times: as read, as a network, folded, arranged, and their filters twice.
        """
        return PROCESS_BYTES + 6 * sum(footprint.weights for footprint in self.footprints)

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes of the original grid that may be walked along."""
        # Probabilities are written in rows of the first axis, as they lie in their file.
        return (0,) if self.probabilities else (0, 1, 2)

    def plan_files(
        self,
        images: Sequence[Path],
        series_uid: str | None,
        limit: int | None,
        missing: str = "",
    ) -> tuple[Plan, Grid]:
        """Plan one case from its headers; return the plan and the grid of its (first) image.

        Args:
            images: Its files.
            series_uid: The DICOM series to read where a folder holds several.
            limit: See `plan`.
            missing: What to do if its one file holds too few channels.

        Raises:
            GeometryError: If the number of files does not fit the channels.
            VolumeError: If a header is refused, or no plan keeps the limit (`memory`).
        """
        per_file = channels_per_file(images, self.footprints[0].channels)
        extents = [read_extent(path, series_uid, per_file, missing) for path in images]
        original = extents[0].grid
        grids = [canonical_grid(original, each) for each in self.preprocessings]
        stored = sum(extent.memory_bytes for extent in extents)
        # A channel on another grid is read as float32 before it is brought onto the first one's.
        others = [e.grid for e in extents[1:] if not e.grid.is_same(original)]
        stored += 4 * max((math.prod(grid.shape) for grid in others), default=0)
        plan = self.plan(original, grids, stored, limit)
        if plan is None:
            reading = self._reading(original, grids, stored)
            raise self._not_enough(images[0], reading, limit or 0)
        return plan, original

    def _not_enough(self, subject: Path, reading: int, there: int) -> VolumeError:
        """Return the error of a case that cannot keep the memory allowed."""
        window = max(footprint.window_bytes for footprint in self.footprints)
        takes = f"one window takes {size(window)}, beside image and label map"
        if reading > there:
            takes = f"reading this one takes {size(reading)}"
        cause = f"{size(there)} are left for a case; {takes}"
        return VolumeError(subject, "memory", cause, "raise --max_memory, or take fewer --workers")

    def plan(
        self,
        original: Grid,
        grids: Sequence[Grid],
        stored_bytes: int,
        limit: int | None = None,
    ) -> Plan | None:
        """Plan one case.

        Args:
            original: The grid of its (first) image.
            grids: The networks' grids.
            stored_bytes: What reading its files takes.
            limit: Most bytes beyond `fixed_bytes`; any if None.

        Returns:
            The plan with the fewest windows that keeps the limit, or None if there is none.
        """
        voxels = math.prod(original.shape)
        channels = self.footprints[0].channels
        images = 4 * channels * sum(self._kept(grids).values())
        reading = self._reading(original, grids, stored_bytes)
        label = self.label_bytes * voxels
        extra = 4 * voxels if self.uncertainty else 0
        writing = 4 * label + 3 * extra
        if self.rules:
            writing = max(writing, label + extra + bytes_needed(original.shape))
        held = images + images // (4 * channels) + label + extra + self._padding(grids)
        if limit is not None and max(reading, writing, held) > limit:
            return None  # at once: the windows of an absurd header take minutes to count
        if self.on_host:
            held += max(footprint.window_bytes for footprint in self.footprints)
        room = None if limit is None else limit - held
        there = room if self.on_host else None
        cut = best_cut(original, self.footprints, grids, there, self.axes)
        if cut is None:
            return None
        plan = Plan(cut, reading, held + (cut.slab_bytes if self.on_host else 0), writing)
        return None if limit is not None and plan.bytes > limit else plan

    def _kept(self, grids: Sequence[Grid]) -> dict[str, int]:
        """Return the voxels of each image that is held; equal preprocessings share one."""
        pairs = zip(self.preprocessings, grids, strict=True)
        return {repr(preprocessing): math.prod(grid.shape) for preprocessing, grid in pairs}

    def _reading(self, original: Grid, grids: Sequence[Grid], stored_bytes: int) -> int:
        """Return the bytes of a case while it is read and preprocessed."""
        kept, value = self._kept(grids).values(), 4 * self.footprints[0].channels
        # As stored and as float32; then, of each grid, the result and a copy to measure it.
        read = stored_bytes + value * math.prod(original.shape)
        return read + value * (sum(kept) + max(kept) + max(kept) // 4)

    def _padding(self, grids: Sequence[Grid]) -> int:
        """Return the bytes of the images that are padded to a window."""
        total = 0
        for footprint, grid in zip(self.footprints, grids, strict=True):
            padded = [max(n, r) for n, r in zip(grid.shape, footprint.window.roi_size, strict=True)]
            if tuple(padded) != grid.shape:
                total += 4 * footprint.channels * math.prod(padded)
        return total
