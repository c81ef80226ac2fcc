"""All that a plan decides, before it is written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg.core.manifest import Case, Manifest
from medseg.data.fingerprint import Fingerprint
from medseg.training.measure import StepCost, StepJob
from medseg.training.plan_fit import Machine

VALIDATION_SHARE = 0.05
"""Of the time, at most."""


@dataclass(frozen=True)
class Draft:
    """All that was decided.

    Attributes:
        manifest: The data set.
        train_folds: Folds to train on; all but the validated one if None.
        train_cases: Cases the plan was made from.
        val_cases: Cases to validate on.
        facts: Their fingerprint.
        machine: What there is.
        spacing: Target spacing, mm.
        job: The training step that fits.
        cost: What it takes.
        limit: What the next larger patch did not fit: memory or time; "" if there is none.
    """

    manifest: Manifest
    train_folds: list[int] | None
    train_cases: tuple[Case, ...]
    val_cases: tuple[Case, ...]
    facts: Fingerprint
    machine: Machine
    spacing: tuple[float, ...]
    job: StepJob
    cost: StepCost
    limit: str

    @property
    def covered(self) -> float:
        """Share of the median image that a patch holds."""
        median = self.facts.median_shape(self.spacing)
        return float(np.minimum(np.asarray(self.job.patch_size) / median, 1).prod())

    @property
    def steps(self) -> int | None:
        """Steps that the time allows, if that is known."""
        share = 1 - VALIDATION_SHARE
        return int(share * self.machine.seconds / self.cost.seconds) if self.cost.seconds else None

    @property
    def steps_per_epoch(self) -> int:
        """Steps between validations, so that these stay within their share of the time."""
        if not self.steps or not self.cost.seconds:
            return 250  # nnU-Net's epoch
        voxels = self.facts.shapes_at(self.spacing).prod(axis=1).mean() * len(self.val_cases)
        # Windows overlap by half along each axis; a forward pass is a third of a step.
        windows = 2**3 * voxels / (self.job.voxels / self.job.batch_size)
        once = windows * self.cost.seconds / 3 / self.job.batch_size
        times = np.clip(VALIDATION_SHARE * self.machine.seconds / once, 1, 40)
        return int(max(np.ceil(self.steps / times), min(50, self.steps)))
