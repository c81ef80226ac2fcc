"""What is looked at across all cases: a table of checks, each a function of their facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from medseg.check import classes, duplicates, outliers, pairs
from medseg.check.facts import SetFacts
from medseg.check.findings import Finding

SET_CHECKS: tuple[Callable[[SetFacts], Iterator[Finding]], ...] = (
    duplicates.duplicate_images,
    duplicates.duplicate_labels,
    pairs.labels_of_others,
    pairs.swapped_labels,
    pairs.bad_fits,
    outliers.clipped_images,
    outliers.intensity_outliers,
    outliers.spacing_outliers,
    outliers.size_outliers,
    outliers.orientations,
    classes.class_volumes,
    classes.absent_classes,
    classes.stray_components,
)
"""Run once all cases were looked at, in this order; a new check is a function and a row."""
