"""Where the findings go: the standard output, one file, or a folder with all forms."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.check.facts import SetFacts
from medseg.check.findings import Finding, as_json, as_text
from medseg.core.manifest import Manifest
from medseg.core.runs import atomic_text, strict_json

log = logging.getLogger("medseg")


@dataclass(frozen=True, eq=False)
class Result:
    """What a check ends with.

    Attributes:
        manifest: The data set.
        checked: Number of cases of which a file was there.
        findings: All that was found.
        facts: What was measured, for the pictures.
    """

    manifest: Manifest
    checked: int
    findings: Sequence[Finding]
    facts: SetFacts


def _json(result: Result) -> str:
    content = strict_json(as_json(result.manifest, result.checked, result.findings))
    # Half a surrogate pair in a name must not stop the report of it.
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _text(result: Result) -> str:
    text = as_text(result.manifest, result.checked, result.findings)
    return text.encode("utf-8", "replace").decode()


def _html(result: Result) -> str:
    from medseg.check.page import render  # with matplotlib, which only pictures need

    return render(result)


FORMS: Mapping[str, Callable[[Result], str]] = {".json": _json, ".txt": _text, ".html": _html}
"""Writer by file ending."""


def tell(result: Result, output: Path | None, as_program: bool) -> None:
    """Print the findings, or write them.

    Args:
        result: What was found.
        output: A file whose ending is in FORMS, a folder for all of them, or None.
        as_program: Print JSON instead of text.

    Raises:
        OptionError: If they cannot be written.
    """
    if output is None:
        sys.stdout.write((_json(result) if as_program else _text(result)) + "\n")
        return
    folder = [output / f"check{ending}" for ending in FORMS]
    paths = [output] if output.suffix in FORMS else folder
    for path in paths:
        with atomic_text(path) as file:
            file.write(FORMS[path.suffix](result) + "\n")
    log.info("%s", _text(result).splitlines()[0])
    log.info("%s", ", ".join(map(str, paths)))
