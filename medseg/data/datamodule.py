"""The Lightning data module: a manifest's folds as patches and volumes."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from monai.transforms import Compose
from torch.utils.data import DataLoader, default_collate

from medseg.core.errors import ManifestError, OptionError
from medseg.core.manifest import Manifest, load_manifest
from medseg.data.augmentation import Augmentation, Augmenter
from medseg.data.cache import Cache, Entry, Progress, default_folder
from medseg.data.patches import NumberSampler, PatchDataset, VolumeDataset
from medseg.data.transforms import Preprocessing


class SegmentationData(pl.LightningDataModule):
    """Training patches and validation volumes of a manifest.

    Args:
        manifest: Data set manifest (JSON), an MSD dataset.json or an nnU-Net raw folder.
        root: Folder the manifest's paths are relative to; the manifest's own if not given.
        fold: Fold to validate on; never trained on.
        train_folds: Folds to train on; all but `fold` if not given.
        patch_size: Voxels of a training patch and of the sliding window.
        batch_size: Patches in one forward pass on one device.
        steps_per_epoch: Optimizer steps in an epoch; validation comes between epochs.
        foreground: Share of the patches centred on a foreground voxel.
        preprocessing: Spacing, orientation and intensity scaling.
        augmentation: What is varied in training; null for nothing.
        num_workers: Loader processes; the patches do not depend on it.
        cache_dir: Folder of preprocessed cases; the user's cache folder if not given.
    """

    def __init__(
        self,
        manifest: Path,
        root: Path | None = None,
        fold: int = 0,
        train_folds: list[int] | None = None,
        patch_size: tuple[int, int, int] = (64, 64, 64),
        batch_size: int = 2,
        steps_per_epoch: int = 250,
        foreground: float = 0.5,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 - frozen
        augmentation: Augmentation | None = Augmentation(),  # noqa: B008 - frozen
        num_workers: int = 0,
        cache_dir: Path | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or steps_per_epoch < 1:
            raise OptionError(
                "data.batch_size and data.steps_per_epoch must be at least 1; "
                f"got {batch_size} and {steps_per_epoch}."
            )
        if num_workers < 0:
            raise OptionError(f"data.num_workers must be at least 0; got {num_workers}.")
        if not 0 <= foreground <= 1:
            raise OptionError(f"data.foreground must be in [0, 1]; got {foreground}.")
        self.manifest: Manifest = load_manifest(manifest, root)
        self.train_cases, self.val_cases = self.manifest.split(fold, train_folds)
        self._require_files(fold)
        self.fold = fold
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.foreground = foreground
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.num_workers = num_workers
        self.progress: Progress | None = None
        self.seed = torch.initial_seed() % 2**32
        self._cache = Cache(cache_dir or default_folder(), self.manifest, preprocessing)
        self._entries: dict[str, list[Entry]] = {}

    def _require_files(self, fold: int) -> None:
        """Check that the files are there; where whole folds are held back, say how to do without.

        Raises:
            ManifestError: If not.
        """
        try:
            self.manifest.require_files((*self.train_cases, *self.val_cases), "--data.root")
        except ManifestError as error:
            present = self.manifest.present_folds()
            wanted = {case.fold for case in self.train_cases if case.fold is not None}
            held, left = sorted(wanted - set(present)), sorted(wanted & set(present))
            if not held or not left or fold not in present:
                raise
            raise ManifestError(
                f"{error}\nNo file of fold {', '.join(map(str, held))} is here: train without by "
                f"--data.train_folds '{left}'."
            ) from error

    @property
    def task(self) -> dict[str, Any]:
        """What a network trained on this data must know about it; primitives only."""
        return {
            "manifest": self.manifest.name,
            "channel_names": list(self.manifest.channel_names),
            "labels": dict(self.manifest.labels),
            "patch_size": list(self.patch_size),
            "batch_size": self.batch_size,
            "preprocessing": asdict(self.preprocessing),
            "mirror_axes": self._mirror_axes,
            "train_cases": [case.case_id for case in self.train_cases],
            "val_cases": [case.case_id for case in self.val_cases],
        }

    @property
    def _mirror_axes(self) -> list[int]:
        """Axes that training mirrors: prediction may mirror these, and no others."""
        augmentation = self.augmentation
        return sorted(set(augmentation.flip_axes)) if augmentation and augmentation.flip > 0 else []

    def prepare_data(self) -> None:
        """Preprocess every case once, on one process."""
        self._cache.prepare((*self.train_cases, *self.val_cases), self.progress)

    def setup(self, stage: str) -> None:
        """Look up the preprocessed cases."""
        if not self._entries:
            self._entries = {"val": self._cache.prepare(self.val_cases)}
        if stage == "fit" and "train" not in self._entries:
            self._entries["train"] = self._cache.prepare(self.train_cases)

    def _patches(self) -> PatchDataset:
        own = self.augmentation.transforms if self.augmentation else None
        return PatchDataset(
            self._entries["train"],
            self.patch_size,
            self.foreground,
            Compose(own) if own else None,
            self.seed,
        )

    def fixed_batches(
        self, batches: int, device: torch.device | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield batches of patches as `train_dataloader` does, varied, always the same ones.

        Args:
            batches: How many.
            device: Where they are varied, and stay; the CPU if None.
        """
        dataset = self._patches()
        for batch in range(batches):
            numbers = range(batch * self.batch_size, (batch + 1) * self.batch_size)
            patches = default_collate([dataset[number] for number in numbers])
            if device is not None:
                patches |= {name: patches[name].to(device) for name in ("image", "label")}
            yield self.augmented(patches)

    def population(
        self, batches: int, device: torch.device | None = None
    ) -> Iterator[torch.Tensor]:
        """Yield their images, shape (B, C, *patch_size)."""
        for batch in self.fixed_batches(batches, device):
            yield batch["image"]

    def augmented(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch of patches, varied on the device where it is."""
        if self.augmentation is None:
            return batch
        augmenter = Augmenter(self.augmentation, self.seed, self.preprocessing.spacing)
        image, label = augmenter(batch["image"], batch["label"], batch["number"].tolist())
        return {**batch, "image": image, "label": label}

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch, but for the patches' numbers: read from a GPU they would wait for it."""
        if "number" not in batch:
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        rest = {name: value for name, value in batch.items() if name != "number"}
        moved = super().transfer_batch_to_device(rest, device, dataloader_idx)
        return {**moved, "number": batch["number"]}

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Vary training patches once they are on the device that trains."""
        del dataloader_idx
        return self.augmented(batch) if "number" in batch else batch

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return batches of {"image" (B, C, *patch_size), "label" (B, *patch_size)}."""
        return DataLoader(
            self._patches(),
            batch_size=self.batch_size,
            sampler=self._sampler(),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_outlive_signals,
            pin_memory=torch.cuda.is_available(),
        )

    def _sampler(self) -> NumberSampler:
        """Return the numbers of the next epoch's patches: they follow from the training's progress.

        Lightning tells samplers the epoch too late for a resumed run, and the batch not at all.
        """
        trainer = self.trainer
        if trainer is None:
            return NumberSampler(self.steps_per_epoch, self.batch_size, lambda: 0)
        progress = trainer.fit_loop.epoch_loop.batch_progress
        return NumberSampler(
            self.steps_per_epoch,
            self.batch_size,
            lambda: int(progress.total.ready),
            trainer.global_rank,
            trainer.world_size,
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return one whole volume at a time; each device its own ones."""
        rank, size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        places = range(rank, len(self._entries["val"]), size)
        return DataLoader(VolumeDataset(self._entries["val"]), batch_size=1, sampler=places)

    def volumes(self, part: str = "val") -> DataLoader[dict[str, Any]]:
        """Return all volumes of a part, `val` or `train`, one at a time, on every device."""
        return DataLoader(VolumeDataset(self._entries[part]), batch_size=1)

    @property
    def content_digest(self) -> str:
        """Names what is trained on: the files' content, the preprocessing and its code."""
        names = [entry.folder.name for entry in self._entries["train"]]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _outlive_signals(_worker: int) -> None:
    """Have a loader process go on when a signal reaches the whole group.

    Schedulers, torchrun and Ctrl-C signal every process at once: the training takes its step to the
    end and saves, and needs its patches for it. A second SIGTERM, as PyTorch sends to a loader
    process that does not end by itself, ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_at_the_next)


def _end_at_the_next(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
