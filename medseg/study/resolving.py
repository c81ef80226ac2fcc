"""What `medseg fit` understands of a run's flags: its whole configuration."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Mapping
from typing import Any

import yaml

from medseg.core.errors import OptionError
from medseg.study.flags import is_part, setting, word
from medseg.study.grid import Run
from medseg.training.cli import fit

Settings = dict[str, Any]


def resolved(run: Run) -> Settings:
    """Return the whole configuration of a run, as `medseg fit` understands it.

    Raises:
        OptionError: If it does not.
    """
    text, told = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(told):
            fit([*run.arguments, "--print_config"])
    except SystemExit as end:
        if end.code:
            reason = told.getvalue().strip().splitlines()[-1:] or ["unknown"]
            raise OptionError(f"run {run.name}: {reason[0]}") from end
    settings: Settings = yaml.safe_load(text.getvalue())
    return settings


class Resolver:
    """Resolves the runs of one study: every value of a flag is parsed once, not once a run."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Settings] = {}

    def resolve(self, run: Run) -> Settings:
        """Return the same as `resolved`.

        Raises:
            OptionError: As `resolved` does.
        """
        flags = {**run.fixed, **run.cell}
        if _overlap(flags):
            return resolved(run)
        settings = copy.deepcopy(self._parsed(run, {}))
        try:
            for flag, value in flags.items():
                _set(settings, flag, setting(self._parsed(run, {flag: value}), flag))
        except (LookupError, TypeError):  # part of something that the configuration leaves out
            return resolved(run)
        return settings

    def _parsed(self, run: Run, flags: Mapping[str, Any]) -> Settings:
        key = (run.config, *((flag, word(value)) for flag, value in flags.items()))
        if key not in self._known:
            self._known[key] = resolved(Run(flags, run.config))
        return self._known[key]


def _overlap(flags: Mapping[str, Any]) -> bool:
    """Return whether one flag is a part of another."""
    return any(is_part(one, other) for one in flags for other in flags)


def _set(settings: Settings, flag: str, value: Any) -> None:
    path, _, last = flag.rpartition(".")
    section = setting(settings, path) if path else settings
    section[last] = value
