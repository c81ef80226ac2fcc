"""`medseg export`: a model package of a run, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medseg import __version__
from medseg.core.errors import OptionError
from medseg.core.runs import RunFiles
from medseg.inference.card import model_card
from medseg.inference.options import ExportOptions
from medseg.inference.origin import record_of
from medseg.inference.package import (
    CARD,
    CONTENT,
    FILES,
    ONNX,
    OPENVINO,
    is_package,
    load_package,
    write_package,
)
from medseg.inference.probe import check_agreement
from medseg.inference.runtimes import (
    Shape,
    check_installed,
    import_openvino,
    one_by_one,
    onnx_runner,
    openvino_runner,
    to_onnx,
    to_openvino,
)
from medseg.inference.threads import default_threads
from medseg.networks.checkpoint import KEY, Description, Trained, load_content, load_trained
from medseg.networks.fold import folded
from medseg.networks.unet import UNet

log = logging.getLogger("medseg")


def export(options: ExportOptions) -> int:
    """Write a model package.

    Raises:
        OptionError: If there is no such checkpoint, the output exists, an extra is missing, or
            another format disagrees with torch.
        CheckpointError: If the checkpoint cannot be read.
    """
    formats = [name for name in dict.fromkeys(options.formats) if name != "safetensors"]
    for name in formats:
        check_installed("--formats", name)
    _check_output(options)
    checkpoint = RunFiles(options.run).checkpoint(options.checkpoint)
    trained = load_trained(checkpoint)
    content = {
        "description": load_content(checkpoint)[KEY],
        "medseg": __version__,
        "licence": options.licence,
        **record_of(RunFiles(options.run), options.checkpoint, checkpoint),
    }
    with _whole_folder(options.output) as folder:
        content["exports"] = {name: _add(name, folder, trained) for name in formats}
        write_package(folder, trained.weights, content)
        _write_card(folder, options.output.name)
        load_package(folder)  # what cannot be read again is not worth keeping
    log.info(
        "%s holds %s", options.output, ", ".join(sorted(p.name for p in options.output.iterdir()))
    )
    log.info("%s names the %d training cases, so that they stay out of scores; see whether these "
             "names may be passed on", CONTENT, len(trained.description.trained_on))  # fmt: skip
    return 0


def _check_output(options: ExportOptions) -> None:
    """Refuse to replace anything but a package, and that only if asked."""
    output = options.output
    if not os.path.lexists(output):
        return
    if not (is_package(output) and {path.name for path in output.iterdir()} <= FILES):
        raise OptionError(f"--output {output} exists and is no model package. Choose another.")
    if not options.overwrite:
        raise OptionError(f"--output {output} exists. Choose another, or --overwrite.")


def _add(name: str, folder: Path, trained: Trained) -> dict[str, Any]:
    """Add the network in another format, and compare what was written with torch.

    Returns:
        Its file, hash and agreement.

    Raises:
        OptionError: If too few voxels of a probe get the same class.
    """
    i, j, k = trained.description.task["patch_size"]
    channels = len(trained.description.task["channel_names"])
    network = trained.network()
    writer, file, open_again = _WRITERS[name]
    writer(folded(network), (1, channels, i, j, k), folder / file)
    run = one_by_one(open_again(str(folder / file), default_threads()))
    same, gap = check_agreement(f"--formats {name}", network, run, (i, j, k), channels)
    return {
        "file": file,
        "sha256": hashlib.sha256((folder / file).read_bytes()).hexdigest(),
        "input": [1, channels, i, j, k],
        "agreement": same,
        "largest_difference": gap,
    }


def _write_onnx(network: UNet, shape: Shape, path: Path) -> None:
    path.write_bytes(to_onnx(network, shape))


def _write_openvino(network: UNet, shape: Shape, path: Path) -> None:
    model = to_openvino(network, shape)
    import_openvino().save_model(model, path, compress_to_fp16=False)


_WRITERS: dict[str, tuple[Callable[[UNet, Shape, Path], None], str, Callable[..., Any]]] = {
    "onnx": (_write_onnx, ONNX, onnx_runner),
    "openvino": (_write_openvino, OPENVINO, openvino_runner),
}


def _write_card(folder: Path, name: str) -> None:
    content = json.loads((folder / CONTENT).read_text(encoding="utf-8"))
    description = Description.from_primitives(content["description"])
    (folder / CARD).write_text(model_card(name, description, content), encoding="utf-8")


@contextlib.contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the name `path`, and its place, once it is on the disk.

    Raises:
        OptionError: If it cannot be written there; nothing is left behind then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        around = Path(tempfile.mkdtemp(prefix=".medseg-", dir=path.parent))
    except OSError as error:
        raise OptionError(f"--output {path} cannot be written ({error.strerror}).") from error
    try:
        folder = around / "new"
        folder.mkdir()  # with the usual permissions, which a temporary folder has not
        yield folder
        for place in (*folder.iterdir(), folder):
            _sync(place)
        _exchange(folder, path, around / "old")
        _sync(path.parent)
    except OSError as error:
        raise OptionError(f"--output {path} cannot be written ({error}).") from error
    finally:
        shutil.rmtree(around, ignore_errors=True)


def _exchange(new: Path, path: Path, old: Path) -> None:
    """Put a folder in the place of another; the other stays if that fails."""
    replaces = path.exists()
    if replaces:
        os.rename(path, old)  # noqa: PTH104
    try:
        os.rename(new, path)  # noqa: PTH104
    except OSError:
        if replaces:
            os.rename(old, path)  # noqa: PTH104
        raise


def _sync(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
