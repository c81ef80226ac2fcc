"""`medseg fit` and `medseg validate`: the Lightning CLI, with a run directory around it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, RichProgressBar, Timer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException

from medseg.core.errors import OptionError
from medseg.core.manifest import load_manifest
from medseg.core.runs import RunFiles, make_writable
from medseg.data.datamodule import SegmentationData
from medseg.engine.progress import track
from medseg.networks.checkpoint import KEY, Description, load_content, load_trained
from medseg.networks.unet import Architecture, check_architecture
from medseg.training.advice import advice, settings_of
from medseg.training.bounds import refuse_endless
from medseg.training.budget import FiniteLoss, Pace
from medseg.training.callbacks import Curves, Record
from medseg.training.checkpoints import Checkpoints, Paused
from medseg.training.contradictions import refuse_contradictions
from medseg.training.fixed import fixed_settings, kept_settings, refuse_changes
from medseg.training.flags import add_flags
from medseg.training.module import SegmentationModule
from medseg.training.norm_statistics import NormStatistics
from medseg.training.pending import PendingValidation
from medseg.training.postprocessing import PostprocessingLearner
from medseg.training.probes import Probes
from medseg.training.rate_finder import suggest_learning_rate
from medseg.training.refusals import refuse_devices, refuse_flags, refuse_precision
from medseg.training.saved_config import SaveConfig, with_saved_config
from medseg.training.time_shares import TimeShares

log = logging.getLogger("medseg")


def fit(arguments: Sequence[str]) -> int:
    """Train; return 0, 130 after Ctrl-C or 143 after SIGTERM."""
    return _run("fit", arguments)


def validate(arguments: Sequence[str]) -> int:
    """Validate a run's checkpoint; return 0."""
    return _run("validate", arguments)


def _run(verb: str, arguments: Sequence[str]) -> int:
    previous = signal.getsignal(signal.SIGINT)
    try:
        with _without_hints():
            TrainingCLI(
                SegmentationModule,
                SegmentationData,
                args=[verb, *with_saved_config(verb, list(arguments))],
                seed_everything_default=0,
                save_config_callback=SaveConfig,
                auto_configure_optimizers=False,
                parser_kwargs={"prog": "medseg"},
            )
    except Paused:
        return 0
    except SIGTERMException:  # Lightning's is a SystemExit without a code: it would look like 0
        return 128 + signal.SIGTERM
    except SystemExit as end:
        if end.code == 1:  # how Lightning ends after Ctrl-C
            return 128 + signal.SIGINT
        raise
    finally:
        signal.signal(signal.SIGINT, previous)  # Lightning leaves it ignored
    return 0


