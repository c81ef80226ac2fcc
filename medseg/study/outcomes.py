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

Status = Literal["finished", "diverged", "halved", "out of memory", "impossible", "failed"]
"""How a run ended. halved: stopped on purpose at a learning rate that was behind; impossible: the
norm cannot be built for the cell; failed: broken off for a reason that says nothing of the norm."""

NONE = "none"
"""The variant without a norm."""


@dataclass(frozen=True)
class CaseScores:
    """Scores on the reporting cases, in the order of `Study.cases`; NaN where undefined.

    Attributes:
        dice: Mean over the foreground classes of each case: the primary score.
        missed: Structures not predicted, in each case.
        invented: Structures predicted where there are none.
        hd95_mm: Mean over the foreground classes; infinite where a structure is lost.
        nsd: Mean over the foreground classes.
        class_dice: Dice of each foreground class.
    """

    dice: tuple[float, ...]
    missed: tuple[int, ...] | None = None
    invented: tuple[int, ...] | None = None
    hd95_mm: tuple[float, ...] | None = None
    nsd: tuple[float, ...] | None = None
    class_dice: Mapping[str, tuple[float, ...]] | None = None


@dataclass(frozen=True)
class Curve:
    """Validations during one training, on the choosing fold; all of the same length.

    Attributes:
        samples: Patches seen, ascending.
        steps: Steps of the optimizer.
        seconds: Of training, validations left out.
        dice: Mean foreground Dice.
        train_dice: Of training patches, as the network is in training.
    """

    samples: tuple[float, ...]
    steps: tuple[float, ...]
    seconds: tuple[float, ...]
    dice: tuple[float, ...]
    train_dice: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Probes:
    """What was watched during the training of one network, or measured on it afterwards.

    Attributes:
        roughness: SD of the detrended loss from step to step.
        gradient_spikes: Gradient norms above ten times their running median, per 1000 steps.
        loss_range: Width of the loss along the gradient at a fixed batch (Santurkar, 2018).
        gradient_change: Relative change of the gradient along it, |g' - g| / |g|.
        effective_beta: Effective smoothness along it, scaled by the squared norm of the weights.
        batch_mate_noise: Variance of a patch's logits over random batch mates, in training mode.
        statistics_distance: Standardized distance of running from the case's own statistics.
        dice_running: Dice with running statistics, on the choosing fold.
        dice_precise: With statistics measured anew on training patches.
        dice_own: With the statistics of the case itself; equal to `dice_running` by definition
            where a norm keeps no running statistics.
        train_dice: Of training cases at the end, without augmentation.
        gamma_sd: Spread of the learned gamma, which starts at 1.
        gamma_small: Share of |gamma| below 0.01.
        beta_sd: Spread of the learned beta, which starts at 0.
        variance_shift: Largest variance in evaluation over that in training, of a norm's input.
        window_sensitivity: Difference of the logits between two sizes of the window.
        invariance: Dice lost to each change of the image (gain, gamma, bias field, ...).
    """

    roughness: float | None = None
    gradient_spikes: float | None = None
    loss_range: float | None = None
    gradient_change: float | None = None
    effective_beta: float | None = None
    batch_mate_noise: float | None = None
    statistics_distance: float | None = None
    dice_running: float | None = None
    dice_precise: float | None = None
    dice_own: float | None = None
    train_dice: float | None = None
    gamma_sd: float | None = None
    gamma_small: float | None = None
    beta_sd: float | None = None
    variance_shift: float | None = None
    window_sensitivity: float | None = None
    invariance: Mapping[str, float] | None = None

    @property
    def statistics_gap(self) -> float | None:
        """Dice that differs between running and own statistics, whichever is higher."""
        if self.dice_running is None or self.dice_own is None:
            return None
        return abs(self.dice_running - self.dice_own)


@dataclass(frozen=True)
class Costs:
    """What one network costs.

    Attributes:
        seconds_per_step: Of training.
        peak_mib: Of training, on the device.
        inference_seconds: Of one case.
        folded_seconds: Likewise with its norms folded into the convolutions; the same as
            `inference_seconds` where nothing folds.
        parameters: Their number.
    """

    seconds_per_step: float | None = None
    peak_mib: float | None = None
    inference_seconds: float | None = None
    folded_seconds: float | None = None
    parameters: int | None = None


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
