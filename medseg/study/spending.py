"""What each training of a study may spend: the same samples or the same steps for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.study.flags import SHORT_NAMES

KINDS = ("samples", "steps")
BATCH_SIZE = SHORT_NAMES["batch_size"]
FLAGS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_time", "data.steps_per_epoch")
"""Flags of `medseg fit` that a budget sets, or stands against."""

VALIDATIONS = 10
"""In each training, evenly spread over what is spent, if the study does not say."""


def wrong_budget(content: Mapping[str, Any], flags: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the budget of a study's YAML.

    Args:
        content: The YAML.
        flags: Full names of all flags that its grid and fixed values give, each with its values.
    """
    if "budget" not in content:
        return []
    given = content["budget"]
    counts = [*KINDS, "validations"]
    if not isinstance(given, dict) or not set(given) <= set(counts) or len(_kinds(given)) != 1:
        return [f"budget: give samples or steps, and validations if wanted; got {given!r}"]
    if wrong := [name for name, value in given.items() if type(value) is not int or value < 1]:
        return [f"budget {name}: a whole number above 0 is needed" for name in wrong]
    found = [f"{flag} is set by the budget" for flag in FLAGS if flag in flags]
    if BATCH_SIZE not in flags:
        return [*found, "budget: batch_size must be in the grid or fixed"]
    sizes = [size for size in flags[BATCH_SIZE] if type(size) is int and size > 0]
    whole = given.get("validations", VALIDATIONS)
    for size in sizes:
        steps = _steps(given, size)
        if steps % whole:
            found.append(
                f"budget: {whole} validations at batch size {size} need a number of steps that "
                f"{whole} divides; got {steps:g}"
            )
    return found


def wrong_halving(content: Mapping[str, Any], grid: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with `halving` in a study's YAML, whose budget is right.

    Args:
        content: The YAML.
        grid: Full names of the grid's flags, each with its values.
    """
    if "halving" not in content:
        return []
    if "budget" not in content:
        return ["halving: a budget is needed, whose validations it counts"]
    given, last = content["halving"], content["budget"].get("validations", VALIDATIONS)
    whole = isinstance(given, list) and given and all(type(rung) is int for rung in given)
    if not whole or sorted({*given}) != given or not 0 < given[0] <= given[-1] < last:
        return [
            f"halving: ascending numbers of validations below {last} are needed, as in [1]; got "
            f"{given!r}"
        ]
    rates = grid.get(SHORT_NAMES["learning_rate"])
    if not isinstance(rates, list) or len(rates) < 2:
        return ["halving: the grid must give at least two values of learning_rate"]
    return []


def budget_flags(content: Mapping[str, Any], batch_size: Any) -> dict[str, Any]:
    """Return the flags of `medseg fit` that spend the budget at one batch size."""
    if "budget" not in content:
        return {}
    given = content["budget"]
    steps = int(_steps(given, batch_size))
    return {
        "trainer.max_steps": steps,
        "trainer.max_epochs": -1,
        "data.steps_per_epoch": steps // given.get("validations", VALIDATIONS),
    }


def _kinds(given: Mapping[str, Any]) -> list[str]:
    return [kind for kind in KINDS if kind in given]


def _steps(given: Mapping[str, Any], batch_size: int) -> float:
    return float(given["steps"] if "steps" in given else given["samples"] / batch_size)
