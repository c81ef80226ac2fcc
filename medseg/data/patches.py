"""Patches for training and whole volumes for validation; every draw depends on (seed, number)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from medseg.data.cache import Entry
from medseg.data.transforms import transformed


class PatchDataset(Dataset[dict[str, Any]]):
    """Training patches by number, an endless sequence that is the same for any worker count.

    Cases come in shuffled passes, so that after n passes each was used n times.

    Args:
        entries: Preprocessed cases.
        patch_size: Voxels of a patch; smaller images are padded with zeros.
        foreground: Share of the patches centred on a foreground voxel, its class drawn first.
        transforms: MONAI's dictionary transforms, or None.
        seed: Of all draws.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        patch_size: Sequence[int],
        foreground: float,
        transforms: Compose | None,
        seed: int,
    ) -> None:
        self.entries = list(entries)
        self.patch_size = tuple(patch_size)
        self.foreground = foreground
        self.transforms = transforms
        self.seed = seed
        self._ends: dict[str, NDArray[np.intp]] = {}

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return {"image" (C, *patch_size) float32, "label" (*patch_size) uint8}."""
        entry = self.entries[self._case_of(number)]
        rng = np.random.default_rng([self.seed, 1, number])
        image, label = entry.image(), entry.label()
        corner = self._corner(rng, label.shape, self._by_class(entry))
        patch = _crop(image, corner, self.patch_size)
        target = _crop(label[None], corner, self.patch_size)[0]
        if self.transforms is not None:
            draw = int(rng.integers(2**32))
            patch, target = transformed(self.transforms, patch, target, draw)
        return {"image": patch, "label": target, "number": number}

    def _case_of(self, number: int) -> int:
        turn, place = divmod(number, len(self.entries))
        order = np.random.default_rng([self.seed, 0, turn]).permutation(len(self.entries))
        return int(order[place])

    def _by_class(self, entry: Entry) -> list[NDArray[np.int32]]:
        """Return the foreground voxels (i, j, k) of each class, mapped; they lie class by class."""
        rows = entry.foreground()
        if not len(rows):
            return []
        # Kept, since reading every row takes longer than all else; mappings would hold files open.
        if entry.case_id not in self._ends:
            self._ends[entry.case_id] = np.flatnonzero(np.diff(rows[:, 0])) + 1
        return np.split(rows[:, 1:], self._ends[entry.case_id])

    def _corner(
        self, rng: np.random.Generator, shape: Sequence[int], classes: Sequence[NDArray[np.int32]]
    ) -> list[int]:
        """Return the first voxel of a patch; negative where the image is smaller."""
        room = [n - p for n, p in zip(shape, self.patch_size, strict=True)]
        corner = [int(rng.integers(r + 1)) if r > 0 else r // 2 for r in room]
        if classes and rng.random() < self.foreground:
            of_class = classes[rng.choice(len(classes))]
            centre = of_class[rng.integers(len(of_class))]
            for axis, r in enumerate(room):
                if r > 0:
                    corner[axis] = int(np.clip(centre[axis] - self.patch_size[axis] // 2, 0, r))
        return corner


class VolumeDataset(Dataset[dict[str, Any]]):
    """Whole preprocessed cases, in order.

    Args:
        entries: Preprocessed cases.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return {"image" (C, I, J, K), "label" (I, J, K), "case_id"}."""
        entry = self.entries[index]
        return {
            "image": torch.from_numpy(np.array(entry.image())),
            "label": torch.from_numpy(np.array(entry.label())),
            "case_id": entry.case_id,
        }


class NumberSampler(Sampler[int]):
    """Numbers of the patches that one device sees in one epoch.

    Batch n of a training holds, over all devices, the same patches whatever their number; each
    device takes its part of it. Where an epoch was cut off, its rest follows.

    Args:
        batches: Batches in an epoch.
        batch_size: Patches in a batch, on one device.
        started: Tells how many batches of the training were started so far.
        rank: This device's number.
        world_size: Number of devices.
    """

    def __init__(
        self,
        batches: int,
        batch_size: int,
        started: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.batches = batches
        self.batch_size = batch_size
        self.started = started
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        first = self.started()
        left = self.batches - first % self.batches
        for batch in range(first, first + left):
            number = (batch * self.world_size + self.rank) * self.batch_size
            yield from range(number, number + self.batch_size)


def _crop(array: NDArray[Any], corner: Sequence[int], size: Sequence[int]) -> Tensor:
    """Cut (C, *size) out of (C, I, J, K), with zeros where the array ends."""
    out = np.zeros((array.shape[0], *size), dtype=array.dtype)
    source, target = [slice(None)], [slice(None)]
    for start, length, there in zip(corner, size, array.shape[1:], strict=True):
        first, last = max(start, 0), min(start + length, there)
        source.append(slice(first, last))
        target.append(slice(first - start, last - start))
    out[tuple(target)] = array[tuple(source)]
    return torch.from_numpy(out)
