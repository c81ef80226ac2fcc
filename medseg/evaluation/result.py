"""What an evaluation found: cases, classes and the figures over cases."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from medseg.core.lesions import LesionCounts
from medseg.core.metrics import LESION_METRICS, METRICS, ClassScore, class_score
from medseg.core.statistics import Summary, summarize
from medseg.evaluation.options import EvaluateOptions
from medseg.evaluation.pairing import Pairing
from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.wanted import Wanted


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        options: What was asked.
        pairing: What was given.
        wanted: What was to be scored.
        scored: The scored cases, in the order of the pairing.
        failed: Why a case could not be scored, by case id.
    """

    options: EvaluateOptions
    pairing: Pairing
    wanted: Wanted
    scored: tuple[CaseScores, ...]
    failed: Mapping[str, str]

    @cached_property
    def class_values(self) -> Mapping[str, int]:
        """Label value of each class by name; without a label table those found in any case."""
        if self.wanted.classes is not None:
            return self.wanted.classes
        found = {value for case in self.scored for pair in case.confusion for value in pair}
        return {str(value): value for value in sorted(found - {0})}

    @cached_property
    def members(self) -> Mapping[str, tuple[int, ...]]:
        """Label values of each class, then of each region, by name."""
        classes = {name: (value,) for name, value in self.class_values.items()}
        return classes | dict(self.wanted.regions)

    @property
    def regions_of_nothing(self) -> tuple[str, ...]:
        """Regions none of whose classes is known."""
        known = set(self.class_values.values())
        return tuple(name for name, of in self.wanted.regions.items() if not known & set(of))

    def score(self, case: CaseScores, name: str) -> ClassScore:
        """Return the score of a class or region; one that neither file holds is absent."""
        score = case.scores.get(name)
        if score is None:
            counted = self.wanted.lesion_rule_of(name)
            score = class_score((0, 0, 0), 0.0, lesions=LesionCounts(0, 0, 0) if counted else None)
        if score.status == "absent" and self.options.empty_dice == "one":
            return replace(score, values={**score.values, "dice": 1.0, "iou": 1.0})
        return score

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
    def postprocessing_learned_on_scored_cases(self) -> bool:
        """Whether the applied post-processing was learned on cases that are scored here."""
        return any(case.pair.record.shaped_on for case in self.scored)

    @property
    def smallest_tolerance_mm(self) -> float:
        """Of all classes and regions."""
        return min(self.wanted.tolerance_of(name) for name in self.members)

    @property
    def coarse(self) -> tuple[str, ...]:
        """Case ids whose largest spacing exceeds a tolerance of the surface distance."""
        tolerance = self.smallest_tolerance_mm
        return tuple(c.pair.case_id for c in self.scored if tolerance < max(c.spacing) * (1 - 1e-6))

    @cached_property
    def confusion(self) -> Mapping[tuple[int, int], int]:
        """Voxels of the counted cases by label value in the reference and in the prediction."""
        total: Counter[tuple[int, int]] = Counter()
        for case in self.counted:
            total.update(case.confusion)
        return total

    @cached_property
    def summaries(self) -> Mapping[str, Mapping[str, Summary]]:
        """Figures over the counted cases, by class or region and metric."""
        return {name: self._summaries(name) for name in self.members}

    def _summaries(self, name: str) -> dict[str, Summary]:
        scores = [self.score(case, name) for case in self.counted]
        return {
            metric: summarize(
                [score.values[metric] for score in scores],
                [score.status for score in scores],
                [case.diagonal_mm for case in self.counted],
                seed=zlib.crc32(f"{name}/{metric}".encode()),
                limits=METRICS[metric].limits,
            )
            for metric in METRICS
            if metric not in LESION_METRICS or self.wanted.lesion_rule_of(name)
        }

    def foreground_mean(self, metric: str) -> float:
        """Return the mean over classes of their means over cases; NaN if no class has one.

        Regions do not enter: they are made of the classes.
        """
        known = self.class_means(metric)
        return float(np.mean(known)) if known else float("nan")

    def class_means(self, metric: str) -> list[float]:
        """Return the means of the classes that have one."""
        figures = [self.summaries[name].get(metric) for name in self.class_values]
        return [one.mean for one in figures if one is not None and not np.isnan(one.mean)]
