"""The flags of `medseg predict` and `medseg export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medseg.core.errors import OptionError

Format = Literal["source", "nifti", "dicom_seg"]


@dataclass(frozen=True)
class PredictOptions:
    """Options of `medseg predict`.

    Attributes:
        input: A volume, a folder of volumes (with its subfolders), or a manifest (JSON). Volumes
            are NIfTI, MetaImage and NRRD files, and folders with a DICOM series.
        output: Folder of the label maps, one for each case, subfolders as in the input.
        run: Run directory of a training; several make an ensemble, the mean of their probabilities.
        model: Model package, or several, in place of run directories.
        checkpoint: best, last, or the path of a checkpoint.
        root: Folder a manifest's paths are relative to; the manifest's own if not given.
        fold: Only the cases of this fold of a manifest.
        overlap: Overlap of the sliding window, in [0, 1); as in training if not given. Windows, and
            so the time, grow with 1 / (1 - overlap) cubed where the image is larger than a window.
            On six phantoms, with windows of a third of their length: Dice 0.68 at 0, 0.70 at 0.5 in
            twice the time, 0.69 at 0.75 in eleven times.
        skip_empty: Leave out windows without content, such as air; as in training if not given.
        norm_statistics: What batch norm normalizes by: running, statistics of the training; own,
            those of each case over all its windows, which takes twice the time. `medseg doctor`
            tells which is better for a run, and writes a copy with statistics measured anew.
        tta: Test-time augmentation: the mean over all mirrorings of the axes that the training
            mirrored, which takes 2, 4 or 8 times as long. On six phantoms, after five minutes of
            training with mirroring: Dice 0.847, against 0.858 without.
        postprocessing: on applies the rules that the end of the training has found to help; off.
        probabilities: Write each class's probability too, NAME_probabilities.npy of shape (classes,
            I, J, K) in float16: classes x voxels x 2 bytes.
        uncertainty: Write the entropy of the probabilities too, NAME_uncertainty.nii.gz, from 0
            (certain) to 1.
        format: source writes MetaImage and NRRD where they came in, and .nii.gz for all else; nifti
            always .nii.gz; dicom_seg writes DICOM-SEG for DICOM series. DICOM-SEG copies the name
            and the study of the patient, as the standard wants it; the others hold no such thing.
        on_conflict: What a header that contradicts itself does: warn, or error (the case fails).
        series_uid: The DICOM series to label where a folder holds several.
        device: cpu, cuda or cuda:N; a GPU if there is one.
        backend: What computes the network on a CPU; openvino and onnxruntime are extras, and are
            taken only if they find what torch finds.
        precision: Of the convolutions on a GPU.
        compile: Let torch.compile generate code for the network first; takes a minute.
        sw_batch_size: Windows in one forward pass; 4 on a GPU, 1 on a CPU if not given.
        max_memory: Most memory of all processes together, such as 4GiB, or a share of the machine's
            (or container's) memory. Cases that cannot keep it fail with the code memory.
        workers: Processes that label; each holds the networks. 0 does all in one process, where a
            crash ends everything. If not given: 2 on a CPU, or one for 4 cores if that is more,
            but 1 where a case needs the memory of all; 1 on a GPU.
        threads: CPU threads of each worker; an even share of the cores if not given.
        engine: local runs workers on this machine; ray runs them on a Ray cluster.
        ray_address: Of a running cluster (auto, or ray://host:10001); Ray is started here if not
            given.
        shard: INDEX/COUNT: do only this share of the cases, for job arrays: 0/8 to 7/8.
        dry_run: Say what would be done, what it takes, and what is wrong; label nothing.
        fail_fast: Stop after the first case that fails.
        max_failures: Stop after so many.
        overwrite: Predict again what is already there; otherwise cases whose label map is as the
            journal says, made from the same files by the same weights and options, are skipped.
    """

    input: Path
    output: Path
    run: tuple[Path, ...] = ()
    model: tuple[Path, ...] = ()
    checkpoint: str = "best"
    root: Path | None = None
    fold: int | None = None
    overlap: float | None = None
    skip_empty: bool | None = None
    norm_statistics: Literal["running", "own"] = "running"
    tta: bool = False
    postprocessing: Literal["on", "off"] = "on"
    probabilities: bool = False
    uncertainty: bool = False
    format: Format = "source"
    on_conflict: Literal["warn", "error"] = "warn"
    series_uid: str | None = None
    device: str | None = None
    backend: Literal["torch", "openvino", "onnxruntime"] = "torch"
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    compile: bool = False
    sw_batch_size: int | None = None
    max_memory: str = "80%"
    workers: int | None = None
    threads: int | None = None
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    shard: str | None = None
    dry_run: bool = False
    fail_fast: bool = False
    max_failures: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.run and not self.model:
            raise OptionError("--run (run directories) or --model (packages) must be given.")
        for name, least in (("workers", 0), ("threads", 1), ("sw_batch_size", 1),
                            ("max_failures", 1)):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"--{name} must be at least {least}; got {value}.")
        if self.ray_address and self.engine != "ray":
            raise OptionError("--ray_address goes with --engine ray.")


@dataclass(frozen=True)
class ExportOptions:
    """Options of `medseg export`.

    Attributes:
        run: Run directory of a training.
        output: Folder of the package; it must not exist.
        checkpoint: best, last, or the path of a checkpoint.
        formats: safetensors is the package itself and always written; onnx and openvino add the
            network in that format, checked against torch, and need the extra of that name.
        licence: What the weights may be used for, an SPDX name or a sentence; goes into the card.
        overwrite: Replace a package that is there.
    """

    run: Path
    output: Path
    checkpoint: str = "best"
    formats: tuple[Literal["safetensors", "onnx", "openvino"], ...] = ("safetensors",)
    licence: str | None = None
    overwrite: bool = False
