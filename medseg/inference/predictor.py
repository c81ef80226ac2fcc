"""Trained networks that label one case at a time. Writes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.core.postprocessing import apply
from medseg.data.transforms import Prepared, Reading, prepare_case
from medseg.inference.backends import BackendOptions, build_backend
from medseg.inference.case_statistics import check_case_statistics, of_case
from medseg.inference.cuts import Box
from medseg.inference.ensemble import check_together, mirror_axes, request_of, role_of
from medseg.inference.ladder import Rung, exhausted, rungs
from medseg.inference.package import load_model
from medseg.inference.plan import Plan
from medseg.inference.settings import Settings, find_device
from medseg.inference.slabs import Source, blocks
from medseg.io.write import label_dtype
from medseg.networks.checkpoint import Trained
from medseg.networks.devices import is_out_of_memory
from medseg.networks.unet import UNet
from medseg.networks.window import SlidingWindow

Sink = Callable[[Box, NDArray[np.float16]], None]
"""Takes the probabilities, shape (classes, …), of a box of the case's grid."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A case that has been read and preprocessed.

    Attributes:
        prepared: What each network sees; the same object for equal preprocessings.
        plan: How it is labelled within the memory allowed.
    """

    prepared: tuple[Prepared, ...]
    plan: Plan

    @property
    def grid(self) -> Grid:
        """The grid of its (first) image."""
        return self.prepared[0].original


@dataclass(frozen=True, eq=False)
class Prediction:
    """A labelled case.

    Attributes:
        label: Label values of the training's label table, shape `grid.shape`.
        grid: The grid of the (first) image file.
        warnings: What had to be resolved on the way.
        uncertainty: Entropy of the probabilities as a share of its largest value, in [0, 1], shape
            `grid.shape`, float32; None if it was not asked for.
        probabilities: Shape (classes, *grid.shape), float16; None if they were not asked for.
    """

    label: NDArray[Any]
    grid: Grid
    warnings: tuple[str, ...]
    uncertainty: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float16] | None = None


class Predictor:
    """Label cases with one trained network, or the mean of several.

    Preprocessing and sliding window are those of the validation. Logits exist for a few rows of a
    volume at a time.

    Args:
        members: The networks, with equal channels and label tables.
        settings: How cases are labelled.

    Raises:
        CheckpointError: If the networks do not go together.
        OptionError: If a setting is not possible.
    """

    def __init__(self, members: Sequence[Trained], settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.descriptions = check_together([member.description for member in members])
        self.device = find_device(self.settings.device)
        self.request = request_of(members, self.settings, self.device)
        self.rules = self.request.rules
        check_case_statistics(members, self.settings)
        # With statistics of the case, each case makes networks anew.
        self._members = tuple(members) if self.settings.norm_statistics == "own" else ()
        self._networks = [] if self._members else self._backends(members)
        self.label_values = np.asarray(list(self.descriptions[0].task["labels"].values()))

    @classmethod
    def from_run(
        cls,
        runs: Path | str | Sequence[Path | str],
        checkpoint: str = "best",
        settings: Settings | None = None,
    ) -> Predictor:
        """Load the network of a training or a model package, or several as an ensemble.

        Args:
            runs: Run directories or packages.
            checkpoint: `best`, `last` or the path of a checkpoint; a package has only one.
            settings: See the class.

        Raises:
            OptionError: If there is no such checkpoint.
            CheckpointError: If one cannot be read, or they do not go together.
        """
        folders = [runs] if isinstance(runs, str | Path) else list(runs)
        return cls([load_model(Path(folder), checkpoint) for folder in folders], settings)

    def _backends(self, members: Sequence[Trained]) -> list[Callable[[Tensor], Tensor]]:
        return [self._backend(member, member.network()) for member in members]

    def _backend(self, member: Trained, network: UNet) -> Callable[[Tensor], Tensor]:
        settings, description = self.settings, member.description
        options = BackendOptions(
            settings.backend,
            settings.precision,
            settings.compile,
            settings.threads,
            mirror_axes(description) if settings.tta else (),
        )
        roi_size = settings.window(description, self.device).roi_size
        return build_backend(network, options, roi_size, self.channels, self.device)

    @property
    def channels(self) -> int:
        """Image channels a case must have."""
        return len(self.descriptions[0].task["channel_names"])

    def role(self, case_id: str) -> str:
        """Return what a case of this name was: `training`, `validation` or `unseen`."""
        return role_of(self.descriptions, case_id)

    def predict(
        self,
        images: Sequence[Path],
        reading: Reading | None = None,
        uncertainty: bool = False,
        probabilities: bool = False,
    ) -> Prediction:
        """Label one case on the grid of its (first) image.

        Args:
            images: One file per channel, or one file that holds all; a folder for a DICOM series.
            reading: What the reader is told about them.
            uncertainty: Give the map of the uncertainty too.
            probabilities: Give the probabilities of all classes too, which may be large.

        Raises:
            VolumeError: If a file is refused, or the memory does not suffice (`memory`).
        """
        opened = self.open(images, reading)
        if not probabilities:
            return self.postprocess(self.label(opened, uncertainty))
        found = np.empty((len(self.label_values), *opened.grid.shape), dtype=np.float16)

        def keep(box: Box, values: NDArray[np.float16]) -> None:
            found[:, *(slice(*span) for span in box)] = values

        prediction = self.postprocess(self.label(opened, uncertainty, keep))
        return replace(prediction, probabilities=found)

    def estimate(self, images: Sequence[Path], reading: Reading | None = None) -> Plan:
        """Return how a case will be labelled, from its headers.

        Raises:
            VolumeError: If a header is refused, or the memory does not suffice (`memory`).
        """
        series_uid = (reading or Reading()).series_uid
        return self.request.plan_files(images, series_uid, self.limit)[0]

    def open(
        self, images: Sequence[Path], reading: Reading | None = None, plan: Plan | None = None
    ) -> Opened:
        """Read and preprocess a case.

        Args:
            images: See `predict`.
            reading: See `predict`.
            plan: What `estimate` has said.

        Raises:
            VolumeError: If a file is refused, or the memory does not suffice (`memory`).
        """
        plan = plan or self.estimate(images, reading)
        ready: dict[str, Prepared] = {}
        for each in self.request.preprocessings:
            if repr(each) not in ready:
                ready[repr(each)] = prepare_case(
                    images, None, self.channels, (), each, reading=reading
                )
        return Opened(tuple(ready[repr(each)] for each in self.request.preprocessings), plan)

    @property
    def limit(self) -> int | None:
        """Most bytes that a case may take, beyond the process and its networks."""
        most = self.settings.max_memory
        return None if most is None else max(most - self.request.fixed_bytes, 0)

    def label(
        self, opened: Opened, uncertainty: bool = False, sink: Sink | None = None
    ) -> Prediction:
        """Label a case that has been read.

        A device that runs out of memory is asked for less: fewer windows at a time, sums in the
        machine's own memory, thinner slabs. Each gives the same labels.

        Args:
            opened: The case.
            uncertainty: Give the map of the uncertainty too.
            sink: Takes the probabilities, box by box.

        Raises:
            VolumeError: `memory`, if the least does not suffice.
        """
        warnings: list[str] = list(opened.prepared[0].warnings)
        for rung in self._rungs(opened):
            try:
                label, entropy = self._label(opened, rung, uncertainty, sink)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                warnings.append(f"memory: not enough for {rung.words}; tried with less")
            else:
                return Prediction(label, opened.grid, tuple(warnings), entropy)
        raise exhausted()

    def time_window(self) -> float:
        """Return the seconds that one window of each network takes, all together."""
        spent = 0.0
        networks = self._networks or self._backends(self._members)
        pairs = zip(networks, self.request.footprints, strict=True)
        with torch.inference_mode():
            for network, footprint in pairs:
                shape = (1, footprint.channels, *footprint.window.roi_size)
                window = torch.zeros(shape, device=self.device)
                for _ in range(2):  # the first one sets things up
                    started = time.perf_counter()
                    network(window).cpu()
                    seconds = time.perf_counter() - started
                spent += seconds
        return spent * (2 if self._members else 1)  # for its statistics, and for its labels

    def postprocess(self, prediction: Prediction) -> Prediction:
        """Return a prediction after the rules that the training has found to help.

        Its label map is changed in place.
        """
        if self.rules:
            values = self.descriptions[0].task["labels"]
            apply(prediction.label, self.rules, values, prediction.grid.voxel_volume_ml)
        return prediction

    def _rungs(self, opened: Opened) -> Iterator[Rung]:
        grids = [case.grid for case in opened.prepared]
        return rungs(self.request, opened.plan, opened.grid, grids, self.device, self.limit)

    def _label(
        self, opened: Opened, rung: Rung, uncertainty: bool, sink: Sink | None
    ) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        values = self.label_values.astype(label_dtype(int(self.label_values.max())))
        label = np.empty(opened.grid.shape, dtype=values.dtype)
        entropy = np.empty(opened.grid.shape, dtype=np.float32) if uncertainty else None
        with torch.inference_mode():
            sources = self._sources(opened, rung)
            for box, logits in blocks(sources, opened.grid, rung.cut, rung.device):
                place = tuple(slice(*span) for span in box)
                best = logits.max(dim=0)
                if not bool(torch.isfinite(best.values).all()):
                    raise not_finite()
                label[place] = values[best.indices.cpu().numpy()]
                if entropy is None and sink is None:
                    del logits
                    continue
                probabilities = logits.softmax(dim=0)
                if entropy is not None:
                    entropy[place] = relative_entropy(probabilities).cpu().numpy()
                if sink is not None:
                    sink(box, probabilities.half().cpu().numpy())
                del logits, probabilities  # before the next ones are made
        return label, entropy

    def _network(
        self, place: int, image: Tensor, window: SlidingWindow
    ) -> Callable[[Tensor], Tensor]:
        """Return the network of a place in the ensemble, for one case."""
        if not self._members:
            return self._networks[place]
        member = self._members[place]
        return self._backend(member, of_case(member, image, window))

    def _sources(self, opened: Opened, rung: Rung) -> list[Source]:
        images: dict[int, Tensor] = {}
        sources: list[Source] = []
        members = zip(self.request.footprints, opened.prepared, strict=True)
        for place, (footprint, case) in enumerate(members):
            if id(case) not in images:
                images[id(case)] = torch.from_numpy(case.image)[None].to(self.device)
            window = replace(footprint.window, sw_batch_size=rung.sw_batch_size)
            network = self._network(place, images[id(case)], window)
            sources.append(Source(network, window, images[id(case)], case.grid))
        return sources


def relative_entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy over the first axis as a share of its largest value, in [0, 1]."""
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=0)
    return entropy.div_(math.log(max(len(probabilities), 2))).clamp_(0, 1)  # against rounding


def not_finite() -> VolumeError:
    """Return the error of a case for which a network gives no numbers."""
    return VolumeError(
        "the case",
        "no-finite-logits",
        "the network gives NaN or infinite logits",
        "see whether its training diverged, or take --precision float32",
    )
