"""Post-processing learned at the end of a training, and stored with the weights it is for."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from medseg.core.postprocessing import to_primitives
from medseg.core.postprocessing_learning import Case, Learned, learn
from medseg.data.transforms import IGNORE_INDEX
from medseg.engine.progress import track
from medseg.io import read_grid
from medseg.networks.checkpoint import load_content, load_trained, store_postprocessing
from medseg.networks.unet import UNet
from medseg.training.module import SegmentationModule
from medseg.training.validation import predict_volume, slabs

log = logging.getLogger("medseg")


class PostprocessingLearner(Callback):
    """Learn post-processing for `best` and for `last` once a training has come to its end.

    On the grid of the network, where the validation cases lie preprocessed and validation has
    shown that memory suffices; rules speak of ml, so they hold on the original grid too.

    Args:
        folder: Where the checkpoints lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record: dict[str, Any] | None = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Learn for each checkpoint with its own weights; once if both hold the same step."""
        module = cast("SegmentationModule", pl_module)
        wanted = module.learn_postprocessing and any(trainer.num_val_batches)
        if not wanted or not trainer.is_global_zero:
            return
        started = time.monotonic()
        paths = [self.folder / f"{name}.ckpt" for name in ("best", "last")]
        known: dict[int, Learned] = {}
        record: dict[str, Any] = {}
        for path in filter(Path.is_file, paths):
            step = int(load_content(path)["global_step"])
            if step not in known:
                known[step] = self._learn(trainer, module, path)
            store_postprocessing(path, known[step].rules)
            record[path.stem] = _record(step, known[step])
            said = "; ".join(map(str, known[step].rules)) or "none, no class gains from any"
            log.info("post-processing of %s: %s", path.stem, said)
        self.record = {"seconds": round(time.monotonic() - started, 1), **record}
        log.info("post-processing learned in %.1f s", self.record["seconds"])

    def _learn(self, trainer: pl.Trainer, module: SegmentationModule, path: Path) -> Learned:
        network = load_trained(path).network().to(module.device)
        values = {name: index for index, name in enumerate(module.class_names) if index}
        return learn(_cases(trainer, module, network), values, IGNORE_INDEX)


def _cases(trainer: pl.Trainer, module: SegmentationModule, network: UNet) -> Iterator[Case]:
    """Yield prediction, reference and voxel volume of each validation case, one at a time."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    volumes = data.volumes()
    count = min(int(sum(trainer.num_val_batches)) * trainer.world_size, len(volumes))
    cases = {case.case_id: case for case in data.val_cases}
    for batch in track(itertools.islice(volumes, count), "learning post-processing", count):
        (case_id,) = batch["case_id"]
        image = batch["image"].to(module.device)
        with torch.inference_mode(), trainer.precision_plugin.val_step_context():
            parts = slabs(module.window, image, network, len(module.class_names))
            prediction = predict_volume(parts).numpy()
        first = data.manifest.file(cases[case_id].images[0])
        volume_ml = voxel_volume_ml(data.preprocessing.spacing, first)
        yield prediction, batch["label"][0].numpy(), volume_ml


def voxel_volume_ml(spacing: list[float] | None, image: Path) -> float:
    """Return the volume of a voxel of the network's grid.

    Args:
        spacing: What images are brought to, mm; None keeps each one's own.
        image: Header of that image.
    """
    if spacing is not None:
        return float(np.prod(spacing)) / 1000
    return abs(float(np.linalg.det(read_grid(image).affine[:3, :3]))) / 1000


def _record(step: int, learned: Learned) -> dict[str, Any]:
    """Return what fit.json keeps."""
    evidence = [asdict(entry) for entry in learned.evidence]
    return {"step": step, "rules": to_primitives(learned.rules), "evidence": evidence}
