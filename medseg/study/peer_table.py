"""The figures of the comparison with nnU-Net: as a JSON object and as a table."""

from __future__ import annotations

import logging
import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

from medseg.core.environment import versions
from medseg.study.measuring import Measured
from medseg.study.options import BenchmarkOptions
from medseg.study.staging import OVERLAP, Staged

_MIB = 2**20

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class Side:
    """What one of the two did.

    Attributes:
        name: Package and version.
        measured: Time and memory of its command.
        dice: Mean over cases, then over classes, of cases that did not train the network.
    """

    name: str
    measured: Measured
    dice: float


def result_of(
    options: BenchmarkOptions,
    staged: Staged,
    answer: dict[str, Any],
    sides: tuple[Side, Side],
    between: float,
) -> dict[str, Any]:
    """Return all figures, as they are written.

    Args:
        options: What was asked.
        staged: The cases.
        answer: What nnU-Net's side said about its network.
        sides: medseg, then nnU-Net.
        between: Dice of one side's label maps against the other's.
    """
    ours, theirs = (side.measured for side in sides)
    return {
        "run": str(options.run), "checkpoint": options.checkpoint, "input": str(options.input),
        "predict_flags": options.predict_flags, "overlap": OVERLAP, "cases": staged.cases,
        "cases_scored": staged.scored, "processors": os.cpu_count(),
        "machine": platform.platform(), "parameters": answer["parameters"],
        "window_difference": answer["difference"], "versions": versions(),
        "peer_versions": answer["versions"],
        "sides": [
            {
                "name": side.name, "dice": side.dice, **asdict(side.measured),
                "cases_per_second": staged.cases / side.measured.seconds,
            }
            for side in sides
        ],
        "times_faster": theirs.seconds / ours.seconds,
        "pss_share": ours.pss_bytes / theirs.pss_bytes,
        "rss_share": ours.rss_bytes / theirs.rss_bytes,
        "dice_between_them": between,
    }  # fmt: skip


def tell(result: dict[str, Any]) -> None:
    """Log the table, and what it comes to."""
    log.info("%d cases on %d processors, overlap %s, start-up included; Dice over the %d cases "
             "that did not train the network", result["cases"], result["processors"],
             result["overlap"], result["cases_scored"])  # fmt: skip
    log.info("%-16s %9s %9s %9s %10s %10s %10s %8s", "", "seconds", "CPU s", "cases/s", "processes",
             "PSS MiB", "RSS MiB", "Dice")  # fmt: skip
    for side in result["sides"]:
        log.info("%-16s %9.1f %9.1f %9.2f %10d %10.0f %10.0f %8.4f", side["name"], side["seconds"],
                 side["processor_seconds"], side["cases_per_second"], side["processes"],
                 side["pss_bytes"] / _MIB, side["rss_bytes"] / _MIB, side["dice"])  # fmt: skip
    log.info("medseg is %.2f times as fast, at %.2f (PSS) and %.2f (RSS) of the peak memory; "
             "Dice between the two %.4f", result["times_faster"], result["pss_share"],
             result["rss_share"], result["dice_between_them"])  # fmt: skip
