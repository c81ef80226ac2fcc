"""A model package: a folder with weights (safetensors), description (JSON) and a model card."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from medseg.core.errors import CheckpointError, MedsegError, OptionError
from medseg.core.runs import RunFiles
from medseg.data.transforms import Preprocessing
from medseg.networks.checkpoint import Description, Trained, load_trained
from medseg.networks.unet import check_architecture

FORMAT = "medseg-package-1"
WEIGHTS, CONTENT, CARD = "model.safetensors", "model.json", "README.md"
ONNX, OPENVINO, OPENVINO_WEIGHTS = "model.onnx", "model.xml", "model.bin"
FILES = {WEIGHTS, CONTENT, CARD, ONNX, OPENVINO, OPENVINO_WEIGHTS}
"""Every file a package may have."""

_LARGEST_CONTENT = 64 * 2**20  # bytes of model.json; a million case names are half of it
_LARGEST_WEIGHTS = 16 * 2**30  # bytes; a hundred times the largest U-Net that is in use
_LARGEST_WINDOW = 2**30  # voxels


def load_model(path: Path, checkpoint: str = "best") -> Trained:
    """Read a trained network from a run directory or a model package.

    Args:
        path: Either of them.
        checkpoint: `best`, `last` or the path of a checkpoint; a package has only one.

    Raises:
        OptionError: If there is no such thing, or a package is asked for another checkpoint.
        CheckpointError: If it cannot be read or is not whole.
    """
    if not is_package(path):
        return load_trained(RunFiles(path).checkpoint(checkpoint))
    _refuse_checkpoint(path, checkpoint)
    return load_package(path)


def model_file(path: Path, checkpoint: str = "best") -> Path:
    """Return the file whose content decides what a model predicts: its hash names the model.

    Raises:
        OptionError: As `load_model`.
    """
    if not is_package(path):
        return RunFiles(path).checkpoint(checkpoint)
    _refuse_checkpoint(path, checkpoint)
    return path / CONTENT  # it holds the hash of the weights


def is_package(path: Path) -> bool:
    """Return whether a folder is a model package, whole or not."""
    return (path / CONTENT).is_file()


def _refuse_checkpoint(path: Path, checkpoint: str) -> None:
    if checkpoint != "best":
        raise OptionError(
            f"--checkpoint {checkpoint}: the package {path} holds one set of weights."
        )


def write_package(folder: Path, weights: dict[str, Tensor], content: dict[str, Any]) -> None:
    """Write weights and description into a folder.

    Args:
        folder: It exists and is empty, or holds the other files of the package.
        weights: State of the network.
        content: Of model.json: `description` as a checkpoint keeps it, and what else is known.
    """
    data = save({name: values.contiguous() for name, values in weights.items()})
    (folder / WEIGHTS).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    whole = {"format": FORMAT, "weights": {"sha256": digest, "bytes": len(data)}, **content}
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / CONTENT).write_text(text + "\n", encoding="utf-8")


def read_content(folder: Path) -> dict[str, Any]:
    """Read model.json.

    Raises:
        CheckpointError: If it cannot be read, or is not of this format.
    """
    path = folder / CONTENT
    try:
        if path.stat().st_size > _LARGEST_CONTENT:
            raise CheckpointError(f"{path} is larger than {_LARGEST_CONTENT} bytes.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path} has the format {found!r}, where {FORMAT!r} can be read.")
    return dict(content)


def load_package(folder: Path) -> Trained:
    """Read a model package; nothing in it is ever run or unpickled.

    Raises:
        CheckpointError: If it is not whole, or its parts do not fit together.
    """
    content = read_content(folder)
    weights = _weights(folder / WEIGHTS, content.get("weights"))
    try:
        description = Description.from_primitives(content["description"])
        _check_depth(description, weights)  # before anything grows with the number of levels
        _check_task(description)
        _check_fit(description, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except (MedsegError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder / CONTENT} does not describe a network of this version of medseg: "
            f"{type(error).__name__}: {error}"
        ) from error
    return Trained(description, weights)


def _weights(path: Path, expected: Any) -> dict[str, Tensor]:
    """Read the weights once, and believe them only if they are those that were written."""
    try:
        size, digest = int(expected["bytes"]), str(expected["sha256"])
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.parent / CONTENT} does not say which weights.") from error
    try:
        found = path.stat().st_size
        if found != size or size > _LARGEST_WEIGHTS:
            raise CheckpointError(
                f"{path} has {found} bytes, where {size} were written (at most {_LARGEST_WEIGHTS} "
                "are read). Copy the package again."
            )
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise CheckpointError(
                f"{path} is not what was written: its SHA-256 differs from that in {CONTENT}. "
                "Copy the package again."
            )
        return dict(load(data))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is not a file of safetensors: {error}.") from error


def _check_depth(description: Description, weights: dict[str, Tensor]) -> None:
    plan = description.architecture
    if len(plan.channels) * max(plan.depth, plan.decoder_depth) > len(weights):
        raise CheckpointError(f"{len(weights)} weights are too few for the network described.")


def _check_task(description: Description) -> None:
    """Check that the description is one inference can rely on; errors as they come."""
    task = description.task
    patch = [int(length) for length in task["patch_size"]]
    if math.prod(patch) > _LARGEST_WINDOW:
        raise CheckpointError(f"a window of {patch} voxels is larger than {_LARGEST_WINDOW}.")
    plan, batch_size = description.architecture, int(task["batch_size"])
    check_architecture(plan, description.norm, description.norm_groups, patch, batch_size)
    Preprocessing(**task["preprocessing"])
    names, labels = list(task["channel_names"]), dict(task["labels"])
    if not names or len(labels) < 2 or not all(isinstance(v, int) for v in labels.values()):
        raise CheckpointError("channels, or classes with whole numbers, are missing.")
    if not all(isinstance(case, str) for case in (*description.trained_on, *task["val_cases"])):
        raise CheckpointError("cases are not named by text.")


def _check_fit(description: Description, weights: dict[str, Tensor]) -> None:
    """Compare names, shapes and types with the described network, which costs no memory here."""
    with torch.device("meta"):
        expected = description.build(seed=0).state_dict()
    missing, surplus = sorted(expected.keys() - weights), sorted(weights.keys() - expected)
    other = [
        f"{name} {tuple(weights[name].shape)} {weights[name].dtype}"
        for name, values in expected.items()
        if name in weights
        and (weights[name].shape, weights[name].dtype) != (values.shape, values.dtype)
    ]
    found = {"missing": missing, "of no use": surplus, "of another shape or type": other}
    told = [f"{len(names)} {what} ({names[0]}, …)" for what, names in found.items() if names]
    if told:
        raise CheckpointError(f"the weights do not fit the network described: {'; '.join(told)}.")
