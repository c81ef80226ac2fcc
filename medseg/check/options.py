"""Options of `medseg check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.engine.parallel import default_workers


@dataclass(frozen=True)
class CheckOptions:
    """Options of `medseg check`.

    Attributes:
        manifest: Data set manifest (JSON), an MSD dataset.json, an nnU-Net raw folder, or a folder
            with images/ and labels/ of equal names.
        root: Folder the manifest's paths are relative to; the manifest's own if not given.
        fold: Check only the cases of this fold, all of which have to be there. Without it, cases
            of which no file is there are one warning.
        json: Print the findings as JSON.
        output: File to write the findings to, ending in .json, .txt or .html; any other name is a
            folder that gets all three. They are printed if not given.
        fix: Write a data set to OUTPUT/fixed with repaired copies of what can be repaired safely,
            and links to all other files. The originals stay as they are.
        workers: Processes that check cases side by side.
    """

    manifest: Path
    root: Path | None = None
    fold: int | None = None
    json: bool = False
    output: Path | None = None
    fix: bool = False
    workers: int = default_workers()
