"""The run that `medseg doctor` examines: its network, and the data it was trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from medseg.core.errors import OptionError
from medseg.core.runs import RunFiles
from medseg.data.augmentation import Augmentation
from medseg.data.datamodule import SegmentationData
from medseg.data.transforms import Preprocessing
from medseg.inference.settings import find_device
from medseg.networks.checkpoint import Trained, load_trained
from medseg.networks.unet import UNet
from medseg.networks.window import SlidingWindow
from medseg.study.doctor_options import DoctorOptions

log = logging.getLogger("medseg")


@dataclass(frozen=True, eq=False)
class Examined:
    """A case to examine with.

    Attributes:
        case_id: The case.
        image: As the network sees it, shape (1, C, I, J, K).
        label: Class indices, shape (1, I, J, K).
    """

    case_id: str
    image: Tensor
    label: Tensor


@dataclass(frozen=True, eq=False)
class Patient:
    """A run and its data.

    Attributes:
        trained: Description and weights.
        network: In evaluation mode, on `device`.
        window: Of the validation.
        data: The training's own, set up.
        device: Where the network is.
        cases_max: Cases that are examined with.
        patches: Training patches that statistics are measured over.
    """

    trained: Trained
    network: UNet
    window: SlidingWindow
    data: SegmentationData
    device: torch.device
    cases_max: int
    patches: int

    @property
    def cases(self) -> list[Examined]:
        """The first validation cases."""
        return self._first("val")

    @property
    def training_cases(self) -> list[Examined]:
        """As many training cases, not varied."""
        return self._first("train")

    def _first(self, part: str) -> list[Examined]:
        found = []
        for _, item in zip(range(self.cases_max), self.data.volumes(part), strict=False):
            image, label = item["image"].to(self.device), item["label"].to(self.device)
            found.append(Examined(item["case_id"][0], image, label))
        return found

    @property
    def batches(self) -> int:
        """Batches of training patches behind measured statistics."""
        return -(-self.patches // self.data.batch_size)

    @property
    def training_patches(self) -> int:
        """Patches in these batches."""
        return self.batches * self.data.batch_size

    def training_batches(self) -> Iterator[Tensor]:
        """Yield these batches, varied as in training."""
        for batch in self.data.population(self.batches):
            yield batch.to(self.device)


def admit(options: DoctorOptions) -> Patient:
    """Load a run and set up its data.

    Raises:
        OptionError: If this is not a run of `medseg fit`, or its data are not there.
        CheckpointError: If the checkpoint cannot be read.
    """
    device = find_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    files = RunFiles(options.run)
    trained = load_trained(files.checkpoint(options.checkpoint))
    config = _config(files.config)
    data = _data(config["data"], options)
    seed = config.get("seed_everything")
    data.seed = seed if isinstance(seed, int) and not isinstance(seed, bool) else 0
    data.prepare_data()
    data.setup("fit")
    description = trained.description
    i, j, k = description.task["patch_size"]
    batch_size = int(config["model"].get("sw_batch_size", 1))
    window = SlidingWindow((i, j, k), description.overlap, batch_size, description.skip_empty)
    network = trained.network().to(device).requires_grad_(False)
    return Patient(trained, network, window, data, device, options.cases_max, options.patches)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(config["data"], dict) and isinstance(config["model"], dict):
            return dict(config)
    except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
        raise OptionError(
            f"{path} cannot be read as the configuration of a training ({error}). "
            "`medseg doctor` examines run directories of `medseg fit`."
        ) from error
    raise OptionError(f"{path} is not the configuration of a training: it lacks data or model.")


def _data(settings: dict[str, Any], options: DoctorOptions) -> SegmentationData:
    """Return the data of the training, with what the flags say in place of its own."""
    chosen = {**settings, "num_workers": 0}
    if options.manifest is not None:
        chosen |= {"manifest": options.manifest, "root": None}
    if options.root is not None:
        chosen["root"] = options.root
    if options.fold is not None:
        chosen["fold"] = options.fold
    augmentation = dict(chosen.get("augmentation") or {})
    if augmentation.pop("transforms", None):
        log.warning("the training's own transforms are left out of the patches examined here.")
    chosen["augmentation"] = Augmentation(**augmentation) if augmentation else None
    chosen["preprocessing"] = Preprocessing(**chosen["preprocessing"])
    for name in ("manifest", "root", "cache_dir"):
        chosen[name] = Path(chosen[name]) if chosen.get(name) else None
    chosen["patch_size"] = tuple(chosen["patch_size"])
    try:
        return SegmentationData(**chosen)
    except TypeError as error:
        raise OptionError(
            f"{RunFiles(options.run).config} is of another version of medseg: {error}."
        ) from error
