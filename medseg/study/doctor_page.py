"""The findings of `medseg doctor` as one self-contained HTML page."""

from __future__ import annotations

import math

from medseg.engine.progress import printable
from medseg.report.templating import asset, environment, still_page
from medseg.study.doctor_findings import Findings, alike
from medseg.study.doctor_layers import SMALL_GAMMA
from medseg.study.doctor_modes import Difference

_EMPTY = "–"


def render(findings: Findings) -> str:
    """Return the page."""
    templates = environment("medseg.study")
    templates.filters |= {"printable": printable, "number": _number, "gap": _gap}
    style = asset("style.css") + "\n" + asset("doctor.css", "medseg.study")
    return still_page(
        templates,
        "doctor.html",
        style,
        found=findings,
        facts=_facts(findings),
        alike=alike(findings.norm),
        small_gamma=SMALL_GAMMA,
    )


def _facts(findings: Findings) -> list[tuple[str, str]]:
    """Return the numbers above the tables."""
    return [
        ("Run directory", findings.run),
        ("Norm", findings.norm),
        ("Checkpoint", findings.checkpoint),
        ("Cases", f"{len(findings.cases)} of fold {findings.fold}"),
        ("Training patches", str(findings.training_patches or _EMPTY)),
        ("Dice as predicted", _number(findings.usual_dice)),
        ("Seconds", f"{findings.seconds:.0f}"),
    ]


def _number(value: float, digits: int = 3) -> str:
    """Return a number for a table; very small ones by their power of ten, and 0 only if exact."""
    if not math.isfinite(value):
        return _EMPTY
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 10**-digits else f"{value:.{digits}f}"


def _gap(gap: Difference) -> str:
    """Return a difference with its interval."""
    if not math.isfinite(gap.mean):
        return _EMPTY
    if not math.isfinite(gap.low):
        return f"{gap.mean:+.3f}"
    return f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
