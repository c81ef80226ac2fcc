"""What the journal says of a case, and whether that still holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg import __version__
from medseg.inference.ensemble import role_of
from medseg.inference.inputs import Job, parts_of
from medseg.inference.labeller import Order, Record, sha256
from medseg.networks.checkpoint import Description

_DECISIVE = ("checkpoint_sha256", "settings_sha256", "image", "image_state")
"""A label map is as good as done only if none of these has changed."""


@dataclass(frozen=True, eq=False)
class Ledger:
    """What all cases of one call share in the journal.

    Attributes:
        descriptions: Of the networks.
        common: Fields that are equal for all.
        output: Folder of the label maps.
    """

    descriptions: tuple[Description, ...]
    common: Mapping[str, Any]
    output: Path

    @classmethod
    def of(
        cls,
        order: Order,
        descriptions: Sequence[Description],
        names: Sequence[str],
    ) -> Ledger:
        """Return the ledger of an order.

        Args:
            order: What workers are told.
            descriptions: Of the networks.
            names: Run directories or packages, as the user named them.
        """
        settings = decisive_settings(order)
        common = {
            "run": ", ".join(names),
            "checkpoint": order.checkpoint,
            "checkpoint_sha256": ", ".join(sha256(path) for path in order.files()),
            "settings": settings,
            "settings_sha256": _digest(settings),
            "norm": ", ".join(description.norm for description in descriptions),
            "device": order.settings.device or "auto",
            "medseg": __version__,
        }
        return cls(tuple(descriptions), common, order.output)

    def record(self, job: Job, outcome: Record, attempt: int) -> Record:
        """Return one line of the journal."""
        return {
            "case_id": job.case_id,
            "image": _paths(job),
            "image_state": image_state(job),
            "reference": str(job.reference.absolute()) if job.reference else None,
            "output": job.output,
            "role": role_of(self.descriptions, job.case_id),
            **self.common,
            **outcome,
            "attempt": attempt,
        }

    def is_of(self, job: Job, record: Mapping[str, Any]) -> bool:
        """Return whether a record is about the same files, weights and options."""
        files = {"image": _paths(job), "image_state": image_state(job)}
        now = {**self.common, **files}
        return all(record.get(key) == now[key] for key in _DECISIVE)

    def is_done(self, job: Job, record: Mapping[str, Any] | None) -> bool:
        """Return whether the same weights labelled the same files, and the results are as written.

        Args:
            job: The case.
            record: The newest line of the journal about it.
        """
        if (
            record is None
            or record.get("status") != "ok"
            or not isinstance(files := record.get("files"), dict)
        ):
            return False
        if not self.is_of(job, record):
            return False
        places = [(self.output / name, digest) for name, digest in files.items()]
        return all(path.is_file() and sha256(path) == digest for path, digest in places)


def decisive_settings(order: Order) -> Record:
    """Return the options that change what is written; those that only change its cost do not."""
    chosen = asdict(order.settings)
    for name in ("device", "max_memory", "threads", "sw_batch_size"):
        del chosen[name]
    return {
        **chosen,
        **asdict(order.reading),
        "format": order.format,
        "probabilities": order.probabilities,
        "uncertainty": order.uncertainty,
    }


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _paths(job: Job) -> list[str]:
    return [str(path.absolute()) for path in job.images]


def image_state(job: Job) -> list[list[int]]:
    """Return size and time of each input file; what a changed input changes."""
    states = []
    for part in (part for path in job.images for part in parts_of(path)):
        try:
            found = part.stat()
        except OSError:  # said when it is read
            continue
        states.append([found.st_size, found.st_mtime_ns])
    return states
