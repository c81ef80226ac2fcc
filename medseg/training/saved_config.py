"""The configuration that a run keeps, and goes on with."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.cli import SaveConfigCallback

from medseg.core.errors import OptionError, suggestion
from medseg.core.runs import RunFiles, atomic_text


def with_saved_config(verb: str, arguments: list[str]) -> list[str]:
    """Take the run's own config.yaml where a run is resumed or validated without another."""
    names = [argument.split("=")[0] for argument in arguments]
    wanted = {"--run_dir"} if verb == "validate" else {"--run_dir", "--ckpt_path"}
    if not wanted <= set(names) or {"--config", "-c"} & set(names):
        return arguments
    place = names.index("--run_dir")
    value = arguments[place].partition("=")[2] or "".join(arguments[place + 1 : place + 2])
    config = RunFiles(Path(value)).config
    if config.is_file():
        return ["--config", str(config), *arguments]
    if any(name.startswith("--data.manifest") for name in names):
        return arguments
    others = [path.parent.name for path in config.parent.parent.glob(f"*/{config.name}")]
    raise OptionError(
        f"--run_dir {value} holds no run to go on with: no {config.name} is there."
        f"{suggestion(config.parent.name, others)}"
    )


class SaveConfig(SaveConfigCallback):
    """Write the resolved configuration into the run directory when a training starts."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write it once, on the first process."""
        del pl_module
        if stage == "fit" and trainer.is_global_zero and not self.already_saved:
            # Without the checkpoint: who takes this file for a new run does not want to resume.
            config = self.config.clone()
            config.ckpt_path = None
            config.find_learning_rate = False
            config.pause_after_epochs = None
            with atomic_text(RunFiles(config.run_dir).config) as file:
                file.write(self.parser.dump(config, skip_none=False))
            self.already_saved = True
