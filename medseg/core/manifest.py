"""Data set manifests: cases, labels and folds, checked as a whole before any work."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.core.errors import ManifestError, problems, suggestion

VOLUME_ENDINGS = (".nii.gz", ".nii", ".hdr.gz", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr")
"""Endings of files that name a volume."""

ENDINGS = (*VOLUME_ENDINGS, ".img.gz", ".img")
"""File endings that are not part of a case id."""

IGNORE = "ignore"
"""Label name of voxels that take part in neither loss nor metrics."""

MAX_CLASSES = 255
"""Classes are kept as bytes, of which the last value marks voxels to ignore."""

MAX_CASE_ID_BYTES = 200
"""Leaves room for an ending and a temporary name under the usual 255 bytes of a file name."""

_TEXTS = ("reference", "release", "citation")
"""Keys that are kept as they are."""

_KEYS = {
    "name", "description", "licence", "license", *_TEXTS, "source", "tensorImageSize",
    "channel_names", "modality", "labels", "training", "test", "numTraining",
    "numTest", "file_ending", "regions_class_order", "overwrite_image_reader_writer",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One subject's image and, if known, its label.

    Attributes:
        case_id: Unique name within the manifest.
        images: One file per channel, or one file for all, relative to the root.
        label: Label file, relative to the root, or None.
        fold: Cross-validation fold, or None if the manifest has no folds.
        group: What must not be split between folds, usually the patient.
        site: Where it was acquired; folds are stratified by it.
    """

    case_id: str
    images: tuple[str, ...]
    label: str | None = None
    fold: int | None = None
    group: str = ""
    site: str = ""


