"""A file that appears whole under its name, or not at all."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medseg.core.errors import VolumeError
from medseg.core.processes import lives
from medseg.core.runs import usual_mode

_MARK = re.compile(r"\.medseg-(?P<host>.+)-(?P<process>[0-9]+)-[^-]*\.tmp.*")
_ABANDONED = 24 * 3600.0
"""Seconds after which a temporary file of another host is nobody's; no volume takes so long."""


@contextmanager
def whole_file(
    path: Path, failures: tuple[type[Exception], ...] = (OSError,), cure: str = ""
) -> Iterator[Path]:
    """Give a temporary name in the folder of `path`, to be written, checked and then renamed.

    What lies at `path` is replaced; a link there is replaced and not followed.

    Args:
        path: The final name.
        failures: Errors of the writer that mean that it did not succeed.
        cure: What to do besides freeing space.

    Raises:
        VolumeError: `write-failed`, in place of any of `failures`; nothing is left behind then.
    """
    # The temporary name ends as the final one, since that is how some writers know the format.
    ending = "".join(Path(path.name[-8:]).suffixes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = f".medseg-{_host()}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(prefix=mark, suffix=f".tmp{ending}", dir=path.parent)
    except OSError as error:
        raise _failed(path, error, cure) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(usual_mode())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except failures as error:
        raise _failed(path, error, cure) from error
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Delete the temporary files that killed processes have left below a folder.

    Returns:
        How many there were.
    """
    swept = 0
    for place, _, names in os.walk(folder):
        for name in names:
            found = _MARK.fullmatch(name)
            if found and _is_abandoned(Path(place, name), found["host"], int(found["process"])):
                with suppress(OSError):
                    Path(place, name).unlink()
                    swept += 1
    return swept


def _is_abandoned(path: Path, host: str, process: int) -> bool:
    if host != _host():
        with suppress(OSError):
            return time.time() - path.stat().st_mtime > _ABANDONED
        return False
    return not lives(process)


def _host() -> str:
    """Return where a process id means something: containers may share a name, not their ids."""
    namespace = ""
    with suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return re.sub(r"[^A-Za-z0-9.]", "_", platform.node() + namespace)


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems cannot
    finally:
        os.close(handle)


def _failed(path: Path, error: Exception, cure: str) -> VolumeError:
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    cause = lines[-1] if lines else type(error).__name__
    return VolumeError(
        path, "write-failed", cause, cure or "see to space and permissions, or write elsewhere"
    )
