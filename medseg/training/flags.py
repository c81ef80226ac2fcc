"""Flags of `medseg fit` and `medseg validate` beside Lightning's, the model's and the data's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pytorch_lightning.cli import LightningArgumentParser

from medseg.training.norm_statistics import Kind


def add_flags(parser: LightningArgumentParser) -> None:
    """Add them to the parser of a verb."""
    parser.add_argument(
        "--run_dir",
        type=Path | None,
        default=None,
        help="Folder of this run; runs/<manifest>_<norm>_<time> if not given.",
    )
    parser.add_argument(
        "--init_from",
        type=Path | None,
        default=None,
        help="Run directory or checkpoint whose weights the training starts from.",
    )
    parser.add_argument(
        "--find_learning_rate",
        type=bool | Literal["use"],
        default=False,
        help="Try rising learning rates for 100 steps before the training, write the curve to "
        "learning_rate.csv and log a suggestion; `use` also trains with it.",
    )
    parser.add_argument(
        "--probes",
        type=bool,
        default=False,
        help="Watch the training (loss, gradients, the loss along the gradient) and write "
        "probes.json; up to 5 %% of the time.",
    )
    parser.add_argument(
        "--pause_after_epochs",
        type=int | None,
        default=None,
        help="End after so many epochs as if interrupted, exit status 0; --ckpt_path last goes "
        "on with the same schedule.",
    )
    parser.add_argument(
        "--norm_statistics",
        type=Kind,
        default="running",
        help="validate: what batch norm normalizes by: running, statistics of the training; "
        "precise, measured over training patches; own, each case's own over all windows.",
    )