@contextlib.contextmanager
def _without_hints() -> Iterator[None]:
    """Silence Lightning's hints (other products, worker counts, its own deprecations)."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric")
        yield


_RUN_DIR = "MEDSEG_RUN_DIR"
"""Tells the processes of further devices where the run lies, which may be named by the time."""


def _restarted() -> bool:
    """Return whether torchrun or SLURM started this command again after it was killed."""
    counts = (
        os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    )
    return any(count != "0" for count in counts)


class TrainingCLI(LightningCLI):
    """Lightning CLI with a run directory, checked before any work is done."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the verbs and the arguments of the trainer's methods that are not flags."""
        hidden = {"model", "datamodule", "train_dataloaders", "val_dataloaders", "dataloaders"}
        hidden |= {"verbose", "weights_only"}
        return {"fit": hidden, "validate": hidden}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our own flags."""
        add_flags(parser)
        parser.link_arguments("data.task", "model.task", apply_on="instantiate")
        parser.set_defaults({"trainer.num_sanity_val_steps": 0})

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would lay the checkpoint's settings over the flags silently."""

    @property
    def chosen(self) -> Any:
        """The settings of the verb at hand."""
        return self.config[self.subcommand]

    def before_instantiate_classes(self) -> None:
        """Check network, patch and run directory; choose the directory and the checkpoint."""
        chosen = self.chosen
        network = Architecture(**chosen.model.network.as_dict())
        check_architecture(
            network,
            chosen.model.norm,
            chosen.model.norm_groups,
            chosen.data.patch_size,
            chosen.data.batch_size,
        )
        self.files = RunFiles(chosen.run_dir or self._new_run_dir())
        # Lightning starts the processes of further devices with this one's command line.
        os.environ[_RUN_DIR] = str(self.files.run_dir)
        chosen.run_dir = self.files.run_dir
        if self.subcommand == "validate" and not chosen.ckpt_path:
            chosen.ckpt_path = "best"
        used = any(self.files.checkpoints.glob("*.ckpt"))
        if self.subcommand == "fit" and used and not chosen.ckpt_path and _restarted():
            log.info("started again by torchrun or SLURM: %s goes on", self.files.run_dir)
            chosen.ckpt_path = "last"
        if self.subcommand == "fit" and used and not chosen.ckpt_path:
            raise OptionError(
                f"{self.files.run_dir} already holds a run. Resume with --ckpt_path last, "
                "or choose another --run_dir."
            )
        refuse_flags(str(self.subcommand), chosen)
        if chosen.ckpt_path:
            chosen.ckpt_path = str(self.files.checkpoint(str(chosen.ckpt_path)))

    def _new_run_dir(self) -> Path:
        if self.subcommand != "fit":
            raise OptionError("validate needs --run_dir, the folder of a trained run.")
        if "LOCAL_RANK" in os.environ:
            if _RUN_DIR in os.environ:
                return Path(os.environ[_RUN_DIR])
            raise OptionError("under torchrun and SLURM fit needs --run_dir, the same for all.")
        name = load_manifest(self.chosen.data.manifest, self.chosen.data.root).name
        return Path("runs") / f"{name}_{self.chosen.model.norm}_{time.strftime('%Y%m%d-%H%M%S')}"

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Give the trainer our run directory, curves, checkpoints and record."""
        probes = Probes(self.files.probes) if self.chosen.probes else None
        curves = Curves(self.files.curves, probes)
        finite = FiniteLoss()
        checkpoints = Checkpoints(self.files.checkpoints, finite, self.chosen.pause_after_epochs)
        self.checkpoints = checkpoints
        learner = PostprocessingLearner(self.files.checkpoints)
        record = Record(self.files, curves, checkpoints, learner)
        # In this order: the clock stops, what was kept is learned from, all is recorded.
        self.pace = Pace()
        callbacks: list[Callback] = [finite, curves, checkpoints, PendingValidation(),
                                     self.pace, learner, record]  # fmt: skip
        if probes:
            callbacks.insert(1, probes)  # after FiniteLoss, before what writes its Dice
        if self.chosen.norm_statistics != "running":
            callbacks.append(NormStatistics(self.chosen.norm_statistics))
        settings = self.chosen.trainer
        if settings.max_time:  # before Pace, which asks whether it ends the training
            callbacks.insert(0, _timer(settings.max_time))
        self.trainer_defaults = {"callbacks": callbacks}
        if settings.profiler is None:
            kwargs["profiler"] = TimeShares()
        watched = sys.stderr.isatty()
        if settings.enable_progress_bar is None:
            kwargs["enable_progress_bar"] = watched
        if watched and settings.enable_progress_bar is not False:
            self.trainer_defaults["callbacks"].append(RichProgressBar())
        if settings.logger is None:
            kwargs["logger"] = self._logger()
        if settings.enable_model_summary is None:
            kwargs["enable_model_summary"] = False
        kwargs["default_root_dir"] = self.files.run_dir
        kwargs["enable_checkpointing"] = False  # ours are whole or absent, and synced to disk
        kwargs["use_distributed_sampler"] = False  # ours knows each device's patches
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            way = " Where PyTorch sees no GPU, take --trainer.accelerator cpu."
            found = str(settings.accelerator) in ("gpu", "cuda", "mps")
            raise OptionError(f"trainer: {error}{way if found else ''}") from error
        return trainer

    def _logger(self) -> TensorBoardLogger | bool:
        if self.subcommand != "fit" or importlib.util.find_spec("tensorboard") is None:
            return False
        return TensorBoardLogger(self.files.run_dir, name="tensorboard", version="")

    def after_instantiate_classes(self) -> None:
        """Refuse what contradicts devices or checkpoint; load the weights to start from."""
        refuse_devices(self.trainer, self.model, self.datamodule)
        refuse_precision(self.trainer, self.model)
        if self.subcommand == "fit":
            refuse_endless(self.trainer, self.model)
        self.datamodule.progress = track
        if self.chosen.ckpt_path:
            self._refuse_contradictions(load_content(Path(self.chosen.ckpt_path)))
        elif self.chosen.init_from:
            source = self.chosen.init_from
            path = RunFiles(source).checkpoint("best") if source.is_dir() else source
            self.model.load_weights(load_trained(path))

    def _refuse_contradictions(self, content: dict[str, Any]) -> None:
        there, here = Description.from_primitives(content[KEY]), self.model.description
        refuse_contradictions(here, there)
        if self.subcommand == "fit":
            kept = kept_settings(content)
            if self.chosen.seed_everything is False:  # drawn by nobody, and kept all the same
                self.datamodule.seed = kept.get("seed_everything", self.datamodule.seed)
            refuse_changes(self._fixed_settings(), kept)
            if earlier := there.task.get("earlier_cases"):
                here.task["earlier_cases"] = earlier
            # Only what all of the training mirrored.
            both = set(here.mirror_axes) & set(there.mirror_axes)
            here.task["mirror_axes"] = sorted(both)

    def _fixed_settings(self) -> dict[str, Any]:
        augmentation = _plain(self.chosen.data.augmentation)
        return fixed_settings(self.trainer, self.model, self.datamodule, augmentation)

    def before_fit(self) -> None:
        """Say where the run lies and what to think of; find the learning rate if asked."""
        make_writable("--run_dir", self.files.run_dir)
        count = sum(p.numel() for p in self.model.network.parameters())
        log.info("run directory: %s", self.files.run_dir)
        log.info("norm %s, %d parameters", self.model.description.norm, count)
        log.info("%d cases to train on, %d to validate on", len(self.datamodule.train_cases),
                 len(self.datamodule.val_cases))  # fmt: skip
        started = bool(self.chosen.init_from or self.chosen.ckpt_path)
        for sentence in advice(settings_of(self.trainer, self.model, self.datamodule, started)):
            log.warning("%s", sentence)
        if self.chosen.find_learning_rate:
            self._find_learning_rate()
        self.checkpoints.fixed = self._fixed_settings()

    def _find_learning_rate(self) -> None:
        """Run the range test; with `use`, train at its suggestion."""
        settings = _plain(self.chosen.trainer)
        found = suggest_learning_rate(self.model, self.datamodule, settings, self.files.run_dir)
        self.pace.found_learning_rate = found
        if self.chosen.find_learning_rate == "use":
            recipe = self.model.optimization
            self.model.optimization = dataclasses.replace(recipe, learning_rate=found)
            self.chosen.model.optimization.learning_rate = found

    def after_fit(self) -> None:
        """Say so if there was nothing to do."""
        if not self.pace.began:
            log.warning("nothing was left to train: the run had reached its max_time, max_steps or "
                        "max_epochs. Give it more to go on.")  # fmt: skip

    def after_validate(self) -> None:
        """Print the Dice per class."""
        for name, value in self.trainer.callback_metrics.items():
            log.info("%-24s %.4f", name, float(value))


def _timer(duration: Any) -> Timer:
    """Return the clock of a training.

    Raises:
        OptionError: If the duration is none.
    """
    try:
        return Timer(_plain(duration))
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise OptionError(
            "--trainer.max_time must be DD:HH:MM:SS (days, hours, minutes, seconds), such as "
            f"00:00:15:00 for 15 minutes; got {duration!r}."
        ) from error


def _plain(value: Any) -> Any:
    """Return a namespace of settings as a dict, and any other value as it is."""
    return value.as_dict() if hasattr(value, "as_dict") else value
