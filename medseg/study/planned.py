"""What is planned of a study: each run with its folder, its configuration and what is left."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError, OptionError, problems
from medseg.core.manifest import Manifest, load_manifest
from medseg.core.runs import RunFiles, write_json
from medseg.networks.unet import Architecture, check_architecture
from medseg.study.flags import PROBES
from medseg.study.grid import Run
from medseg.study.resolving import Resolver
from medseg.training.callbacks import divergence_of

ASKED = "study.json"
"""In each run's folder: what was asked of it, and how its last attempt ended."""

AFTER = "after"
"""The step in which a study measures what it has trained; no verb of its own."""

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class Planned:
    """A run that can be trained.

    Attributes:
        run: What is asked.
        files: Where it lies.
        settings: The resolved configuration.
    """

    run: Run
    files: RunFiles
    settings: dict[str, Any]

    @property
    def state(self) -> str:
        """`scored`, `trained`, `diverged` (without weights to score), `interrupted` or `new`."""
        fitted = self.fitted
        kept = (self.files.checkpoints / "last.ckpt").is_file()
        if fitted and self.divergence and not kept:
            return "diverged"
        if fitted and (self.divergence or not fitted["interrupted"]):
            return "trained" if any(self._rest()) else "scored"
        return "interrupted" if kept else "new"

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in ("scored", "diverged")

    @property
    def divergence(self) -> str:
        """Why its training ended in a divergence, in words; empty if it did not."""
        return divergence_of(self.files)

    @property
    def fitted(self) -> dict[str, Any]:
        """Content of fit.json."""
        return read_record(self.files.fit)

    @property
    def fold(self) -> int:
        """The fold it is validated on."""
        return int(self.settings["data"]["fold"])

    @property
    def reported(self) -> int:
        """The fold it is scored on."""
        return self.fold if self.run.reported is None else self.run.reported

    @property
    def why_not(self) -> str:
        """Why it has no scores, in words."""
        record = self.record
        if self.state == "diverged":
            return f"diverged: {self.divergence}"
        if record.get("status") == "failed":
            return f"{record['command']} ended with status {record['exit_code']}"
        return "not done"

    @property
    def record(self) -> dict[str, Any]:
        """What study.json says of its last attempt: status, command, exit code, last line."""
        return read_record(self.files.run_dir / ASKED)

    def note(self, **outcome: Any) -> None:
        """Write what is asked of it and how far it came."""
        asked = {"digest": self.run.digest, "cell": dict(self.run.cell)}
        write_json(self.files.run_dir / ASKED, {**asked, **outcome})

    @property
    def data(self) -> list[str]:
        """Flags that name the cases that are predicted and scored."""
        data = self.settings["data"]
        root = ["--root", str(data["root"])] if data["root"] else []
        return ["--manifest", str(data["manifest"]), *root, "--fold", str(self.reported)]

    def steps(self) -> Iterator[list[str]]:
        """Yield the commands that are left to do."""
        place = ["--run_dir", str(self.files.run_dir)]
        if self.state in ("new", "interrupted"):
            resume = ["--ckpt_path", "last"] if self.state == "interrupted" else []
            yield ["fit", *self.run.arguments, *place, *resume]
        yield from self._rest()

    def _rest(self) -> Iterator[list[str]]:
        """Yield the commands that follow the training and are left to do."""
        files = self.files
        if not files.scores.is_file():
            # `last`: `best` was chosen on the very cases that are scored here.
            images = ["--input", *self.data[1:]]
            folder = ["--output", str(files.predictions)]
            yield ["predict", "--run", str(files.run_dir), "--checkpoint", "last", *images, *folder]
            scores = ["--predictions", str(files.predictions), "--output", str(files.scores)]
            yield ["evaluate", *scores, *self.data, "--workers", "1"]
        if self.run.fixed.get(PROBES) and not files.after.is_file():
            yield [AFTER]


def plan_runs(runs: Sequence[Run], output: Path, skip_impossible: bool = False) -> list[Planned]:
    """Return the runs with their configurations, all of them checked before any starts.

    Args:
        runs: What the study asks.
        output: Folder of the study.
        skip_impossible: Leave out, by name, runs that cannot be built, instead of refusing them.

    Raises:
        OptionError: If runs cannot be built, or a run's folder holds what was asked otherwise.
    """
    planned, impossible, changed, resolver = [], [], [], Resolver()
    for run in runs:
        entry = Planned(run, RunFiles(output / "runs" / run.name), resolver.resolve(run))
        try:
            _check(entry)
        except MedsegError as error:
            impossible.append(f"{run.name}: {error}")
            continue
        asked = entry.record
        if asked and asked["digest"] != run.digest:
            changed.append(run.name)
        planned.append(entry)
    _tell_impossible(impossible, skip_impossible and bool(planned))
    if changed:
        raise OptionError(
            f"{output} holds runs that were asked otherwise: {', '.join(changed[:5])}. "
            "Choose another --output, or undo the change of the configuration."
        )
    return planned


def _tell_impossible(found: Sequence[str], skip: bool) -> None:
    if found and not skip:
        raise OptionError(
            f"{problems('the study', found)}\nName such runs under `exclude`, or leave them out "
            "with --skip_impossible."
        )
    for text in found:
        log.warning("left out %s", text)


def _check(entry: Planned) -> None:
    """Check what can be known before a run starts: the network, its norm and the folds."""
    model, data = entry.settings["model"], entry.settings["data"]
    network = Architecture(**model["network"])
    groups, patch = model["norm_groups"], data["patch_size"]
    check_architecture(network, model["norm"], groups, patch, data["batch_size"])
    manifest = manifest_of(data)
    manifest.split(data["fold"], data["train_folds"])
    manifest.in_folds([entry.reported])


def manifest_of(data: Mapping[str, Any]) -> Manifest:
    """Return the data set of a configuration's section `data`."""
    return load_manifest(Path(data["manifest"]), data["root"] and Path(data["root"]))


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, nothing if it is not there."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
