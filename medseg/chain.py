"""The commands of one run, one after the other in one process: PyTorch is imported once."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from medseg.cli import main
from medseg.core.errors import MedsegError
from medseg.core.runs import RunFiles
from medseg.study.after import measure_after
from medseg.study.planned import AFTER, read_record


def do_commands(
    run_dir: Path, commands: Sequence[Sequence[str]], begun: Callable[[str], None]
) -> int:
    """Do commands until one fails; each writes to its own log in the run's folder.

    A training that diverged is a result: where it had kept weights, they are scored as they are.

    Args:
        run_dir: The run's folder.
        commands: Verbs of medseg with their flags, and `AFTER`.
        begun: Told each verb as it begins.

    Returns:
        The exit status of the last command; 0 after a divergence.
    """
    files = RunFiles(run_dir)
    for command in commands:
        begun(command[0])
        with (run_dir / f"{command[0]}.log").open("ab") as log:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(log.fileno(), stream.fileno())
        code = _measure(run_dir) if command[0] == AFTER else main(command)
        if command[0] == "fit" and read_record(files.fit).get("diverged"):
            if not any(files.checkpoints.glob("*.ckpt")):
                return 0
        elif code:
            return code
    return 0


def _measure(run_dir: Path) -> int:
    try:
        measure_after(run_dir)
    except MedsegError as error:
        sys.stderr.write(f"{AFTER}: {error}\n")
        return 2
    return 0


def _run() -> int:
    told = os.dup(sys.stdout.fileno())

    def begun(verb: str) -> None:
        with contextlib.suppress(OSError):  # the study may have been killed
            os.write(told, f"{verb}\n".encode())

    commands = json.loads(sys.argv[2])
    if "LOCAL_RANK" in os.environ:  # Lightning starts this again on each further device
        commands = commands[:1]
    return do_commands(Path(sys.argv[1]), commands, begun)


if __name__ == "__main__":
    sys.exit(_run())
