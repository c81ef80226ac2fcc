"""What the data set doctor finds, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from medseg.check.codes import CODES
from medseg.core.manifest import Manifest
from medseg.engine.progress import printable

Severity = Literal["error", "warning", "info"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""From what stops a training to what is good to know."""

_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: `error` if a training or an evaluation would refuse the case, or its figures
            would be wrong.
        code: Stable short name.
        case_id: The case, or "" for the data set as a whole.
        message: What is wrong and what to do, in words.
        files: The files concerned.
    """

    severity: Severity
    code: str
    case_id: str
    message: str
    files: tuple[str, ...] = ()


def finding(severity: Severity, code: str, case_id: str, what: str, *files: Path | str) -> Finding:
    """Return a finding whose message ends with what to do about its code."""
    words = f"{what}. {CODES[code].cure}" if CODES[code].cure else what
    return Finding(severity, code, case_id, words, tuple(map(str, files)))


def count(findings: Iterable[Finding], severity: Severity) -> int:
    """Return how many findings have a severity."""
    return sum(found.severity == severity for found in findings)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, errors first; the order stays otherwise."""
    return sorted(findings, key=lambda found: SEVERITIES.index(found.severity))


def as_json(manifest: Manifest, checked: int, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings for programs."""
    return {
        "manifest": manifest.name,
        "data_digest": manifest.digest,
        "cases_checked": checked,
        "counts": {severity: count(findings, severity) for severity in SEVERITIES},
        "findings": [asdict(found) for found in findings],
    }


def as_text(manifest: Manifest, checked: int, findings: Sequence[Finding]) -> str:
    """Return the findings for people: their numbers, each error, then the rest by kind."""
    numbers = ", ".join(f"{severity}: {count(findings, severity)}" for severity in SEVERITIES)
    lines = [f"{manifest.path}: {checked} cases checked; {numbers}"]
    lines += [_line(found.severity, found.code, found.case_id, found.message)
              for found in findings if found.severity == "error"]  # fmt: skip
    kinds: dict[tuple[Severity, str], list[Finding]] = {}
    for found in by_severity(findings):
        if found.severity != "error":
            kinds.setdefault((found.severity, found.code), []).append(found)
    for (severity, code), alike in kinds.items():
        names = ", ".join(found.case_id for found in alike[:_NAMED])
        more = f" and {len(alike) - _NAMED} more, the first" if len(alike) > _NAMED else ""
        lines.append(_line(severity, code, names + more, alike[0].message))
    return "\n".join(map(printable, lines))


def _line(severity: str, code: str, names: str, message: str) -> str:
    return f"  {severity:<7} {code}: " + (f"{names}: " if names else "") + message
