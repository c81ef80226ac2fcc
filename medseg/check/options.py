"""Options of `medseg check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.engine.parallel import default_workers


@dataclass(frozen=True)
class CheckOptions:
    """Options of `medseg check`.

    Attributes:
        manifest: Data set manifest (JSON), an MSD dataset.json or an nnU-Net raw folder.
        root: Folder the manifest's paths are relative to; the manifest's own if not given.
        fold: Check only the cases of this fold, all of which have to be there. Without it, cases
            of which no file is there are one warning.
        json: Write the findings as JSON.
        output: File to write the findings to; they are shown on the screen if not given.
        workers: Processes that check cases side by side.
    """

    manifest: Path
    root: Path | None = None
    fold: int | None = None
    json: bool = False
    output: Path | None = None
    workers: int = default_workers()
