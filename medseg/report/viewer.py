"""The viewer: NiiVue, read from an installed package, packed into the page."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

PACKAGE, FILE = "nilearn", "niivue.umd.js"
"""What ships NiiVue (BSD-2-Clause) as one script, and its name there."""


@dataclass(frozen=True)
class Viewer:
    """NiiVue as the page holds it.

    Attributes:
        script: The program, for the hash in the page's policy.
        packed: The same, gzip and base64; unpacked when a case is opened.
        origin: Package and version it was read from.
    """

    script: str
    packed: str
    origin: str


def find_viewer() -> Viewer | None:
    """Return the viewer; None where the package is not installed or does not ship it."""
    found = util.find_spec(PACKAGE)  # without importing it, which takes seconds
    folders: Sequence[str] = (found.submodule_search_locations or []) if found else []
    files = [file for folder in folders for file in sorted(Path(folder).rglob(FILE))]
    if not files:
        return None
    script = files[0].read_text(encoding="utf-8").replace("\r\n", "\n")
    packed = base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
    return Viewer(script, packed, f"{PACKAGE} {metadata.version(PACKAGE)}")
