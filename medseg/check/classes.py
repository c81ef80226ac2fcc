"""Which labels are unlike the others: classes that are absent, tiny, huge, or in pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from medseg.check.facts import SetFacts
from medseg.check.findings import Finding, finding
from medseg.check.outliers import FEWEST, deviations

FEW_VOXELS = 5
"""A class of so few voxels may be a slip of the brush, whatever the other cases hold."""

FAR = 5.0
"""Robust standard deviations of the logarithm of a volume; lesions vary by that already."""

NEAR = 2.0
"""Voxels: a piece so near is most likely the same structure, across a thin spot."""

UNLIKE = math.log(5.0)
"""And at least so far from the median volume."""

USUAL = 0.9
"""Share of the cases in which a class is there, or is one piece, if that is the rule."""


def class_names(facts: SetFacts) -> Mapping[int, str]:
    """Return the name of each foreground value of the table."""
    return {value: name for name, value in list(facts.manifest.labels.items())[1:]}


def class_volumes(facts: SetFacts) -> Iterator[Finding]:
    """Find classes that are tiny or huge in one case."""
    for value, name in class_names(facts).items():
        having = [(case, label) for case, label in facts.labelled if value in label.voxels]
        if not having:
            continue
        volumes = [math.log(label.voxels[value] * label.grid.voxel_volume_ml)
                   for _, label in having]  # fmt: skip
        distance, sigma = deviations(volumes)
        limit = max(FAR * sigma, UNLIKE) if len(having) >= FEWEST else math.inf
        for (case, label), far in zip(having, distance, strict=True):
            voxels = label.voxels[value]
            words = f"{label.file}: class {name!r} has {voxels} voxels"
            if math.isfinite(limit):
                words += f", {math.exp(far):.2g} times the usual volume"
            if voxels <= FEW_VOXELS or far < -limit:
                yield finding("warning", "tiny-label", case.job.case_id, words, label.file)
            elif far > limit:
                yield finding("warning", "huge-label", case.job.case_id, words, label.file)


def absent_classes(facts: SetFacts) -> Iterator[Finding]:
    """Find classes that are absent from a case, from a fold, or from all."""
    labelled = facts.labelled
    for value, name in class_names(facts).items():
        having = [case.job for case, label in labelled if value in label.voxels]
        if not having and labelled:
            words = f"class {name!r} (value {value}) occurs in none of {len(labelled)} labels"
            yield finding("warning", "class-never-occurs", "", words)
            continue
        if len(having) == 1 and len(labelled) >= FEWEST:
            words = f"class {name!r} occurs in this case alone of {len(labelled)}"
            yield finding("warning", "rare-class", having[0].case_id, words)
        elif len(labelled) >= FEWEST and _usual(len(having), len(labelled)):
            for case, label in labelled:
                if value not in label.voxels and label.voxels:
                    words = (
                        f"{label.file}: no voxel of class {name!r}, which nearly all others have"
                    )
                    yield finding("warning", "missing-class", case.job.case_id, words, label.file)
        folds = {case.job.fold for case, _ in labelled if case.job.fold is not None}
        for fold in sorted(folds - {job.fold for job in having}):
            words = f"fold {fold} has no case with class {name!r}; {len(having)} others have it"
            yield finding("warning", "fold-without-class", "", words)


def _usual(number: int, of: int) -> bool:
    """Return whether something is the rule: in nearly all cases, or in all but one."""
    return number >= min(USUAL * of, of - 1)


def stray_components(facts: SetFacts) -> Iterator[Finding]:
    """Find pieces apart of a class that is one piece in nearly all cases."""
    for value, name in class_names(facts).items():
        having = [(case, label) for case, label in facts.labelled if value in label.pieces]
        whole = sum(len(label.pieces[value]) == 1 for _, label in having)
        if len(having) < FEWEST or not _usual(whole, len(having)):
            continue
        for case, label in having:
            largest, *rest = label.pieces[value]
            if rest and label.gaps[value] > NEAR:
                words = (
                    f"{label.file}: class {name!r} has {len(rest)} pieces apart "
                    f"({int(np.sum(rest))} voxels beside {largest}, up to "
                    f"{label.gaps[value]:.3g} voxels away), where {whole} of {len(having)} cases "
                    "have one piece"
                )
                yield finding("warning", "stray-component", case.job.case_id, words, label.file)
