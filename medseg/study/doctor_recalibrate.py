"""A copy of a run whose batch norms have statistics measured over training patches."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from medseg.core.errors import CheckpointError, OptionError
from medseg.core.runs import RunFiles, write_json
from medseg.inference.labeller import sha256
from medseg.networks.checkpoint import WEIGHTS, load_content, whole_checkpoint
from medseg.networks.norms import no_statistics
from medseg.networks.population import ByLayer, Estimate, layers_with_statistics
from medseg.report.files import read_json
from medseg.study.doctor_options import DoctorOptions
from medseg.study.doctor_patient import Patient

KEY = "recalibrated"
"""Where fit.json and the checkpoint of a copy say what it was made from."""

log = logging.getLogger("medseg")


def check_recalibration(options: DoctorOptions, patient: Patient) -> None:
    """Refuse what cannot be recalibrated before anything is measured.

    Raises:
        OptionError: If no layer has running statistics, or the copy's folder exists.
    """
    if options.recalibrate is None:
        return
    if not layers_with_statistics(patient.network):
        why = no_statistics(patient.trained.description.norm)
        raise OptionError(f"--recalibrate {options.recalibrate}: {why}. Drop the flag.")
    if options.copy.exists():
        raise OptionError(
            f"{options.copy} exists and is left alone. Name another folder with --recalibrated."
        )


def write_recalibrated(
    options: DoctorOptions, patches: int, estimate: Estimate, statistics: ByLayer
) -> Path:
    """Write the copy: the one checkpoint, the configuration, and where it comes from.

    It has no state of an optimizer that would fit these statistics, so it is not trained further;
    `--init_from` starts from it. Whoever names no checkpoint means `best`: a copy of `last` has it
    under that name too. A copy of `best` has no `last`, which would hide that it was chosen.

    Args:
        options: What was asked for.
        patches: Training patches behind the statistics.
        estimate: How they were put together.
        statistics: By layer.

    Returns:
        Its folder.
    """
    source, copy = RunFiles(options.run), RunFiles(options.copy)
    checkpoint = source.checkpoint(options.checkpoint)
    origin = {
        "from": str(options.run),
        "checkpoint": options.checkpoint,
        "checkpoint_sha256": sha256(checkpoint),
        "estimate": estimate,
        "training_patches": patches,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    content = _with_statistics(load_content(checkpoint), statistics)
    names = ("last", "best") if options.checkpoint == "last" else ("best",)
    try:
        copy.checkpoints.mkdir(parents=True)
        for file in (source.config, source.curves):
            if file.is_file():
                (copy.run_dir / file.name).write_bytes(file.read_bytes())
        for name in names:
            with whole_checkpoint(copy.checkpoints / f"{name}.ckpt") as temporary:
                torch.save({**content, KEY: origin}, temporary)
    except (OSError, RuntimeError) as error:  # PyTorch's writer raises RuntimeError on a full disk
        raise CheckpointError(f"{copy.run_dir} cannot be written: {error}") from error
    write_json(copy.fit, {**read_json(source.fit), "name": copy.run_dir.name, KEY: origin})
    return copy.run_dir


def _with_statistics(content: dict[str, Any], statistics: ByLayer) -> dict[str, Any]:
    """Return a checkpoint with other running statistics in the weights that predict."""
    state = dict(content["state_dict"])
    prefix = next(p for p in WEIGHTS if any(name.startswith(p) for name in state))
    for name, values in statistics.items():
        for buffer, new in (("running_mean", values.mean), ("running_var", values.variance)):
            key = f"{prefix}{name}.{buffer}"
            state[key] = new.to(state[key].dtype)
    return {**content, "state_dict": state}
