"""The flags of `medseg doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medseg.core.errors import OptionError


@dataclass(frozen=True)
class DoctorOptions:
    """Options of `medseg doctor`.

    Attributes:
        run: Run directory of a training, with any norm.
        checkpoint: best, last, or the path of a checkpoint.
        manifest: Manifest of the data; the training's own if not given.
        root: Folder its paths are relative to; the training's own if not given.
        fold: Examine with the cases of this fold; the validation fold of the training if not given.
        cases_max: Examine with the first so many cases.
        patches: Measure statistics over so many training patches, varied as in training.
        output: Folder of doctor.json and doctor.html; the run directory if not given.
        recalibrate: Also write a copy of the run whose batch norms have the statistics of the
            training patches: pooled takes the variance over all of them, mean_of_batches the mean
            of the variances within batches, by which the training normalized.
        recalibrated: Folder of that copy, which must not exist; if not given, beside the run as
            RUN_pooled or RUN_mean_of_batches.
        device: cpu, cuda or cuda:N; a GPU if there is one and none is given.
        threads: CPU threads; chosen by PyTorch if not given.
    """

    run: Path
    checkpoint: str = "best"
    manifest: Path | None = None
    root: Path | None = None
    fold: int | None = None
    cases_max: int = 8
    patches: int = 200
    output: Path | None = None
    recalibrate: Literal["pooled", "mean_of_batches"] | None = None
    recalibrated: Path | None = None
    device: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("cases_max", 1), ("patches", 1), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"--{name} must be at least {least}; got {value}.")
        if self.recalibrated is not None and self.recalibrate is None:
            raise OptionError("--recalibrated goes with --recalibrate pooled or mean_of_batches.")

    @property
    def home(self) -> Path:
        """Folder that the findings are written to."""
        return self.run if self.output is None else self.output

    @property
    def copy(self) -> Path:
        """Folder of the recalibrated run."""
        if self.recalibrated is not None:
            return self.recalibrated
        run = self.run.resolve()
        return run.with_name(f"{run.name}_{self.recalibrate}")
