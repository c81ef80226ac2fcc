"""A trained network back from a checkpoint, without Lightning and without unpickling objects."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medseg.core.errors import CheckpointError, GeometryError
from medseg.core.postprocessing import Postprocessing, from_primitives, to_primitives
from medseg.networks.unet import Architecture, UNet, check_architecture

log = logging.getLogger("medseg")

KEY = "medseg"
"""Where our own description lies in a Lightning checkpoint."""

UNSETTLED = "medseg_unsettled"
"""In a checkpoint whose averaged weights have batch statistics of earlier ones."""

FORMAT = 1

WEIGHTS = ("averaged.", "network.")
"""Where the weights lie in a checkpoint's state, those that predict first."""


@dataclass(frozen=True)
class Description:
    """Everything about a network but its weights; primitives only.

    Attributes:
        norm: A row of `medseg.networks.norms.NORMS`.
        norm_groups: Groups of group norm.
        architecture: The U-Net's shape.
        task: Channels, label table, patch size, preprocessing and cases of the training data.
        overlap: Overlap of the sliding window in validation.
        skip_empty: Whether validation left out windows without content.
        postprocessing: Rules that helped these weights on their validation cases.
    """

    norm: str
    norm_groups: int
    architecture: Architecture
    task: dict[str, Any]
    overlap: float
    skip_empty: bool = False
    postprocessing: Postprocessing = ()

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Cases that trained these weights, or the weights they started from."""
        return (*self.task["train_cases"], *self.task.get("earlier_cases", []))

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Axes that training mirrored; none where that was not noted."""
        return tuple(self.task.get("mirror_axes", ()))

    def build(self, seed: int | None = None) -> UNet:
        """Build the network with fresh weights."""
        return UNet(
            len(self.task["channel_names"]),
            len(self.task["labels"]),
            self.architecture,
            self.norm,
            self.norm_groups,
            seed,
        )

    def check_own_statistics(self) -> None:
        """Check that a case can have statistics of its own: each window is looked at alone.

        Raises:
            GeometryError: If one window leaves a norm too few values.
        """
        try:
            check_architecture(
                self.architecture, self.norm, self.norm_groups, self.task["patch_size"], 1
            )
        except GeometryError as error:
            raise GeometryError(
                f"a case has no statistics of its own, its windows being looked at alone: {error}"
            ) from error

    def to_primitives(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        rules = to_primitives(self.postprocessing)
        return {"format": FORMAT, **asdict(self), "postprocessing": rules}

    @classmethod
    def from_primitives(cls, content: dict[str, Any]) -> Description:
        """Read what `to_primitives` gave."""
        fields = {key: value for key, value in content.items() if key != "format"}
        fields["architecture"] = Architecture(**content["architecture"])
        fields["postprocessing"] = from_primitives(content.get("postprocessing", ()))
        return cls(**fields)


@dataclass(frozen=True)
class Trained:
    """A checkpoint's description and weights."""

    description: Description
    weights: dict[str, Tensor]

    def network(self) -> UNet:
        """Return the network in evaluation mode."""
        network = self.description.build(seed=0)
        network.load_state_dict(self.weights)
        return network.eval()


def load_trained(path: Path) -> Trained:
    """Read a checkpoint that medseg wrote; averaged weights are preferred where it holds them.

    Raises:
        CheckpointError: If the file is not such a checkpoint.
    """
    content = load_content(path)
    if content.get(UNSETTLED):
        log.warning("%s was written as its training was ended, before the batch statistics of its "
                    "averaged weights were measured: go on with it, or measure them "
                    "(`medseg doctor --recalibrate`).", path)  # fmt: skip
    state: dict[str, Tensor] = content["state_dict"]
    for prefix in WEIGHTS:
        weights = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        if weights:
            return Trained(Description.from_primitives(content[KEY]), weights)
    raise CheckpointError(f"{path} holds no weights.")


def load_content(path: Path) -> dict[str, Any]:
    """Read a checkpoint file, local only, tensors and primitives only.

    Raises:
        CheckpointError: If it cannot be read, or was not written by medseg.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file.")
    try:
        # Said explicitly: an environment variable may turn the default off.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of tensors and plain values: "
            f"{(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error
    if not isinstance(content, dict) or content.get(KEY, {}).get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by this version of medseg.")
    return content


def store_postprocessing(path: Path, rules: Postprocessing) -> None:
    """Write rules into a checkpoint; all else in it stays as it is.

    Raises:
        CheckpointError: If it is not a checkpoint of medseg, or cannot be written.
    """
    content = load_content(path)
    content[KEY] = {**content[KEY], "postprocessing": to_primitives(rules)}
    try:
        with whole_checkpoint(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # PyTorch's writer raises RuntimeError on a full disk
        cause = str(error).splitlines()[0]
        raise CheckpointError(f"{path} stays as it was, it cannot be written: {cause}") from error


@contextmanager
def whole_checkpoint(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it takes the name `path` once it is complete and on disk.

    One writer at a time, as a run has: what a killed one left is written over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some network file systems cannot sync folders
            raise
    finally:
        os.close(handle)
