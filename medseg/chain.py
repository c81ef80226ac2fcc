"""The commands of one run, one after the other in one process: PyTorch is imported once.

`python -m medseg.chain RUN_DIR COMMANDS` does them; `python -m medseg.chain --serve DESCRIPTOR` is
a server that forks such processes, so that a study imports PyTorch once for all of its runs.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from medseg.cli import main
from medseg.core.errors import MedsegError
from medseg.core.runs import RunFiles
from medseg.engine.forking import serve
from medseg.study.after import measure_after
from medseg.study.planned import AFTER, read_record

SERVE = "--serve"

PRELOADED = ("medseg.training.cli", "medseg.inference.folder", "medseg.evaluation.evaluate")
"""What the verbs of a run import besides this module; none of it asks for a GPU or begins threads
of PyTorch, neither of which would survive a fork."""


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


def _serve() -> bool:
    """Fork processes for others; return whether this is one of them, with its own arguments."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # or the first collection in each process would write to all shared pages
    arguments = serve(int(sys.argv[2]))
    # As if started so: Lightning starts it again by these words on each further device.
    sys.argv[1:] = arguments or []
    return arguments is not None


if __name__ == "__main__" and (sys.argv[1] != SERVE or _serve()):
    sys.exit(_run())
