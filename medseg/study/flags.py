"""Flags of `medseg fit` as a study names them: short names, words, names of folders."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

SHORT_NAMES = {
    "norm": "model.norm",
    "batch_size": "data.batch_size",
    "learning_rate": "model.optimization.learning_rate",
    "seed": "seed_everything",
    "fold": "data.fold",
    "dropout": "model.network.dropout",
    "init_scale": "model.network.init_scale",
}
"""Flags of `medseg fit` that a grid may name shortly."""

FOLD = SHORT_NAMES["fold"]
PROBES = "probes"


def word(value: Any) -> str:
    """Return a YAML value as one word of a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def name_of(cell: Mapping[str, Any]) -> str:
    """Return a cell as the name of a folder; short names where there are any."""
    short = {flag: name for name, flag in SHORT_NAMES.items()}
    parts = [f"{short.get(flag, flag)}={word(value)}" for flag, value in cell.items()]
    return re.sub(r"[^\w=,.+-]+", "_", ",".join(parts)) or "run"


def setting(settings: Any, flag: str) -> Any:
    """Return what a resolved configuration says of a flag.

    Raises:
        LookupError: If it says nothing of it.
        TypeError: If what the flag is a part of has no parts, being null for one.
    """
    for name in flag.split("."):
        settings = settings[name]
    return settings


def told(settings: Any, flag: str) -> Any:
    """Return what a resolved configuration says of a flag; None if it has no place for it."""
    try:
        return setting(settings, flag)
    except (LookupError, TypeError):
        return None


def is_part(flag: str, whole: str) -> bool:
    """Return whether one flag is a part of another, as `model.norm` of `model`."""
    return flag.startswith(f"{whole}.")


def full(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return flags by their full names."""
    return {SHORT_NAMES.get(name, name): value for name, value in flags.items()}
