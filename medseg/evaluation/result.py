"""What an evaluation found: cases, classes and the figures over cases."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medseg.core.metrics import METRICS
from medseg.core.statistics import Summary, summarize
from medseg.evaluation.options import EvaluateOptions
from medseg.evaluation.pairing import Pairing
from medseg.evaluation.scoring import CaseScores


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        options: What was asked.
        pairing: What was given.
        scored: The scored cases, in the order of the pairing.
        failed: Why a case could not be scored, by case id.
        class_values: Label value of each class by name.
    """

    options: EvaluateOptions
    pairing: Pairing
    scored: tuple[CaseScores, ...]
    failed: Mapping[str, str]
    class_values: Mapping[str, int]

    @property
    def counted(self) -> tuple[CaseScores, ...]:
        """The scored cases that enter means: those that did not train the network."""
        return tuple(case for case in self.scored if not case.pair.record.trained)

    @property
    def trained(self) -> tuple[str, ...]:
        """Case ids of the others."""
        return tuple(case.pair.case_id for case in self.scored if case.pair.record.trained)

    @property
    def chosen_on_scored_cases(self) -> bool:
        """Whether the checkpoint was chosen by its score on cases that are scored here."""
        return any(case.pair.record.chosen_on for case in self.scored)

    @property
    def coarse(self) -> tuple[str, ...]:
        """Case ids whose largest spacing exceeds the tolerance of the surface distance."""
        tolerance = self.options.tolerance_mm
        return tuple(c.pair.case_id for c in self.scored if tolerance < max(c.spacing) * (1 - 1e-6))

    @cached_property
    def summaries(self) -> Mapping[str, Mapping[str, Summary]]:
        """Figures over the counted cases, by class and metric."""
        return {
            name: {metric: self._summary(name, metric) for metric in METRICS}
            for name in self.class_values
        }

    def _summary(self, class_name: str, metric: str) -> Summary:
        scores = [case.of(self.class_values[class_name]) for case in self.counted]
        return summarize(
            [score.values[metric] for score in scores],
            [score.status for score in scores],
            [case.diagonal_mm for case in self.counted],
            seed=zlib.crc32(f"{class_name}/{metric}".encode()),
        )

    def foreground_mean(self, metric: str) -> float:
        """Return the mean over classes of their means over cases; NaN if no class has one."""
        means = [summaries[metric].mean for summaries in self.summaries.values()]
        known = [mean for mean in means if not np.isnan(mean)]
        return float(np.mean(known)) if known else float("nan")
