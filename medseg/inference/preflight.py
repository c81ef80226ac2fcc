"""What a folder will take and what is wrong with it, from headers, before a network is loaded."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.core.errors import MedsegError, OptionError
from medseg.data.transforms import Reading
from medseg.engine.progress import printable, track
from medseg.inference.inputs import Job
from medseg.inference.labeller import failure
from medseg.inference.plan import Plan, Request
from medseg.io.memory import size

SUPERVISOR_BYTES = 400 << 20
"""The process that hands out the cases: 230 to 360 MiB measured, and room for the list of cases."""

SURE_SHARE, LIKELY_SHARE = 0.005, 0.1
"""Share of a label map's voxels that its compressed file takes: at least, and at most but for
maps that are noise. Below the first there is no point in starting; below the second, a warning."""

_NAMED = 10
_MANY = 1000  # cases whose headers take long enough to show how far one is

log = logging.getLogger("medseg")


@dataclass
class Forecast:
    """What the cases will take.

    Attributes:
        cases: How many can be tried.
        problems: Why others cannot, by their output.
        windows: Windows of all cases.
        fewest: The same without a memory limit.
        case_bytes: Most memory of one case, beyond the process and its networks.
        label_voxels: Voxels of all label maps.
        extra_bytes: What probabilities and uncertainty take on the disk.
    """

    cases: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    windows: int = 0
    fewest: int = 0
    case_bytes: int = 0
    label_voxels: int = 0
    extra_bytes: int = 0

    def add(self, plan: Plan, voxels: int, request: Request) -> None:
        """Count one case in."""
        self.cases += 1
        self.windows += plan.cut.windows
        self.fewest += plan.cut.fewest
        self.case_bytes = max(self.case_bytes, plan.bytes)
        self.label_voxels += voxels
        classes = request.footprints[0].classes
        per_voxel = 2 * classes * request.probabilities + 4 * request.uncertainty
        self.extra_bytes += per_voxel * voxels

    def peak_bytes(self, request: Request, workers: int) -> int:
        """Return the predicted peak of all processes together."""
        alone = request.fixed_bytes + self.case_bytes
        return (SUPERVISOR_BYTES if workers else 0) + max(workers, 1) * alone


def look_at(
    jobs: Sequence[Job], request: Request, reading: Reading, limit: int | None
) -> tuple[list[Job], Forecast]:
    """Read the headers of all cases.

    Args:
        jobs: The cases.
        request: What is asked of each.
        reading: What the reader is told.
        limit: Most bytes a case may take.

    Returns:
        The cases, with the problem of those that cannot be labelled; and what the others take.
    """
    forecast, seen = Forecast(), []
    for job in track(jobs, "reading headers", len(jobs)) if len(jobs) > _MANY else jobs:
        now = job if job.problem else _looked_at(job, request, reading, limit, forecast)
        if now.problem:
            forecast.problems[now.output] = now.problem
        seen.append(now)
    return seen, forecast


def _looked_at(
    job: Job, request: Request, reading: Reading, limit: int | None, forecast: Forecast
) -> Job:
    """Count a case in, or return it with the reason why it cannot be labelled."""
    try:
        plan, grid = request.plan_files(job.images, reading.series_uid, limit, job.missing)
    except (MedsegError, OSError) as error:
        found = failure(error)
        return replace(job, problem=found["message"], code=found["code"])
    forecast.add(plan, math.prod(grid.shape), request)
    return job


def check_space(folder: Path, forecast: Forecast) -> None:
    """Find out whether what is to be written has room.

    Raises:
        OptionError: If it surely has none.
    """
    free = shutil.disk_usage(folder).free
    sure = int(forecast.label_voxels * SURE_SHARE) + forecast.extra_bytes
    if free < sure:
        raise OptionError(
            f"--output {folder} has {size(free)} free; the results take {size(sure)} at least. "
            "Make room, or choose another place."
        )
    likely = int(forecast.label_voxels * LIKELY_SHARE) + forecast.extra_bytes
    if free < likely:
        log.warning(
            "--output %s has %s free; the results may take %s", folder, size(free), size(likely)
        )


def make_writable(folder: Path) -> None:
    """Make the output folder, and find out now whether it can be written to.

    Raises:
        OptionError: If it cannot.
    """
    probe = folder / f".medseg-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OptionError(f"--output {folder} cannot be written to ({error.strerror}).") from error


def tell(forecast: Forecast, request: Request, workers: int, limit: int) -> None:
    """Log what was found."""
    for problem in list(forecast.problems.values())[:_NAMED]:
        log.warning("cannot be labelled: %s", printable(problem))
    if len(forecast.problems) > _NAMED:
        log.warning("… and %d more", len(forecast.problems) - _NAMED)
    if not forecast.cases:
        return
    peak = forecast.peak_bytes(request, workers)
    log.info("%d cases, %d windows; predicted peak memory %s of %s allowed",
             forecast.cases, forecast.windows, size(peak), size(limit))  # fmt: skip
    if forecast.windows > forecast.fewest:
        log.info("keeping it means predicting %.2f times the windows (%d without the limit)",
                 forecast.windows / forecast.fewest, forecast.fewest)  # fmt: skip
