"""What MSD's and nnU-Net's JSON files say about a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.core.manifest import IGNORE, Case, Manifest

BACKGROUND = "background"
"""nnU-Net refuses any other name of class 0."""


def _texts(manifest: Manifest) -> dict[str, Any]:
    texts = {"name": manifest.name, "description": manifest.description}
    return {**texts, "reference": "", "licence": manifest.licence, "release": "", **manifest.extra}


def nnunet_content(manifest: Manifest, values: Mapping[int, int]) -> dict[str, Any]:
    """Return nnU-Net's dataset.json, given the value written for each value of the manifest."""
    labels = {name: values[value] for name, value in manifest.labels.items() if value}
    labels = {BACKGROUND: 0, **labels}
    if manifest.ignore_value is not None:
        labels[IGNORE] = values[manifest.ignore_value]
    return {
        **_texts(manifest),
        "channel_names": {str(i): name for i, name in enumerate(manifest.channel_names)},
        "labels": labels,
        "numTraining": len(manifest.training),
        "file_ending": ".nii.gz",
    }


def splits(manifest: Manifest) -> list[dict[str, list[str]]]:
    """Return the folds as nnU-Net lists them: per fold the cases to train on and to validate."""
    parts = [manifest.split(fold) for fold in manifest.folds]
    return [
        {"train": [c.case_id for c in train], "val": [c.case_id for c in validation]}
        for train, validation in parts
    ]


def msd_content(manifest: Manifest) -> dict[str, Any]:
    """Return MSD's dataset.json; fold, group and site stay as further keys of a case."""
    labels = {str(value): name for name, value in manifest.labels.items()}
    if manifest.ignore_value is not None:
        labels[str(manifest.ignore_value)] = IGNORE
    tests = [_msd_entry(case, "Ts") for case in manifest.test]
    return {
        **_texts(manifest),
        "tensorImageSize": "4D" if len(manifest.channel_names) > 1 else "3D",
        "modality": {str(i): name for i, name in enumerate(manifest.channel_names)},
        "labels": labels,
        "numTraining": len(manifest.training),
        "numTest": len(manifest.test),
        "training": [_msd_entry(case, "Tr") for case in manifest.training],
        # MSD lists a test case by its image alone; an object only where more is known of it.
        "test": [entry["image"] if len(entry) == 1 else entry for entry in tests],
    }


def _msd_entry(case: Case, part: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"image": f"./images{part}/{case.case_id}.nii.gz"}
    if case.label:
        entry["label"] = f"./labels{part}/{case.case_id}.nii.gz"
    more = {"fold": case.fold, "group": case.group or None, "site": case.site or None}
    return entry | {key: value for key, value in more.items() if value is not None}
