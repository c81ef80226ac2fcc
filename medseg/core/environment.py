"""What a result was made with: versions, devices, git commit."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from medseg import __version__

PACKAGES = (
    "torch", "monai", "pytorch-lightning", "numpy", "scipy", "nibabel", "SimpleITK",
    "safetensors", "jsonargparse", "matplotlib", "tensorboard",
)  # fmt: skip


@dataclass(frozen=True)
class EnvOptions:
    """Options of `medseg env`; there are none."""


def versions() -> dict[str, str]:
    """Return the version of Python and of each package that is installed."""
    found = {"medseg": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path | None = None) -> str | None:
    """Return the commit of the checkout that medseg runs from, `+` if it was changed since."""
    where = folder or Path(__file__).parent
    try:
        head = _git(where, "rev-parse", "--short=12", "HEAD")
        changed = _git(where, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}+" if changed else head


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    return done.stdout.strip()
