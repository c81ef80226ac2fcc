"""Rows of measured numbers, and what they allow to be said of a claim.

A contrast supports a claim if its 95 % interval lies on the claimed side, and speaks against it if
it lies on the other side or shows a difference too small to matter. Else it decides nothing.
Intervals are of one contrast each; only the tests of accuracy are corrected for their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from medseg.core.statistics import NAN
from medseg.study.outcomes import NONE

Decision = Literal["supported", "not supported", "not decidable"]

SUPPORTED: Decision = "supported"
NOT_SUPPORTED: Decision = "not supported"
NOT_DECIDABLE: Decision = "not decidable"

MOST_TOLD = 4
"""Contrasts behind a verdict that are told with it."""

MORE_SEEDS = "more values of grid.seed"


@dataclass(frozen=True)
class Row:
    """One measured number: of a norm, or of the baseline against another norm.

    Attributes:
        quantity: What was measured.
        norm: The norm.
        batch_size: Its batch size.
        value: The number; of a contrast, the difference or the ratio of the norm to the other.
        low: Lower end of its 95 % interval, NaN where there is none.
        high: Upper end.
        n: How many runs, or cases, it rests on.
        of: What `n` counts.
        method: How the interval or the test was computed.
        against: The other norm of a contrast.
        p: Of the test of a contrast, NaN where none was made.
        decision: What the contrast says of the claim.
        primary: Whether the verdict of the claim rests on it.
    """

    quantity: str
    norm: str
    batch_size: int
    value: float
    low: float = NAN
    high: float = NAN
    n: int = 0
    of: str = "seeds"
    method: str = ""
    against: str = ""
    p: float = NAN
    decision: Decision = NOT_DECIDABLE
    primary: bool = False

    @property
    def words(self) -> str:
        """The contrast in words."""
        interval = "" if math.isnan(self.low) else f" [{self.low:.3g}, {self.high:.3g}]"
        p = "" if math.isnan(self.p) else f", p = {self.p:.2g}"
        value = "unknown" if math.isnan(self.value) else f"{self.value:.3g}"
        return (
            f"{self.quantity} against {self.against} at batch size {self.batch_size}: "
            f"{value}{interval} ({counted(self.n, self.of)}{p}; {self.decision})"
        )


@dataclass(frozen=True)
class Claim:
    """A claim of the literature about the baseline, and what the study says of it.

    Attributes:
        name: Short name.
        statement: The claim.
        rows: Everything that was measured for it.
        verdict: `supported`, `not supported` or `not decidable with n = ...`.
        because: The numbers behind the verdict, or the setting that would measure them.
    """

    name: str
    statement: str
    rows: tuple[Row, ...]
    verdict: str
    because: str


def conclude(name: str, statement: str, rows: Iterable[Row], setting: str) -> Claim:
    """Return a claim with its verdict.

    The verdict rests on the primary contrasts with the network without a norm, since that is what
    the claims are about; with all other norms where the study has none without. One of them
    against it is enough for `not supported`; `supported` needs one for it and none against.

    Args:
        name: Of the claim.
        statement: The claim.
        rows: What was measured.
        setting: What the study would need to decide more.
    """
    found = tuple(rows)
    primary = [row for row in found if row.primary and row.against]
    looked_at = [row for row in primary if row.against == NONE] or primary
    decisions = {row.decision for row in looked_at}
    n, of = min(((row.n, row.of) for row in looked_at), default=(0, "seeds"))
    verdict: str = f"{NOT_DECIDABLE} with n = {counted(n, of)}"
    if NOT_SUPPORTED in decisions:
        verdict = NOT_SUPPORTED
    elif SUPPORTED in decisions:
        verdict = SUPPORTED
    # What decided comes first; a few are enough, all being in the rows.
    ordered = sorted(looked_at, key=lambda row: row.decision != verdict)
    told = "; ".join(row.words for row in ordered[:MOST_TOLD])
    if (more := len(ordered) - MOST_TOLD) > 0:
        told += f"; and {more} more"
    if verdict in (SUPPORTED, NOT_SUPPORTED):
        because = f"{told}."
    elif told:
        because = f"{told}. To decide it: {setting}."
    else:
        because = f"The study did not measure it: {setting}."
    return Claim(name, statement, found, verdict, because)


def counted(n: int, of: str) -> str:
    """Return a number of things in words; `of` is their plural."""
    return f"{n} {of.removesuffix('s') if n == 1 else of}"


def decide(low: float, high: float, claimed: int, margin: float = 0.0) -> Decision:
    """Return what an interval says of a claim.

    Args:
        low: Lower end.
        high: Upper end.
        claimed: 1 if the claim is a value above 0, -1 if below.
        margin: Size below which a difference does not matter.
    """
    if math.isnan(low) or math.isnan(high):
        return NOT_DECIDABLE
    near, far = (low, high) if claimed > 0 else (-high, -low)
    if near > 0:
        return SUPPORTED
    return NOT_SUPPORTED if far < 0 or (-near <= margin and far <= margin) else NOT_DECIDABLE
