"""Roles of folds: what trains a network, what its settings are chosen on, what is reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = ("train", "choose", "report")
FLAGS = {"train": "data.train_folds", "choose": "data.fold"}
"""Flags of `medseg fit` that roles set: what is chosen on is what the training validates on."""


def wrong_roles(content: Mapping[str, Any], flags: set[str]) -> list[str]:
    """Return what is wrong with the roles of a study's YAML.

    Args:
        content: The YAML.
        flags: Full names of the flags its grid and its fixed values give.
    """
    given = [role for role in ROLES if role in content]
    if not given:
        return []
    if missing := [role for role in ROLES if role not in content]:
        return [f"{', '.join(given)} without {', '.join(missing)}: roles of folds need all three"]
    found = [
        f"{role}: a list of folds is needed; got {content[role]!r}"
        for role in ROLES
        if not _are_folds(content[role])
    ]
    if found:
        return found
    # fit validates on one fold, and predict and evaluate take one.
    found = [
        f"{role}: one fold is needed; got {content[role]}"
        for role in ("choose", "report")
        if len(content[role]) > 1
    ]
    folds = [fold for role in ROLES for fold in content[role]]
    if twice := sorted({fold for fold in folds if folds.count(fold) > 1}):
        found.append(f"fold {', '.join(map(str, twice))} has two roles; roles must not overlap")
    found += [
        f"{flag} is set by the roles of the folds" for flag in FLAGS.values() if flag in flags
    ]
    return found


def role_flags(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags of `medseg fit` that follow from the roles."""
    if "train" not in content:
        return {}
    return {FLAGS["train"]: content["train"], FLAGS["choose"]: content["choose"][0]}


def reported_fold(content: Mapping[str, Any]) -> int | None:
    """Return the fold that is predicted and scored; None: the one the training validates on."""
    return content["report"][0] if "report" in content else None


def _are_folds(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(type(fold) is int for fold in given)
