"""What `medseg predict` noted beside its label maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.core.runs import JOURNAL_NAME, read_json_lines


@dataclass(frozen=True)
class Record:
    """One case in the journal of a prediction.

    Attributes:
        failed: Whether the newest attempt failed.
        message: Why.
        role: `training`, `validation` or `unseen`; empty if not known.
        checkpoint: `best`, `last` or a path; empty if not known.
        postprocessing: `on`, `off` or `none`; empty if not known.
    """

    failed: bool = False
    message: str = ""
    role: str = ""
    checkpoint: str = ""
    postprocessing: str = ""

    @property
    def trained(self) -> bool:
        """Whether the case trained the network, so that its scores say nothing."""
        return self.role == "training"

    @property
    def chosen_on(self) -> bool:
        """Whether the checkpoint was chosen by its score on this case."""
        return self.role == "validation" and Path(self.checkpoint).stem == "best"

    @property
    def shaped_on(self) -> bool:
        """Whether post-processing was applied that was learned on this case."""
        return self.role == "validation" and self.postprocessing == "on"


UNRECORDED = Record()
"""Of a case that no journal names."""


def maps_beside(folder: Path) -> set[Path]:
    """Return the files of a prediction that are no label maps, such as those of the uncertainty."""
    return {
        folder / name
        for row in read_json_lines(folder / JOURNAL_NAME)
        if isinstance(files := row.get("files"), dict)
        for name in files
        if name != row.get("output")
    }


def read_journal(folder: Path) -> Mapping[str, Record]:
    """Return the newest record of each case; nothing if there is no journal."""
    records = {}
    for row in read_json_lines(folder / JOURNAL_NAME):
        if "case_id" in row:
            keys = ("role", "checkpoint", "postprocessing")
            failed = row.get("status") == "failed"
            message = str(row.get("message", ""))
            known = (str(row.get(key) or "") for key in keys)
            records[str(row["case_id"])] = Record(failed, message, *known)
    return records
