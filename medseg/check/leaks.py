"""What the manifest alone gives away: contradictions, and patients on both sides of a split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from medseg.check.findings import Finding, finding
from medseg.core.manifest import Case, Manifest

_SUBJECT = re.compile(r"^(.*?)(?:^|(?<=[/_]))(sub-[A-Za-z0-9]+)")

_KINDS = (
    (re.compile(r"case id '(.*)' is used "), "case-id-twice"),
    (re.compile(r"image '.*' is in (.*)"), "image-in-two-parts"),
    (re.compile(r"group '.*' is split "), "group-in-two-folds"),
    (re.compile(r"\d+ training cases have no fold"), "cases-without-fold"),
    (re.compile(r"case '(.*)': \d+ images for "), "wrong-image-count"),
)
"""How `medseg.core.manifest` words a contradiction, and its code."""


def contradictions(manifest: Manifest, words: Sequence[str]) -> Iterator[Finding]:
    """Turn what the manifest's cases contradict each other in into findings."""
    known = {case.case_id for case in (*manifest.training, *manifest.test)}
    for text in words:
        matches = [(kind, pattern.match(text)) for pattern, kind in _KINDS]
        kind, match = next(((k, m) for k, m in matches if m), ("contradiction", None))
        name = match[1] if match and match.groups() else ""
        yield finding("error", kind, name if name in known else "", f"{manifest.path}: {text}")


def patients(manifest: Manifest) -> Iterator[Finding]:
    """Find BIDS subjects, by file names, that are in two folds or in training and test."""
    places: dict[str, dict[str, list[Case]]] = {}
    for part, cases in (("training", manifest.training), ("test", manifest.test)):
        for case in cases:
            if case.group:
                continue  # the manifest knows better, and its groups are checked when it is read
            if match := _SUBJECT.match(case.images[0]):
                # With the folders above it: every site may have a sub-01 of its own.
                subject = match[1] + match[2]
                where = part if part == "test" or case.fold is None else f"fold {case.fold}"
                places.setdefault(subject, {}).setdefault(where, []).append(case)
    for subject, parts in places.items():
        if len(parts) > 1:
            names = [case.case_id for cases in parts.values() for case in cases]
            words = f"{subject} is in {' and '.join(sorted(parts))}: cases {', '.join(names)}"
            yield finding("error", "patient-in-two-folds", names[0], words)
