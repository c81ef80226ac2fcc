"""What a finished study yields: one table of outcomes, without files, networks or plots.

Every number that was not measured is None. A network that diverged is an outcome like any other:
its Dice, where it has one, is kept as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from medseg.core.endpoints import DIFFERENCE
from medseg.core.errors import OptionError
from medseg.study.measurements import CaseScores, Costs, Curve, Probes

Status = Literal["finished", "diverged", "halved", "out of memory", "impossible", "failed"]
"""How a run ended. halved: stopped on purpose at a learning rate that was behind; impossible: the
norm cannot be built for the cell; failed: broken off for a reason that says nothing of the norm."""

KILLED = "killed (out of memory?)"
"""Reason of a failed run that a kernel short of memory, or somebody, ended with SIGKILL."""

BACKGROUND = "every voxel of the validation cases was called background, or one class, at the end"
"""Reason of a run that diverged without a loss that is no number."""

NONE = "none"
"""The variant without a norm."""


@dataclass(frozen=True)
class Outcome:
    """One training: a cell of the grid, and what came of it. Folds of one cell are one outcome.

    Attributes:
        norm: The variant.
        batch_size: Patches that share a step, and so the statistics of batch norm.
        learning_rate: Above 0.
        seed: Of everything random.
        dropout: Probability.
        init_scale: Factor on the initial weights.
        status: How it ended.
        reason: The same in words, where it did not finish.
        choosing: Mean foreground Dice on the choosing fold: what may choose a learning rate.
        scores: On the reporting folds: what may be reported, and must never choose.
        curve: Validations during the training.
        probes: What was watched.
        costs: What it costs.
    """

    norm: str
    batch_size: int
    learning_rate: float
    seed: int
    dropout: float = 0.0
    init_scale: float = 1.0
    status: Status = "finished"
    reason: str = ""
    choosing: float | None = None
    scores: CaseScores | None = None
    curve: Curve | None = None
    probes: Probes = field(default_factory=Probes)
    costs: Costs = field(default_factory=Costs)

    @property
    def has_ended(self) -> bool:
        """Whether it came to an end of its own: a divergence is a result like any other."""
        return self.status in ("finished", "diverged")


@dataclass(frozen=True)
class Study:
    """All outcomes of one study.

    Attributes:
        outcomes: One for each cell and seed.
        cases: Names of the reporting cases.
        units: The independent unit (a patient) of each case; the case itself if empty.
        baseline: The norm that the claims are about, and whose learning rate a drop-in would keep.
        dropout: Of the cells that norms are compared at.
        init_scale: Likewise.
        difference: The mean difference of Dice worth seeing.
    """

    outcomes: tuple[Outcome, ...]
    cases: tuple[str, ...]
    units: tuple[str, ...] = ()
    baseline: str = "batch"
    dropout: float = 0.0
    init_scale: float = 1.0
    difference: float = DIFFERENCE

    def __post_init__(self) -> None:
        """Refuse scores that cannot belong to the cases.

        Raises:
            OptionError: If there are more or fewer of them.
        """
        counts = {len(o.scores.dice) for o in self.outcomes if o.scores is not None}
        counts |= {len(self.units)} if self.units else set()
        if wrong := sorted(counts - {len(self.cases)}):
            raise OptionError(
                f"a study of {len(self.cases)} cases needs a score and a unit of each; got "
                f"{', '.join(map(str, wrong))}."
            )

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Every batch size, ascending."""
        return tuple(sorted({outcome.batch_size for outcome in self.outcomes}))

    @property
    def norms(self) -> tuple[str, ...]:
        """Every norm, in the order of the alphabet."""
        return tuple(sorted({outcome.norm for outcome in self.outcomes}))

    def select(
        self,
        norm: str | None = None,
        batch_size: int | None = None,
        dropout: float | None = None,
        init_scale: float | None = None,
    ) -> tuple[Outcome, ...]:
        """Return outcomes by what is given, at the dropout and scale of the comparison if not."""
        wanted = {
            "norm": norm,
            "batch_size": batch_size,
            "dropout": self.dropout if dropout is None else dropout,
            "init_scale": self.init_scale if init_scale is None else init_scale,
        }
        return tuple(o for o in self.outcomes if _is(o, wanted))


def _is(outcome: Outcome, wanted: Mapping[str, Any]) -> bool:
    return all(value is None or getattr(outcome, key) == value for key, value in wanted.items())