@dataclass(frozen=True)
class Manifest:
    """A data set.

    Attributes:
        path: The file it was read from.
        root: Folder the cases' paths are relative to.
        name: Short name, used in run directories and reports.
        channel_names: Name of each image channel, in order.
        labels: Label value in the files by class name, the background first.
        training: Cases with labels.
        test: Cases without.
        source: How to get the files, in words.
        ignore_value: Value of voxels that take part in neither loss nor metrics.
        extra: Further texts: reference, release, citation.
    """

    path: Path
    root: Path
    name: str
    channel_names: tuple[str, ...]
    labels: Mapping[str, int]
    training: tuple[Case, ...]
    test: tuple[Case, ...] = ()
    ignore_value: int | None = None
    description: str = ""
    licence: str = ""
    source: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names; index 0 is the background, and the index is the network's class."""
        return tuple(self.labels)

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that occur, in order."""
        return tuple(sorted({case.fold for case in self.training if case.fold is not None}))

    def present_folds(self) -> tuple[int, ...]:
        """Return the folds with a file on this disk; one without a single file is held back."""
        return tuple(
            fold
            for fold in self.folds
            if any(path.exists() for case in self.in_folds([fold]) for path in self.files(case))
        )

    @property
    def digest(self) -> str:
        """Short hash of the case list, folds and labels; not of the files' contents."""
        rows = [
            [c.case_id, c.images, c.label, c.fold, c.group] for c in (*self.training, *self.test)
        ]
        text = json.dumps([rows, dict(self.labels), self.channel_names], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def file(self, relative: str) -> Path:
        """Return the path of a listed file."""
        return self.root / relative

    def files(self, case: Case) -> list[Path]:
        """Return all files of a case, the label last."""
        names = [*case.images, *([case.label] if case.label else [])]
        return [self.file(name) for name in names]

    def in_folds(self, folds: Iterable[int]) -> tuple[Case, ...]:
        """Return the training cases of the given folds.

        Raises:
            ManifestError: If a fold does not occur, or the manifest has none.
        """
        chosen = set(folds)
        if not self.folds:
            root = "" if self.root == self.path.parent else f" --root {self.root}"
            other = self.path.with_name(f"{self.path.stem}_folds.json")
            raise ManifestError(
                f"{self.path} has no folds. Draw them with `medseg manifest --source {self.path} "
                f"--folds 5 --output {other}{root}`, and use {other}."
            )
        if unknown := sorted(chosen - set(self.folds)):
            raise ManifestError(
                f"{self.path} has no fold {', '.join(map(str, unknown))}; "
                f"it has {', '.join(map(str, self.folds))}."
            )
        return tuple(case for case in self.training if case.fold in chosen)

    def split(
        self, fold: int, train_folds: Sequence[int] | None = None
    ) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """Return the cases to train on and the cases to validate on.

        Args:
            fold: The fold to validate on.
            train_folds: The folds to train on; all but `fold` if None.

        Raises:
            ManifestError: If a fold is on both sides, is unknown, or has no case.
        """
        validation = self.in_folds([fold])
        wanted = [f for f in self.folds if f != fold] if train_folds is None else list(train_folds)
        if fold in wanted:
            raise ManifestError(
                f"fold {fold} is both validated and trained on: data.fold {fold}, "
                f"data.train_folds {wanted}. Take it out of data.train_folds."
            )
        if not wanted:
            raise ManifestError(f"{self.path}: no fold is left to train on besides fold {fold}.")
        return self.in_folds(wanted), validation

    def require_files(self, cases: Iterable[Case], flag: str = "--root") -> None:
        """Check that every file of `cases` is there.

        Args:
            cases: Some of the manifest's.
            flag: The one that says where the files lie.

        Raises:
            ManifestError: If not; it names the folds concerned and how to get the files.
        """
        absent = [(c, p) for c in cases for p in self.files(c) if not p.exists()]
        if not absent:
            return
        lines = [f"{path}: no such file{self._place_of(case, path)}" for case, path in absent]
        per_fold = Counter(str(case.fold) for case, _ in absent)
        counts = ", ".join(f"fold {f}: {n}" for f, n in sorted(per_fold.items()))
        how = f" {self.source}" if self.source else ""
        raise ManifestError(
            f"{problems(self.path, lines, 10, f' ({counts})')}\n"
            f"Is {flag} right (now {self.root})?{how}"
        )

    def _place_of(self, case: Case, path: Path) -> str:
        """Say which case, channel and fold a file belongs to, as far as that is not plain."""
        words = [] if case.fold is None else [f"fold {case.fold}"]
        if len(case.images) > 1:
            names = [*self.channel_names, "label"]
            words = [f"case {case.case_id!r}", names[self.files(case).index(path)], *words]
        return f" ({', '.join(words)})" if words else ""

    def absent(self, cases: Iterable[Case]) -> list[Case]:
        """Return the cases of which a file is missing on disk."""
        return [case for case in cases if not all(path.exists() for path in self.files(case))]


def load_manifest(
    path: Path | str, root: Path | str | None = None, contradictions: list[str] | None = None
) -> Manifest:
    """Read a manifest: ours, an MSD dataset.json, or an nnU-Net raw folder or its dataset.json.

    Files are not opened. That listed files exist is checked by who needs them
    (`Manifest.require_files`).

    Args:
        path: The JSON file, or a folder that holds dataset.json.
        root: Folder the listed paths are relative to; the manifest's own folder if None.
        contradictions: Takes what is wrong between cases (names, files and groups used twice)
            instead of its being an error.

    Raises:
        ManifestError: With every problem found, one line each.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "dataset.json"
    content = _read_json(path)
    home = Path(root) if root is not None else path.parent
    if "training" not in content and "numTraining" in content:
        training, test = (_nnunet_cases(home, content, part) for part in ("Tr", "Ts"))
        content = {**content, "training": training, "test": test}
    return parse_manifest(content, path, home, contradictions)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ManifestError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ManifestError(f"{path}: a manifest is a JSON object; got {type(content).__name__}.")
    return content


def _nnunet_cases(folder: Path, content: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
    """List the cases of an nnU-Net v2 raw folder: imagesTr/X_0000.nii.gz, labelsTr/X.nii.gz."""
    ending = str(content.get("file_ending", ".nii.gz"))
    channels = max(len(_channel_names(content, [])), 1)
    cases = []
    for first in sorted((folder / f"images{part}").glob(f"*_0000{ending}")):
        case_id = first.name[: -len(f"_0000{ending}")]
        images = [f"images{part}/{case_id}_{channel:04d}{ending}" for channel in range(channels)]
        label = f"labels{part}/{case_id}{ending}"
        case: dict[str, Any] = {"case_id": case_id, "image": images}
        if part == "Tr" or (folder / label).exists():  # labels of test cases are optional
            case["label"] = label
        cases.append(case)
    return cases


def parse_manifest(
    content: Mapping[str, Any],
    path: Path,
    root: Path,
    contradictions: list[str] | None = None,
) -> Manifest:
    """Build a manifest from its JSON content; see `load_manifest`.

    Raises:
        ManifestError: With every problem found, one line each.
    """
    found: list[str] = []
    labels, ignore_value = _labels(content.get("labels"), found)
    channel_names = _channel_names(content, found)
    training = _cases(content.get("training", []), "training", found)
    test = _cases(content.get("test", []), "test", found)
    if not training and not test:
        found.append("no case: `training` and `test` are both empty")
    found += _unknown_keys(content, path)
    between = found if contradictions is None else contradictions
    between += _contradictions(training, test, len(channel_names))
    if found:
        raise ManifestError(problems(path, found))
    return Manifest(
        path=path,
        root=root,
        name=_slug(str(content.get("name") or path.stem)),
        channel_names=channel_names,
        labels=labels,
        training=training,
        test=test,
        ignore_value=ignore_value,
        description=str(content.get("description", "")),
        licence=str(content.get("licence", content.get("license", ""))),
        source=str(content.get("source", "")),
        extra={key: content[key] for key in _TEXTS if key in content},
    )


def _unknown_keys(content: Mapping[str, Any], path: Path) -> list[str]:
    """Find keys that are misspelt; further texts of others' dataset.json are theirs (`relase`)."""
    foreign = path.name == "dataset.json"
    return [
        f"unknown key {key!r}.{suggestion(key, _KEYS)}"
        for key, value in content.items()
        if key not in _KEYS and not (foreign and isinstance(value, str | int | float))
    ]


def case_id_of(image: str) -> str:
    """Return the case id of a file: its name without ending."""
    name = Path(image).name
    lower = name.lower()
    ending = next((e for e in ENDINGS if lower.endswith(e)), "")
    return name[: len(name) - len(ending)]


def case_id_problem(case_id: str) -> str | None:
    """Say why a text cannot be a case id (it becomes a file name), or return None."""
    if not case_id or case_id in (".", ".."):
        return "is empty"
    if re.search(r"[\x00-\x1f\x7f/\\]", case_id):
        return "holds a slash or a control character"
    if case_id[0] in ".-":
        return "begins with '.' or '-'"
    if case_id != case_id.encode("utf-8", "replace").decode("utf-8"):
        return "is not UTF-8"
    if len(case_id.encode()) > MAX_CASE_ID_BYTES:
        return f"is longer than {MAX_CASE_ID_BYTES} bytes"
    return None


def _labels(given: Any, found: list[str]) -> tuple[dict[str, int], int | None]:
    """Return values by name (MSD's table is the other way round), the background first."""
    if not isinstance(given, Mapping) or not given:
        found.append('`labels` must be an object such as {"background": 0, "tumour": 1}')
        return {}, None
    if all(_is_digits(key) and isinstance(name, str) for key, name in given.items()):
        twice = [name for name, n in Counter(given.values()).items() if n > 1]
        if twice:
            found.append(f"label names {twice} are given to two values")
        given = {name: int(key) for key, name in given.items()}
    overlapping = [name for name, value in given.items() if isinstance(value, list)]
    if overlapping:
        found.append(
            f"labels {overlapping} are regions (lists of values); regions cannot be trained. "
            "List plain classes, and score regions with `medseg evaluate --regions`"
        )
        return {}, None
    wrong = [k for k, v in given.items() if not isinstance(v, int) or isinstance(v, bool) or v < 0]
    if wrong:
        found.append(f"label values must be whole numbers >= 0; wrong for {wrong}")
        return {}, None
    repeated = [value for value, n in Counter(given.values()).items() if n > 1]
    if repeated:
        found.append(f"label values {repeated} have two names")
    if len(given) > MAX_CLASSES:
        found.append(f"{len(given)} labels; at most {MAX_CLASSES} classes can be told apart")
    ordered = dict(sorted(given.items(), key=lambda item: int(item[1])))
    ignore = ordered.pop(IGNORE, None)
    if 0 not in ordered.values():
        found.append('`labels` has no background: add "background": 0')
    elif len(ordered) == 1:
        found.append("`labels` has no class besides the background")
    return ordered, ignore


def _channel_names(content: Mapping[str, Any], found: list[str]) -> tuple[str, ...]:
    given = content.get("channel_names", content.get("modality"))
    if not isinstance(given, Mapping) or not given:
        found.append('`channel_names` must be an object such as {"0": "T1w"}')
        return ()
    expected = [str(index) for index in range(len(given))]
    if sorted(given, key=str) != sorted(expected):
        found.append(f"`channel_names` must have the keys {expected}; got {list(given)}")
        return ()
    return tuple(str(given[key]) for key in expected)


def _cases(given: Any, part: str, found: list[str]) -> tuple[Case, ...]:
    if not isinstance(given, list):
        found.append(f"`{part}` must be a list of cases")
        return ()
    cases = (_case(entry, f"{part}[{index}]", part, found) for index, entry in enumerate(given))
    return tuple(case for case in cases if case is not None)


def _case(entry: Any, where: str, part: str, found: list[str]) -> Case | None:
    if isinstance(entry, str):
        entry = {"image": entry}  # MSD lists test cases by their image alone
    if not isinstance(entry, Mapping) or "image" not in entry:
        found.append(f'{where}: must be an object with "image"')
        return None
    images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    label = entry.get("label")
    paths = [*images, *([] if label is None else [label])]
    if not images or not all(isinstance(p, str) and p for p in paths):
        found.append(f"{where}: `image` and `label` must be paths")
        return None
    given_id = entry.get("case_id")
    case_id = case_id_of(images[0]) if given_id is None else str(given_id)
    before = len(found)
    if part == "training" and label is None:
        found.append(f"{where} ({case_id!r}): no label; cases without one belong in `test`")
    if problem := case_id_problem(case_id):
        found.append(f"{where}: case id {case_id!r} {problem}; give another with `case_id`")
    found += [f"{where}: path {p!r} leaves the root folder" for p in paths if _escapes(p)]
    fold = entry.get("fold")
    if fold is not None and (not isinstance(fold, int) or isinstance(fold, bool) or fold < 0):
        found.append(f"{where} ({case_id!r}): `fold` must be a whole number >= 0; got {fold!r}")
    keys = {"image", "label", "fold", "group", "site", "case_id"}
    found += [f"{where} ({case_id!r}): unknown key {key!r}" for key in entry if key not in keys]
    if len(found) > before:
        return None
    group, site = ("" if entry.get(key) is None else str(entry[key]) for key in ("group", "site"))
    return Case(case_id, tuple(map(_tidy, images)), label and _tidy(label), fold, group, site)


def _contradictions(training: Sequence[Case], test: Sequence[Case], channels: int) -> list[str]:
    """Find what is wrong between cases: ids, files and groups used twice, folds given to some."""
    cases = (*training, *test)
    found = [
        f"case id {case_id!r} is used {n} times"
        for case_id, n in Counter(case.case_id.casefold() for case in cases).items()
        if n > 1
    ]
    places: dict[str, set[str]] = {}
    for number, case in enumerate(cases):
        where = "training" if case.fold is None else f"fold {case.fold}"
        for name in case.images:
            places.setdefault(name, set()).add(where if number < len(training) else "test")
    found += [
        f"image {name!r} is in {' and '.join(sorted(where))}"
        for name, where in places.items()
        if len(where) > 1
    ]
    folds_of: dict[str, set[int | None]] = {}
    for case in training:
        if case.group:
            folds_of.setdefault(case.group, set()).add(case.fold)
    found += [
        f"group {group!r} is split between folds {sorted(map(str, folds))}"
        for group, folds in folds_of.items()
        if len(folds) > 1
    ]
    without = [case.case_id for case in training if case.fold is None]
    if without and len(without) < len(training):
        found.append(f"{len(without)} training cases have no fold, the others do: {without[:5]}")
    found += [
        f"case {case.case_id!r}: {len(case.images)} images for {channels} channels"
        for case in cases
        if channels and len(case.images) not in (1, channels)
    ]
    return found


def _escapes(path: str) -> bool:
    parts = Path(path).parts
    return Path(path).is_absolute() or "\\" in path or ".." in parts or "\x00" in path


def _tidy(path: str) -> str:
    return Path(path).as_posix()  # MSD writes ./imagesTr/x.nii.gz


def _is_digits(text: Any) -> bool:
    return isinstance(text, str) and text.isdecimal()


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower() or "data"
