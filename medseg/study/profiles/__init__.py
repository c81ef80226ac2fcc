"""Studies of norms on anybody's data: quick, standard and full."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from medseg.core.errors import OptionError
from medseg.core.manifest import Manifest
from medseg.study.grid import Run, runs_of
from medseg.study.strict_yaml import load_yaml

FEWEST_FOLDS = 3
"""One to report on, one to choose learning rates on, and one to train on."""

log = logging.getLogger("medseg")


def read_profile(
    name: str, config: Sequence[Path], manifest: Manifest, samples: int | None = None
) -> list[Run]:
    """Return the runs of a profile.

    Args:
        name: `quick`, `standard` or `full`.
        config: Files of `medseg fit`: data and network.
        manifest: Of the data; its folds take the roles.
        samples: Patches that each training sees; the profile's if None.

    Raises:
        OptionError: If the manifest has too few folds, or the samples do not fit the batch sizes.
    """
    folds = manifest.present_folds()
    if len(folds) < FEWEST_FOLDS:
        raise OptionError(
            f"--profile needs {FEWEST_FOLDS} folds with files, to report on, to choose on and to "
            f"train on; {manifest.path} has {len(folds)}. `medseg manifest` draws folds."
        )
    report, choose, *train = folds
    log.info("folds %s are trained on, learning rates chosen on fold %d, results reported on "
             "fold %d", train, choose, report)  # fmt: skip
    if absent := sorted({*manifest.folds} - {*folds}):
        log.warning("folds %s are left out: none of their files is there", absent)
    with resources.as_file(resources.files(__name__) / f"{name}.yaml") as path:
        content = dict(load_yaml(path))
    content |= {"train": train, "choose": [choose], "report": [report]}
    content["config"] = [str(file.absolute()) for file in config]
    if samples is not None:
        content["budget"] = {**content["budget"], "samples": samples}
    return runs_of(content, Path(f"--profile {name}"))
