"""From other data set layouts to a manifest, and from there to MSD's and nnU-Net's."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.core.errors import ManifestError, OptionError
from medseg.core.manifest import IGNORE, Case, Manifest, case_id_of, parse_manifest
from medseg.core.runs import atomic_text
from medseg.data.folds import draw_folds, name_by_pattern
from medseg.data.layouts import write_layout
from medseg.data.options import ManifestOptions
from medseg.data.sources import read_source

log = logging.getLogger("medseg")


def write_manifest(options: ManifestOptions) -> None:
    """Build a manifest, draw its folds if asked, and write it or the data set it describes.

    Raises:
        OptionError: If the output exists, or the source is of no known kind.
        ManifestError: If the source is wrong, or lies where the output's paths cannot reach.
        VolumeError: If a label file whose values are needed is refused.
    """
    home = options.output if options.to == "medseg" else options.source
    if options.to == "medseg" and home.exists() and not options.overwrite:
        raise OptionError(f"{home} exists. Add --overwrite, or choose another --output.")
    manifest = read_source(options)
    manifest = name_by_pattern(manifest, options.group_pattern, options.site_pattern)
    root = manifest.root
    if options.to == "medseg" and options.root is None:
        root = options.output.parent
        manifest = _relative_to(manifest, root)
    if options.folds is not None:
        manifest = draw_folds(manifest, options.folds, options.seed)
    # What would be refused when read is not written.
    checked = parse_manifest(json.loads(manifest_text(manifest)), home, root)
    if options.to == "medseg":
        save_manifest(checked, options.output)
    else:
        write_layout(checked, options.output, options.to, options.overwrite)
    _summarize(checked, options.output)


def _relative_to(manifest: Manifest, folder: Path) -> Manifest:
    """Return the manifest with its paths relative to `folder`.

    Raises:
        ManifestError: If a file lies outside of it.
    """

    def moved(path: str) -> str:
        relative = Path(os.path.relpath(manifest.file(path), folder)).as_posix()
        if relative.startswith("../"):
            raise ManifestError(
                f"{manifest.file(path)} does not lie in {folder}, the folder of the output. "
                f"Write the manifest beside its files, or add --root {manifest.root} "
                "here and wherever the manifest is used."
            )
        return relative

    def placed(case: Case) -> Case:
        return replace(
            case,
            images=tuple(map(moved, case.images)),
            label=None if case.label is None else moved(case.label),
        )

    return replace(
        manifest,
        training=tuple(map(placed, manifest.training)),
        test=tuple(map(placed, manifest.test)),
    )


def save_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest, whole or not at all."""
    with atomic_text(path) as file:
        file.write(manifest_text(manifest))


def manifest_text(manifest: Manifest) -> str:
    """Return a manifest as JSON, one line for each case."""
    labels = dict(manifest.labels)
    if manifest.ignore_value is not None:
        labels[IGNORE] = manifest.ignore_value
    texts = {
        "name": manifest.name,
        "description": manifest.description,
        "licence": manifest.licence,
        **manifest.extra,
        "source": manifest.source,
    }
    content = {
        **{key: text for key, text in texts.items() if text},
        "channel_names": {str(i): name for i, name in enumerate(manifest.channel_names)},
        "labels": labels,
        "training": [_entry(case) for case in manifest.training],
        "test": [_entry(case) for case in manifest.test],
    }
    lines = [f"  {_json(key)}: {_lines(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _entry(case: Case) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if case.case_id != case_id_of(case.images[0]):
        entry["case_id"] = case.case_id
    entry["image"] = list(case.images) if len(case.images) > 1 else case.images[0]
    entry |= {"label": case.label, "fold": case.fold}
    entry |= {"group": case.group or None, "site": case.site or None}
    return {key: value for key, value in entry.items() if value is not None}


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return _json(value)
    return "[\n" + ",\n".join(f"    {_json(item)}" for item in value) + "\n  ]"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _summarize(manifest: Manifest, output: Path) -> None:
    sizes = Counter(case.fold for case in manifest.training)
    folds = ", ".join(f"{fold}: {sizes[fold]}" for fold in manifest.folds) or "none"
    log.info(
        "%s: %d training cases (folds: %s), %d test cases; classes: %s",
        output,
        len(manifest.training),
        folds,
        len(manifest.test),
        ", ".join(manifest.class_names),
    )
