"""What is planned of a study: each run with its folder, its configuration and what is left."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from medseg.core.errors import ChoiceError, MedsegError, OptionError, problems
from medseg.core.manifest import Manifest, load_manifest
from medseg.core.runs import RunFiles, write_json
from medseg.networks.unet import Architecture, check_architecture
from medseg.study.flags import FOLD, PROBES
from medseg.study.grid import Run
from medseg.study.held_back import of_another_fold, without_held_back
from medseg.study.needs import Memory, step_of
from medseg.study.resolving import Resolver

ASKED = "study.json"
"""In each run's folder: what was asked of it, and how its last attempt ended."""

HALVED: Final = "halved"
"""State and status of a run whose learning rate was behind; see `medseg.study.halving`."""

LoadManifest = Callable[[Path, Path | None], Manifest]

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
        """`scored`, `trained`, `diverged` (without weights), `halved`, `interrupted` or `new`."""
        fitted = self.fitted
        kept = (self.files.checkpoints / "last.ckpt").is_file()
        diverged = bool(fitted.get("diverged"))
        if diverged and not kept:
            return "diverged"
        if fitted and (diverged or not fitted["interrupted"]):
            return "scored" if self.has_scores and self._is_measured else "trained"
        if self.run.rungs and self.record.get("status") == HALVED:
            return HALVED
        return "interrupted" if kept else "new"

    @property
    def has_scores(self) -> bool:
        """Whether the reported cases are scored."""
        return self.files.scores.is_file()

    @property
    def _is_measured(self) -> bool:
        return not self.run.fixed.get(PROBES) or self.files.after.is_file()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in ("scored", "diverged", HALVED)

    @property
    def divergence(self) -> str:
        """Why its training ended in a divergence, in words; empty if it did not."""
        return str(self.fitted.get("diverged", ""))

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
        if self.state == HALVED:
            return f"halved away: {record['reason']}"
        if record.get("status") == "failed":
            return f"{record['command']} ended with status {record['exit_code']}"
        return "not done"

    @property
    def record(self) -> dict[str, Any]:
        """What study.json says: status, command, exit code and last line of its last attempt.

        And the `seconds` of all its attempts, from start to end; null where nobody saw one end.
        """
        return read_record(self.files.run_dir / ASKED)

    def note(self, **outcome: Any) -> None:
        """Write what is asked of it and how far it came; the seconds spent stay noted."""
        asked = {"digest": self.run.digest, "cell": dict(self.run.cell)}
        spent = {"seconds": self.record.get("seconds")}
        write_json(self.files.run_dir / ASKED, {**asked, **spent, **outcome})

    @property
    def data(self) -> list[str]:
        """Flags that name the cases that are predicted and scored."""
        data = self.settings["data"]
        root = ["--root", str(data["root"])] if data["root"] else []
        return ["--manifest", str(data["manifest"]), *root, "--fold", str(self.reported)]

    def steps(self, pause_after: int | None = None) -> Iterator[list[str]]:
        """Yield the commands that are left to do, or only the training up to a pause.

        Args:
            pause_after: Epochs after which the training is to pause.
        """
        place = ["--run_dir", str(self.files.run_dir)]
        if self.state in ("new", "interrupted"):
            resume = ["--ckpt_path", "last"] if self.state == "interrupted" else []
            pause = ["--pause_after_epochs", str(pause_after)] if pause_after else []
            yield ["fit", *self.run.arguments, *place, *resume, *pause]
        if not pause_after:
            yield from self._rest()

    def _rest(self) -> Iterator[list[str]]:
        """Yield the commands that follow the training and are left to do."""
        files = self.files
        if not self.has_scores:
            # `last`: `best` was chosen on the very cases that are scored here.
            images = ["--input", *self.data[1:]]
            folder = ["--output", str(files.predictions)]
            yield ["predict", "--run", str(files.run_dir), "--checkpoint", "last", *images, *folder]
            scores = ["--predictions", str(files.predictions), "--output", str(files.scores)]
            yield ["evaluate", *scores, *self.data, "--workers", "1"]
        if not self._is_measured:
            yield [AFTER]


