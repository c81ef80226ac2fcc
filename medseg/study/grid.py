"""A study as a list of runs: one YAML, every combination of its values, each with a stable name."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.core.errors import OptionError, problems, suggestion
from medseg.study.strict_yaml import canonical, load_yaml

SHORT_NAMES = {
    "norm": "model.norm",
    "batch_size": "data.batch_size",
    "learning_rate": "model.optimization.learning_rate",
    "seed": "seed_everything",
    "fold": "data.fold",
    "dropout": "model.network.dropout",
}
"""Flags of `medseg fit` that a grid may name shortly."""

FOLD = SHORT_NAMES["fold"]
_KEYS = ("name", "config", "fixed", "grid", "exclude")


@dataclass(frozen=True)
class Run:
    """One training of a study.

    Attributes:
        cell: Value of each flag of the grid, by its full name.
        config: Configuration files of `medseg fit`, in order.
        fixed: Flags that all runs share.
    """

    cell: Mapping[str, Any]
    config: tuple[Path, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)

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
        return hashlib.sha256(json.dumps([texts, flags], sort_keys=True).encode()).hexdigest()[:16]


def word(value: Any) -> str:
    """Return a YAML value as one word of a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def name_of(cell: Mapping[str, Any]) -> str:
    """Return a cell as the name of a folder; short names where there are any."""
    short = {flag: name for name, flag in SHORT_NAMES.items()}
    parts = [f"{short.get(flag, flag)}={word(value)}" for flag, value in cell.items()]
    return re.sub(r"[^\w=,.+-]+", "_", ",".join(parts)) or "run"


def read_study(path: Path) -> list[Run]:
    """Return the runs of a study's YAML.

    Keys: `config`, files of `medseg fit` relative to this one; `fixed`, flags and their values;
    `grid`, flags and lists of values, of which every combination is a run; `exclude`, a list of
    combinations to be left out, each named by some of its values; `name`, for people.

    Raises:
        OptionError: With every problem of the file.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise OptionError(f"{path} must hold the keys {', '.join(_KEYS)}.")
    if found := _wrong(content):
        raise OptionError(problems(path, found))
    fixed = _full(content.get("fixed") or {})
    grid = _full(content["grid"])
    exclude = [_full(cell) for cell in content.get("exclude") or []]
    config = tuple(path.parent / name for name in content.get("config") or [])
    if missing := [str(file) for file in config if not file.is_file()]:
        raise OptionError(problems(path, [f"config {name}: no such file" for name in missing]))
    cells = (dict(zip(grid, row, strict=True)) for row in itertools.product(*grid.values()))
    runs = [Run(cell, config, fixed) for cell in cells if not any(map(cell_is(cell), exclude))]
    if not runs:
        raise OptionError(f"{path}: exclude leaves no run.")
    if found := _same_names(runs):
        raise OptionError(problems(path, found))
    return runs


def cell_is(cell: Mapping[str, Any]) -> Any:
    """Return the test whether a part of a cell belongs to this one."""
    return lambda part: all(
        canonical(cell[flag]) == canonical(value) for flag, value in part.items()
    )


def one_variant(config: Sequence[Path], folds: Sequence[int]) -> list[Run]:
    """Return the runs of a cross-validation of one configuration."""
    return [Run({FOLD: fold}, tuple(config)) for fold in folds]


def is_study(path: Path) -> bool:
    """Return whether a YAML is a study, not a configuration of `medseg fit`."""
    content = load_yaml(path)
    return isinstance(content, dict) and "grid" in content


def _full(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {SHORT_NAMES.get(name, name): value for name, value in flags.items()}


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


def _wrong(content: Mapping[str, Any]) -> list[str]:
    found = [f"unknown key {key!r}.{suggestion(key, _KEYS)}" for key in content if key not in _KEYS]
    config, exclude = content.get("config") or [], content.get("exclude") or []
    if not isinstance(config, list) or not all(isinstance(name, str) for name in config):
        found.append(f"config: a list of files is needed; got {config!r}")
    grid, fixed = content.get("grid") or {}, content.get("fixed") or {}
    if not _is_flags(fixed):
        found.append(f"fixed: flags and their values are needed; got {fixed!r}")
        fixed = {}
    if not _is_flags(grid) or not grid:
        return [*found, "`grid` must name at least one flag with a list of values"]
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            found.append(f"grid {name}: a list of values is needed; got {values!r}")
        elif len({canonical(value) for value in values}) < len(values):
            found.append(f"grid {name}: {values} names a value twice")
    full = [SHORT_NAMES.get(name, name) for name in (*grid, *fixed)]
    twice = sorted({name for name in full if full.count(name) > 1})
    found += [f"{name} is named twice, in grid and fixed or by both of its names" for name in twice]
    if not isinstance(exclude, list):
        return [*found, f"exclude: a list of combinations is needed; got {exclude!r}"]
    return found + [text for part in exclude for text in _wrong_exclusion(part, _full(grid))]


def _is_flags(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(name, str) for name in content)


def _wrong_exclusion(part: Any, grid: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with one combination that is to be left out."""
    where = f"exclude {part!r}: must give values of flags of the grid"
    if not _is_flags(part) or not part:
        return [where]
    found = []
    names = [*grid, *(short for short, flag in SHORT_NAMES.items() if flag in grid)]
    for name, value in part.items():
        values = grid.get(SHORT_NAMES.get(name, name))
        if values is None:
            found.append(f"{where}; {name!r} is none.{suggestion(name, names)}")
        elif isinstance(values, list) and canonical(value) not in map(canonical, values):
            near = suggestion(word(value), map(word, values))
            found.append(f"{where}; {name} has no value {value!r}.{near}")
    return found
