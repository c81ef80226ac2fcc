"""Which folds a cross-validation runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.core.errors import OptionError, problems
from medseg.core.manifest import Manifest
from medseg.study.grid import Run, one_variant


def cross_validation(config: Sequence[Path], manifest: Manifest, asked: str) -> list[Run]:
    """Return one run for each fold that is asked for.

    Each run trains on all other folds of the manifest, whether they are asked for or not.

    Raises:
        OptionError: If the folds cannot be read, or are not the manifest's.
    """
    present = manifest.present_folds()
    folds = list(present) if asked == "all" else _parsed(asked, manifest.folds, present)
    if len(folds) < 2:
        raise OptionError(
            f"--folds {asked}: a cross-validation needs at least two of the manifest's "
            f"folds, {list(manifest.folds)}. Draw them by medseg manifest --folds 5."
        )
    return one_variant(config, folds)


def _parsed(asked: str, known: Sequence[int], present: Sequence[int]) -> list[int]:
    found, folds = [], []
    for text in (part.strip() for part in asked.split(",")):
        if not (text.isascii() and text.isdigit()):
            found.append(f"{text!r} is no fold; folds are numbers such as 0,1,2, or all")
        elif (fold := int(text)) in folds:
            found.append(f"fold {fold} is named twice")
        elif fold not in known:
            found.append(f"fold {fold} is not one of the manifest's, {list(known)}")
        elif fold not in present:
            found.append(f"none of the files of fold {fold} is there")
        else:
            folds.append(fold)
    if found:
        raise OptionError(problems(f"--folds {asked}", found))
    return folds
