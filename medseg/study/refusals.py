"""What is wrong with the YAML of a study, in words, all of it at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.core.errors import suggestion
from medseg.study.flags import SHORT_NAMES, full, word
from medseg.study.roles import ROLES, wrong_roles
from medseg.study.spending import BATCH_SIZE, wrong_budget, wrong_halving
from medseg.study.strict_yaml import canonical

KEYS = (
    "name", "config", "fixed", "variants", "grid", "seeds", "exclude", "budget", "halving",
    "probes", *ROLES,
)  # fmt: skip


def wrong_study(content: Mapping[str, Any]) -> list[str]:
    """Return every problem of the content of a study's YAML."""
    found = [f"unknown key {key!r}.{suggestion(key, KEYS)}" for key in content if key not in KEYS]
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
    variants = content.get("variants")
    found += wrong_variants(variants, full(grid))
    named = [SHORT_NAMES.get(name, name) for name in (*grid, *fixed)]
    twice = sorted({name for name in named if named.count(name) > 1})
    found += [f"{name} is named twice, in grid and fixed or by both of its names" for name in twice]
    values = {flag: [value] for flag, value in full(fixed).items()} | full(grid)
    changes = _changes(variants, values, full(grid))
    found += wrong_roles(content, {*named, *changes})
    # A size that only some variants give leaves the others' budget open.
    values |= {
        flag: tried for flag, tried in changes.items() if flag in values or flag != BATCH_SIZE
    }
    wrong = wrong_budget(content, values)
    found += wrong or wrong_halving(content, full(grid))
    if not isinstance(content.get("probes", False), bool):
        found.append(f"probes: true or false is needed; got {content['probes']!r}")
    if not isinstance(exclude, list):
        return [*found, f"exclude: a list of combinations is needed; got {exclude!r}"]
    choices = {**changes, **full(grid)}
    return found + [text for part in exclude for text in _wrong_exclusion(part, choices)]


def wrong_variants(variants: Any, grid: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the list of changes, of which each is made alone."""
    if variants is None:
        return []
    if not isinstance(variants, list) or not variants or not all(map(_is_flags, variants)):
        return [f"variants: a list of flags and their values is needed; got {variants!r}"]
    both = sorted({flag for variant in variants for flag in full(variant)} & set(grid))
    found = [f"{flag} is named in variants and in grid" for flag in both]
    twice = [variant for variant in variants if len(full(variant)) < len(variant)]
    return found + [f"variants {variant!r} gives a flag by both of its names" for variant in twice]


def _changes(
    variants: Any, values: Mapping[str, Any], grid: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """Return all values of the flags that variants change, with the fixed one before."""
    changes: dict[str, list[Any]] = {}
    for variant in filter(_is_flags, variants if isinstance(variants, list) else []):
        for flag, value in full(variant).items():
            if flag not in grid:
                changes.setdefault(flag, list(values.get(flag, []))).append(value)
    return changes


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
