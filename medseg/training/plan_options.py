"""The flags of `medseg plan`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class PlanOptions:
    """Options of `medseg plan`.

    Attributes:
        manifest: Data set manifest (JSON), an MSD dataset.json or an nnU-Net raw folder.
        root: Folder the manifest's paths are relative to; the manifest's own if not given.
        fold: Fold to validate on; the plan is made from the others.
        memory: Memory the training may take: 4GiB, or a share such as 80%. Of the GPU where there
            is one, or else of this machine. The device is measured up to this size.
        time: How long the training may take: 15m, 2h, 1d, or DD:HH:MM:SS.
        device: cpu or gpu; auto takes a GPU where there is one. Without the GPU asked for, its
            memory is reckoned and its time is not known.
        norm: A norm of the registry, or auto: instance for small batches, group for middle, batch
            for large ones.
        norm_groups: Groups of group norm.
        batch_size: Patches in a step; as many as memory and time allow if not given.
        spacing: Target spacing, mm along R-L, A-P and I-S; from the images if not given.
        output: The configuration for `medseg fit --config` (YAML); the reasons go beside it, for
            people (.html) and programs (.json).
        overwrite: Replace the output if it exists.
    """

    manifest: Path
    root: Path | None = None
    fold: int = 0
    memory: str = "80%"
    time: str = "1h"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    norm: str = "auto"
    norm_groups: int = 8
    batch_size: int | None = None
    spacing: tuple[float, ...] = ()
    output: Path = Path("plan.yaml")
    overwrite: bool = False
