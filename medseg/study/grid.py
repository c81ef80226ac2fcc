"""A study as a list of runs: one YAML, every combination of its values, each with a stable name."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.core.errors import OptionError, problems
from medseg.study.flags import FOLD, PROBES, SHORT_NAMES, full, name_of, word
from medseg.study.refusals import KEYS, wrong_study
from medseg.study.roles import reported_fold, role_flags
from medseg.study.spending import BATCH_SIZE, budget_flags
from medseg.study.strict_yaml import canonical, load_yaml


@dataclass(frozen=True)
class Run:
    """One training of a study.

    Attributes:
        cell: Value of each flag of the grid, by its full name.
        config: Configuration files of `medseg fit`, in order.
        fixed: Flags that all runs share.
        reported: Fold that is predicted and scored; None: the one the training validates on.
        rungs: Validations after which the worse half of the learning rates stops.
    """

    cell: Mapping[str, Any]
    config: tuple[Path, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    reported: int | None = None
    rungs: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Name of its folder: the cell, such as `norm=batch,fold=1`."""
        return name_of(self.cell)

    @property
    def variant(self) -> str:
        """The cell without its fold: runs of one variant are one cross-validation."""
        return name_of({flag: value for flag, value in self.cell.items() if flag != FOLD})

    @property
    def arguments(self) -> list[str]:
        """What follows `medseg fit`, the run directory left out."""
        files = [text for path in self.config for text in ("--config", str(path))]
        flags = {**self.fixed, **self.cell}
        return files + [
            text for flag, value in flags.items() for text in (f"--{flag}", word(value))
        ]

    @property
    def digest(self) -> str:
        """Hash of all that is asked of the training, the files' content included."""
        texts = [path.read_text(encoding="utf-8") for path in self.config]
        flags = {flag: word(value) for flag, value in {**self.fixed, **self.cell}.items()}
        asked = [texts, flags, *([] if self.reported is None else [self.reported])]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def read_study(path: Path) -> list[Run]:
    """Return the runs of a study's YAML.

    Keys: `config`, files of `medseg fit` relative to this one; `fixed`, flags and their values;
    `grid`, flags and lists of values, of which every combination is a run; `variants`, a list of
    flags and their values, each made alone with every combination; `seeds`, short for the grid's
    seed; `exclude`, a list of combinations to be left out, each named by some of its values;
    `train`, `choose` and `report`, the roles of folds; `budget`, the `samples` or `steps` of each
    training and its `validations`; `halving`, the validations after which the worse half of the
    learning rates stops; `probes`, whether trainings are watched and their networks
    measured; `name`, for people.

    Raises:
        OptionError: With every problem of the file.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise OptionError(f"{path} must hold the keys {', '.join(KEYS)}.")
    return runs_of(content, path)


def runs_of(content: Mapping[str, Any], path: Path) -> list[Run]:
    """Return the runs of the content of a study's YAML; see `read_study`.

    Args:
        content: The YAML.
        path: Where it lies: files are relative to it.

    Raises:
        OptionError: With every problem of the content.
    """
    content = _with_seeds(content)
    if found := wrong_study(content):
        raise OptionError(problems(path, found))
    fixed = {**full(content.get("fixed") or {}), **role_flags(content)}
    if content.get("probes"):
        fixed[PROBES] = True
    reported = reported_fold(content)
    grid = full(content["grid"])
    exclude = [full(cell) for cell in content.get("exclude") or []]
    config = tuple(path.parent / name for name in content.get("config") or [])
    if missing := [str(file) for file in config if not file.is_file()]:
        raise OptionError(problems(path, [f"config {name}: no such file" for name in missing]))
    rows = [dict(zip(grid, row, strict=True)) for row in itertools.product(*grid.values())]
    variants = map(full, content.get("variants") or [{}])
    cells = ({**variant, **row} for variant in variants for row in rows)
    kept = (cell for cell in cells if not any(map(cell_is(cell), exclude)))
    runs = []
    for cell in kept:
        size = {**fixed, **cell}.get(BATCH_SIZE)
        flags = {**fixed, **budget_flags(content, size)}
        runs.append(Run(cell, config, flags, reported, tuple(content.get("halving", ()))))
    if not runs:
        raise OptionError(f"{path}: exclude leaves no run.")
    if found := _same_names(runs):
        raise OptionError(problems(path, found))
    return runs


def cell_is(cell: Mapping[str, Any]) -> Any:
    """Return the test whether a part of a cell belongs to this one."""
    return lambda part: all(
        flag in cell and canonical(cell[flag]) == canonical(value) for flag, value in part.items()
    )


def one_variant(config: Sequence[Path], folds: Sequence[int]) -> list[Run]:
    """Return the runs of a cross-validation of one configuration."""
    return [Run({FOLD: fold}, tuple(config)) for fold in folds]


def is_study(path: Path) -> bool:
    """Return whether a YAML is a study, not a configuration of `medseg fit`."""
    content = load_yaml(path)
    return isinstance(content, dict) and "grid" in content


def _with_seeds(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a study with its `seeds` as the last axis of its grid."""
    grid = content.get("grid")
    if "seeds" not in content or not isinstance(grid, dict):
        return content
    others = {key: value for key, value in content.items() if key != "seeds"}
    # A seed of the grid stays beside it, under the other name, to be refused.
    name = SHORT_NAMES["seed"] if "seed" in grid else "seed"
    return {**others, "grid": {**grid, name: content["seeds"]}}


def _same_names(runs: Sequence[Run]) -> list[str]:
    cells: dict[str, Run] = {}
    found = []
    for run in runs:
        # Some file systems do not tell upper from lower case.
        other = cells.setdefault(run.name.lower(), run)
        if other is not run:
            both = f"{dict(other.cell)} and {dict(run.cell)}"
            found.append(f"{both} would share the folder {run.name}")
    return found
