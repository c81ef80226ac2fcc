"""The flags of `medseg demo` and `medseg benchmark`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DemoOptions:
    """Options of `medseg demo`.

    Attributes:
        output: Folder of the phantoms, the runs and the report; made anew.
        norms: Norms to train, one run each.
        seconds: Training time of each run.
        cases: Phantoms; a quarter of them is held out for the scores.
    """

    output: Path = Path("demo")
    norms: tuple[str, ...] = ("none", "batch", "instance", "group", "layer")
    seconds: int = 50
    cases: int = 24


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of `medseg benchmark`.

    Attributes:
        norms: Norms to time.
        channels: Feature channels of each level of the network.
        patch_size: Voxels of a patch.
        batch_size: Patches in a step.
        steps: Steps that are timed, after as many that are not (at most 10).
        output: Also write the table here, as JSON.
        what: steps times training steps of each norm; reading times the strict reader against
            nibabel, in `steps` readings; metrics times the scores of one organ against MONAI's,
            SimpleITK's and, where it is installed, surface-distance's, in up to 5 rounds; backends
            times prediction of windows of `patch_size`, `batch_size` of them at once, by each
            backend that is installed, in `steps` rounds.
    """

    norms: tuple[str, ...] = ("none", "batch", "instance", "group", "layer")
    channels: tuple[int, ...] = (16, 32, 64, 128)
    patch_size: tuple[int, ...] = (40, 56, 40)
    batch_size: int = 2
    steps: int = 20
    output: Path | None = None
    what: Literal["steps", "reading", "metrics", "backends"] = "steps"
