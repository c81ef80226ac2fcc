"""What was asked against what a checkpoint was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.core.errors import CheckpointError
from medseg.networks.checkpoint import Description
from medseg.networks.norms import interchangeable, uses_groups

_NOT_COMPARED = ("val_cases", "earlier_cases", "mirror_axes")


def refuse_contradictions(asked: Description, there: Description, with_data: bool = True) -> None:
    """Compare two descriptions.

    Args:
        asked: Of the module at hand.
        there: Of the checkpoint.
        with_data: Also compare patch, batch, preprocessing and cases, as a resumed run must.

    Raises:
        CheckpointError: With every contradiction, by flag.
    """
    here, kept = asked.to_primitives(), there.to_primitives()
    pairs: dict[str, tuple[Any, Any]] = {}
    if with_data or not interchangeable(asked.norm, there.norm):
        pairs["model.norm"] = asked.norm, there.norm
    if uses_groups(asked.norm):
        pairs["model.norm_groups"] = (asked.norm_groups, there.norm_groups)
    for key, value in here["architecture"].items():
        pairs[f"model.network.{key}"] = (value, kept["architecture"].get(key))
    names = [key for key in asked.task if key not in _NOT_COMPARED]
    for key in names if with_data else ("channel_names", "labels"):
        pairs[f"data.{key}"] = (asked.task[key], there.task.get(key))
    refuse_differences(pairs)


def refuse_differences(pairs: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse settings that differ from a checkpoint's.

    Args:
        pairs: By flag: what was asked, what the checkpoint has.

    Raises:
        CheckpointError: With every difference.
    """
    found = []
    for flag, (asked, kept) in pairs.items():
        if plain(asked) != plain(kept):
            name = flag.rsplit(".", 1)[-1]
            shown = f"{name} {kept!r}" if len(str(kept)) < 100 else f"other {name}"
            value = str(asked) if len(str(asked)) < 100 else "…"
            found.append(f"--{flag} {value} contradicts the checkpoint ({shown}).")
    if found:
        raise CheckpointError(" ".join([*found, "Drop the flag, or train again."]))


def plain(value: Any) -> Any:
    """Return tuples as lists, which is all that differs after a file was written and read."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value
