"""The flags of `medseg demo`, `medseg benchmark` and `medseg study`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medseg.core.errors import OptionError

MAX_WARMUP = 10
"""Steps of a benchmark that are not timed, at most."""


@dataclass(frozen=True)
class DemoOptions:
    """Options of `medseg demo`.

    Attributes:
        output: Folder of the phantoms, the runs and the report; made anew.
        norms: Norms to train, one run each.
        seconds: Training time of each run.
        cases: Phantoms; a quarter of them is held out for the scores.
    """

    output: Path = Path("demo")
    norms: tuple[str, ...] = ("none", "batch", "instance", "group", "layer")
    seconds: int = 50
    cases: int = 24


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of `medseg benchmark`.

    Attributes:
        norms: Norms to time.
        channels: Feature channels of each level of the network.
        patch_size: Voxels of a patch.
        batch_size: Patches in a step.
        steps: Steps that are timed, after as many that are not (at most 10).
        output: Also write the table here, as JSON.
        what: steps times training steps of each norm; training times `medseg fit` on phantoms with
            and without augmentation against the bare network's forward and backward, and tells
            where the time goes; reading times the strict reader against
            nibabel, in `steps` readings; metrics times the scores of one organ against MONAI's,
            SimpleITK's and, where it is installed, surface-distance's, in up to 5 rounds; backends
            times prediction of windows of `patch_size`, `batch_size` of them at once, by each
            backend that is installed, in `steps` rounds; nnunet labels the same cases with the same
            weights by `medseg predict` and by nnU-Net; memory labels a volume of 512 x 512 x 800
            voxels in 100 classes within 4 GiB; endurance labels 2000 small cases, or `cases`;
            recommendation applies the rule of studies to `steps` simulated ones of each kind, whose
            truth is known; costs measures training step, memory and inference, raw and folded, of
            each norm in each of `precisions`, `formats` and `widths`, and draws them on a page
            beside `output`.
        run: Run directory of a training (nnunet).
        checkpoint: best, last, or the path of a checkpoint of it (nnunet).
        input: A folder of images or a manifest (nnunet). With a manifest the Dice of cases that did
            not train the network is measured too.
        root: Folder a manifest's paths are relative to; the manifest's own if not given (nnunet).
        cases: Only the first so many cases (nnunet), or so many (endurance).
        peer_python: Python of an environment with nnunetv2 (nnunet).
        predict_flags: Further flags of `medseg predict`, in one text, as in
            --predict_flags="--workers 2" (nnunet, memory, endurance).
        precisions: As --trainer.precision of `medseg fit` (costs).
        formats: Volumes with the channels last in memory, or first: contiguous (costs).
        widths: Networks of so many times `channels` on every level (costs).
        norm_groups: Groups of the norms that have groups; must divide every level's channels
            (costs).
    """

    norms: tuple[str, ...] = ("none", "batch", "instance", "group", "layer")
    channels: tuple[int, ...] = (16, 32, 64, 128)
    patch_size: tuple[int, ...] = (40, 56, 40)
    batch_size: int = 2
    steps: int = 20
    output: Path | None = None
    what: Literal[
        "steps",
        "training",
        "reading",
        "metrics",
        "backends",
        "nnunet",
        "memory",
        "endurance",
        "recommendation",
        "costs",
    ] = "steps"
    run: Path | None = None
    checkpoint: str = "last"
    input: Path | None = None
    root: Path | None = None
    cases: int | None = None
    peer_python: Path | None = None
    predict_flags: str = ""
    precisions: tuple[Literal["32-true", "bf16-mixed", "16-mixed"], ...] = ("32-true", "bf16-mixed")
    formats: tuple[Literal["channels_last", "contiguous"], ...] = ("channels_last", "contiguous")
    widths: tuple[int, ...] = (1,)
    norm_groups: int = 8


@dataclass(frozen=True)
class StudyOptions:
    """Options of `medseg study`.

    Attributes:
        config: A study (YAML with a `grid`), or configuration files of `medseg fit` for a study of
            one variant.
        output: Folder of the runs, the out-of-fold predictions and the report.
        root: Folder the manifest's paths are relative to; the configuration's if not given.
        profile: Compare norms on the data of --config: quick takes 6 norms at one batch size, 3
            learning rates and one seed; standard 6 norms at 3 batch sizes, 3 rates and 3 seeds;
            full 9 norms at 4 batch sizes, 5 rates and 5 seeds, with dropout and other initial
            scales besides. The manifest's first fold is reported, its second one chooses, all
            others train.
        samples: Patches that each training of a profile sees; 1000 (quick), 4000 or 16000 if not
            given.
        folds: Folds of a study of one variant, as in 0,1,2; all takes every fold that has files.
        current: The norm in use today: the recommendation stays with it where nothing speaks
            against it.
        workers: Runs side by side.
        threads: CPU threads of each run; 0 shares the cores among the workers, or takes 1 (ray).
        engine: local does the runs on this machine; ray on a Ray cluster whose nodes share the
            folders.
        ray_address: Of a running cluster (auto, or ray://host:10001); Ray is started here if not
            given.
        gpus: GPUs that Ray keeps for each run (ray).
        shard: Do only a share of the runs, INDEX/COUNT, as in 0/8; whoever does the last share
            writes the report.
        dry_run: Only show the runs, what would be done with each, and the hours that would take.
        fail_fast: Begin no further run once one has failed.
        skip_impossible: Leave out, by name, the runs whose network cannot be built; they are
            refused otherwise.
    """

    config: tuple[Path, ...]
    output: Path
    root: Path | None = None
    profile: Literal["quick", "standard", "full"] | None = None
    samples: int | None = None
    folds: str = "all"
    current: str | None = None
    workers: int = 1
    threads: int = 0
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    gpus: float = 0
    shard: str = "0/1"
    dry_run: bool = False
    fail_fast: bool = False
    skip_impossible: bool = False

    def __post_init__(self) -> None:
        """Refuse what goes with Ray only.

        Raises:
            OptionError: In words.
        """
        if (self.ray_address or self.gpus) and self.engine != "ray":
            raise OptionError("--ray_address and --gpus go with --engine ray.")
