"""File names of the Brain Imaging Data Structure, and which image belongs to which label.

Names are `sub-01_ses-02_acq-x_T1w.nii.gz`: entities (key-value), then the suffix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(sub-[^_]+(?:_[A-Za-z]+-[^_]+)*)_([A-Za-z0-9]+)\.nii(?:\.gz)?")

_OF_DERIVATIVES = {"space", "seg", "atlas", "scale", "res", "den", "hemi", "label", "desc"}
"""Entities that a derivative has besides those of its source (BIDS, derivatives, imaging)."""

_OF_ONE_IMAGE = {"acq", "ce", "trc", "rec"}
"""Entities that say how one image was made; channels of one session may differ in them."""


@dataclass(frozen=True)
class BidsFile:
    """A volume with a BIDS name.

    Attributes:
        path: The file.
        entities: Values by key, in the order of the name.
        suffix: What it is: T1w, pet, dseg.
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str

    @property
    def session(self) -> str:
        """Subject and session, `sub-01_ses-02`."""
        return _joined({k: v for k, v in self.entities.items() if k in ("sub", "ses")})

    @property
    def source_entities(self) -> dict[str, str]:
        """What tells images of one session apart: neither the session nor a derivative's own."""
        own = {"sub", "ses", *_OF_DERIVATIVES}
        return {k: v for k, v in self.entities.items() if k not in own}

    @property
    def case_id(self) -> str:
        """Session and source entities, as one name."""
        return _joined({"": self.session, **self.source_entities})


def _joined(entities: Mapping[str, str]) -> str:
    return "_".join(f"{key}-{value}" if key else value for key, value in entities.items())


def parse_name(path: Path) -> BidsFile | None:
    """Return a file with its entities and suffix, or None if its name is not BIDS'."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    return BidsFile(path, entities_of(match[1]), match[2])


def entities_of(text: str) -> dict[str, str]:
    """Return the entities of `key-value_key-value`."""
    pairs = (part.partition("-") for part in text.split("_"))
    return {key: value for key, _, value in pairs if value}


def fitting(
    images: Iterable[BidsFile], channel: str, source: Mapping[str, str]
) -> tuple[list[BidsFile], bool]:
    """Return the images of one session that fit a channel and a label best.

    Args:
        images: The images of the session.
        channel: Suffix, with entities before it if need be: `T1w`, `ce-gadolinium_T1w`.
        source: The label's source entities.

    Returns:
        No, one or several equally fitting images, and whether they contradict the label in an
        entity that may differ between channels (its acquisition, say).
    """
    *parts, suffix = channel.split("_")
    asked = entities_of("_".join(parts))
    ranks = []
    for image in images:
        have = image.source_entities
        if image.suffix != suffix or any(have.get(k) != v for k, v in asked.items()):
            continue
        wanted = {**source, **asked}
        against = {k for k in wanted.keys() & have.keys() if wanted[k] != have[k]}
        if against <= _OF_ONE_IMAGE:
            # Fewest contradictions first, then the name that says nothing else.
            ranks.append((len(against), len(wanted.keys() ^ have.keys()), image))
    if not ranks:
        return [], False
    best = min(rank[:2] for rank in ranks)
    return [image for *rank, image in ranks if tuple(rank) == best], best[0] > 0


def session_images(
    images: Sequence[BidsFile], channels: Sequence[str], source: Mapping[str, str]
) -> tuple[list[BidsFile], list[str], list[str]]:
    """Return one image per channel; the channels that lack one; what is ambiguous, in words."""
    chosen, lacking, ambiguous, related = [], [], [], False
    for channel in channels:
        candidates, contradicts = fitting(images, channel, source)
        if not candidates:
            lacking.append(channel)
        elif len(candidates) > 1:
            names = ", ".join(image.path.name for image in candidates)
            ambiguous.append(f"channel {channel} may be any of {names}")
        related |= bool(candidates) and not contradicts
        chosen += candidates[:1]
    # The label was drawn on one of the images: that one contradicts it in nothing.
    return chosen, lacking if related else list(channels), ambiguous