@dataclass(frozen=True)
class LeftOut:
    """A run that cannot be trained.

    Attributes:
        name: Of its folder.
        settings: The resolved configuration.
        reason: Why not, in words.
    """

    name: str
    settings: Mapping[str, Any]
    reason: str


@dataclass(frozen=True)
class Plan:
    """All runs of a study.

    Attributes:
        runs: That can be trained.
        left_out: That cannot.
    """

    runs: list[Planned]
    left_out: list[LeftOut]


def plan_runs(runs: Sequence[Run], output: Path, skip_impossible: bool = False) -> Plan:
    """Return the runs with their configurations, all of them checked before any starts.

    Args:
        runs: What the study asks.
        output: Folder of the study.
        skip_impossible: Leave out, by name, runs that cannot be built, instead of refusing them.

    Raises:
        ChoiceError: If a name is unknown, a norm's for one; such a run is never left out.
        OptionError: If runs cannot be built, or a run's folder holds what was asked otherwise.
    """
    plan, changed, resolver, memory = Plan([], []), [], Resolver(), Memory()
    load = functools.cache(load_manifest)  # runs of one study share their data
    held_back: set[int] = set()
    varied = {run.cell[FOLD] for run in runs if FOLD in run.cell}
    for run in runs:
        entry = Planned(run, RunFiles(output / "runs" / run.name), resolver.resolve(run))
        try:
            manifest = manifest_of(entry.settings["data"], load)
            if of_another_fold(run, entry.settings["data"], varied):
                entry = _trained_on(None, entry)
            if (folds := without_held_back(entry.settings["data"], manifest)) is not None:
                entry = _trained_on(folds, entry)
                held_back |= {*manifest.folds} - {*folds, entry.fold}
            _check(entry, memory, manifest)
        except ChoiceError:  # a slip of the pen, not a run to be left out
            raise
        except MedsegError as error:
            plan.left_out.append(LeftOut(run.name, entry.settings, str(error)))
            continue
        asked = entry.record
        if asked and asked["digest"] != entry.run.digest:
            changed.append(run.name)
        plan.runs.append(entry)
    if held_back:
        log.warning("folds %s are not trained on: none of their files is there", sorted(held_back))
    _tell_impossible(plan, skip_impossible)
    if changed:
        raise OptionError(
            f"{output} holds runs that were asked otherwise: {', '.join(changed[:5])}. "
            "Choose another --output, or undo the change of the configuration."
        )
    return plan


def _tell_impossible(plan: Plan, skip: bool) -> None:
    found = [f"{cell.name}: {cell.reason}" for cell in plan.left_out]
    if found and not plan.runs:
        raise OptionError(f"{problems('the study', found)}\nNo run is left: change its settings.")
    if found and not skip:
        raise OptionError(
            f"{problems('the study', found)}\nName such runs under `exclude`, or leave them out "
            "with --skip_impossible."
        )
    for text in found:
        log.warning("left out %s", text)


def _trained_on(folds: list[int] | None, entry: Planned) -> Planned:
    flag = {"data.train_folds": folds}
    data = {**entry.settings["data"], "train_folds": folds}
    return replace(
        entry,
        run=replace(entry.run, fixed={**entry.run.fixed, **flag}),
        settings={**entry.settings, "data": data},
    )


def _check(entry: Planned, memory: Memory, manifest: Manifest) -> None:
    """Check what can be known before a run starts: network and norm, folds, memory."""
    model, data = entry.settings["model"], entry.settings["data"]
    network = Architecture(**model["network"])
    groups, patch = model["norm_groups"], data["patch_size"]
    check_architecture(network, model["norm"], groups, patch, data["batch_size"])
    manifest.split(data["fold"], data["train_folds"])
    manifest.in_folds([entry.reported])
    memory.check(step_of(entry.settings, manifest))


def manifest_of(data: Mapping[str, Any], load: LoadManifest = load_manifest) -> Manifest:
    """Return the data set of a configuration's section `data`."""
    return load(Path(data["manifest"]), data["root"] and Path(data["root"]))


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, nothing if it is not there."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
