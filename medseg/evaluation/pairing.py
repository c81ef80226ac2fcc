"""Which prediction is compared with which reference, and what has no partner."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import OptionError
from medseg.core.manifest import VOLUME_ENDINGS, Case, Manifest, case_id_of, load_manifest
from medseg.evaluation.journal import UNRECORDED, Record, maps_beside, read_journal
from medseg.evaluation.options import EvaluateOptions


@dataclass(frozen=True)
class Pair:
    """A case to score.

    Attributes:
        case_id: Name of both files without their ending.
        prediction: Label map.
        reference: Label map.
        group: The patient or site it belongs to, or "".
        record: What the prediction's journal says.
    """

    case_id: str
    prediction: Path
    reference: Path
    group: str = ""
    record: Record = UNRECORDED


@dataclass(frozen=True)
class Pairing:
    """All that was given.

    Attributes:
        pairs: Cases to score, in order.
        failed: Why a case cannot be scored, by case id.
        unmatched_predictions: Predictions that no reference asks for.
        unmatched_references: References without prediction, where that is no failure.
        class_values: Label value of each class by name; None for all values found.
        ignore_value: Label value of voxels to leave out.
    """

    pairs: tuple[Pair, ...]
    failed: Mapping[str, str]
    unmatched_predictions: tuple[str, ...] = ()
    unmatched_references: tuple[str, ...] = ()
    class_values: Mapping[str, int] | None = None
    ignore_value: int | None = None


def pair_cases(options: EvaluateOptions) -> Pairing:
    """Pair predictions with the references of a folder or of a manifest.

    Raises:
        OptionError: If a folder is absent or empty, or both or neither source is given.
        ManifestError: If the manifest is wrong.
    """
    if (options.references is None) == (options.manifest is None):
        raise OptionError("give either --references FOLDER or --manifest FILE.")
    others = maps_beside(options.predictions)
    predictions = _label_maps("--predictions", options.predictions, others)
    records = read_journal(options.predictions)
    if options.manifest is not None:
        manifest = load_manifest(options.manifest, options.root)
        known = {case.case_id for case in manifest.training}
        predictions = _by_folder(options.predictions, predictions, known)
        return _with_manifest(manifest, options.fold, predictions, records)
    if options.root is not None or options.fold is not None:
        raise OptionError("--root and --fold go with --manifest.")
    folder = options.references or Path()
    references = _label_maps("--references", folder)
    ids = set(predictions), set(references)
    predictions = _by_folder(options.predictions, predictions, ids[1])
    references = _by_folder(folder, references, {*ids[0], *predictions})
    if options.references and options.references.resolve() == options.predictions.resolve():
        raise OptionError("--references and --predictions are the same folder.")
    return _with_references(references, predictions, records)


def _with_manifest(
    manifest: Manifest,
    fold: int | None,
    predictions: Mapping[str, list[Path]],
    records: Mapping[str, Record],
) -> Pairing:
    pairs, failed = [], {}
    cases = _cases(manifest, fold)
    for case in cases:
        record = records.get(case.case_id, UNRECORDED)
        paths = predictions.get(case.case_id, [])
        problem = _problem("prediction", paths, record)
        if problem or case.label is None:
            failed[case.case_id] = problem or "no reference in the manifest"
            continue
        reference = manifest.file(case.label)
        pairs.append(Pair(case.case_id, paths[0], reference, case.group, record))
    wanted = {case.case_id for case in cases}
    return Pairing(
        pairs=tuple(pairs),
        failed=failed,
        unmatched_predictions=_without(predictions, wanted),
        class_values={name: value for name, value in manifest.labels.items() if value != 0},
        ignore_value=manifest.ignore_value,
    )


def _cases(manifest: Manifest, fold: int | None) -> tuple[Case, ...]:
    """Return the cases of a fold; else of all folds; else all, if the manifest has no folds."""
    if fold is not None:
        return manifest.in_folds([fold])
    return manifest.in_folds(manifest.folds) if manifest.folds else manifest.training


def _with_references(
    references: Mapping[str, list[Path]],
    predictions: Mapping[str, list[Path]],
    records: Mapping[str, Record],
) -> Pairing:
    pairs, failed = [], {}
    for case_id in sorted(references.keys() & predictions.keys()):
        record = records.get(case_id, UNRECORDED)
        paths, reference = predictions[case_id], references[case_id]
        problem = _problem("prediction", paths, record) or _problem("reference", reference)
        if problem:
            failed[case_id] = problem
        else:
            pairs.append(Pair(case_id, paths[0], reference[0], record=record))
    return Pairing(
        pairs=tuple(pairs),
        failed=failed,
        unmatched_predictions=_without(predictions, references),
        unmatched_references=_without(references, predictions),
    )


def _problem(side: str, paths: list[Path], record: Record | None = None) -> str | None:
    """Say why a side of a pair cannot be used, or return None."""
    if record is not None and record.failed:
        return f"predict failed on it: {record.message}"
    if not paths:
        return f"no {side}"
    if len(paths) > 1:
        return f"{len(paths)} files could be its {side}: {', '.join(map(str, paths))}"
    return None


def _without(ids: Iterable[str], partners: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(ids) - set(partners)))


def _label_maps(flag: str, folder: Path, others: Collection[Path] = ()) -> dict[str, list[Path]]:
    """Return the label maps below a folder by case id, without hidden files and `others`."""
    if not folder.is_dir():
        raise OptionError(f"{flag} {folder}: no such folder.")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.name.lower().endswith(VOLUME_ENDINGS) and not hidden and path not in others:
            found.setdefault(case_id_of(path.name), []).append(path)
    if not found:
        raise OptionError(f"{flag} {folder}: holds no label map ({', '.join(VOLUME_ENDINGS)}).")
    return found


def _by_folder(
    folder: Path, found: dict[str, list[Path]], known: Collection[str]
) -> dict[str, list[Path]]:
    """Return label maps by the folder they lie in, where all are named alike.

    So do tools that write one folder for each case, such as CASE/segmentations.nii.gz.
    """
    paths = [path for of in found.values() for path in of]
    tops = [path.relative_to(folder).parts[0] for path in paths]
    nested = all(path.parent != folder for path in paths)
    own_folders = nested and len({path.name for path in paths}) == 1
    if not own_folders or len(set(tops)) < len(tops) or (len(paths) == 1 and set(found) & {*known}):
        return found
    return {top: [path] for top, path in zip(tops, paths, strict=True)}
