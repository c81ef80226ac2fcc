"""SLURM: the signal before a job's time ends, and the job put back into the queue."""

from __future__ import annotations

import logging
import os
import signal
import subprocess

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import SLURMEnvironment  # type: ignore[attr-defined]

log = logging.getLogger("medseg")


def requeue_signal(trainer: pl.Trainer) -> int | None:
    """Return the signal that asks for the job to be put back into the queue; None if none does.

    As Lightning has it: SIGUSR1, which `sbatch --signal=SIGUSR1@90` sends, or what the
    environment plugin of the trainer names, unless that has `auto_requeue` off.
    """
    # A strategy for one device has no environment; what Lightning itself asks has.
    environment = trainer._accelerator_connector.cluster_environment  # noqa: SLF001
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return None
    return int(environment.requeue_signal or signal.SIGUSR1)


def requeue() -> None:
    """Put this job, or this task of an array, back into the queue; say so if that fails."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID"))
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
    command = ["scontrol", "requeue", job]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        log.warning("%s failed: %s. Submit the job again; it goes on from `last`.",
                    " ".join(command), said.strip())  # fmt: skip
        return
    log.info("job %s is back in the queue and will go on from `last`", job)
