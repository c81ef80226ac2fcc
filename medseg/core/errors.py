"""Errors a user can act on, and the wording they share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class MedsegError(Exception):
    """The request cannot be done as asked; the message says what to do (exit status 2)."""


class OptionError(MedsegError):
    """An option, or a combination of options, is not possible."""


class ChoiceError(OptionError):
    """A name is none of those there are; the message says which there are."""


class ManifestError(MedsegError):
    """A manifest is wrong; the message lists every problem found."""


class GeometryError(MedsegError):
    """Shapes, spacings or grids do not fit together."""


class CheckpointError(MedsegError):
    """A checkpoint cannot be used, or contradicts what was asked."""


class VolumeError(MedsegError):
    """A volume is refused.

    Attributes:
        path: The file as the user named it.
        code: Stable short name of the reason, for instance `truncated`.
        cause: What is wrong.
        cure: What to do about it.
    """

    def __init__(self, path: object, code: str, cause: str, cure: str) -> None:
        super().__init__(f"{path}: {code}: {cause} ({cure})")
        self.path, self.code, self.cause, self.cure = str(path), code, cause, cure

    def __reduce__(self) -> tuple[type[VolumeError], tuple[str, str, str, str]]:
        """Pickle by fields, so that the error survives the way back from a worker process."""
        return type(self), (self.path, self.code, self.cause, self.cure)


def suggestion(word: str, choices: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest choice, or nothing."""
    near = difflib.get_close_matches(str(word), list(choices), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_choice(option: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        ChoiceError: If it is not; the message lists the choices and the nearest one.
    """
    names = list(choices)
    if value in names:
        return value
    raise ChoiceError(
        f"{option} must be one of {', '.join(names)}; got {value!r}.{suggestion(value, names)}"
    )


def problems(subject: object, found: Sequence[str], most: int | None = None, rest: str = "") -> str:
    """Word a list of problems: a heading with their number, then one line each.

    Args:
        subject: What has them.
        found: All of them.
        most: How many are named; all if None.
        rest: What is said of the others beside their number.
    """
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    lines = [f"  - {line}" for line in found[:most]]
    if len(lines) < len(found):
        lines.append(f"  - … and {len(found) - len(lines)} more{rest}")
    return "\n".join([f"{subject} has {count}:", *lines])
