"""Which classes have a side of the body in their name: mirrored, an image carries the wrong one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

_WORD = re.compile(r"[A-ZÀ-Þ]+(?![a-zß-ÿ\d])|[A-ZÀ-Þ]?[a-zß-ÿ]+")
"""`LeftKidney`, `hippocampusL`, `lh.hippocampus` and `kidney_left` are two words; `L1` is none."""

_STEMS = ("left", "right", "sinist", "dext", "izquierd", "derech", "gauche", "droit", "destr")
_SIDES = {
    *("l", "r", "lt", "rt", "lh", "rh", "lhs", "rhs", "sin", "dex", "sx", "dx"),
    *(f"{stem}{end}" for stem in ("link", "recht") for end in ("s", "e", "er", "es", "en")),
}


def sided(class_names: Sequence[str]) -> list[str]:
    """Return the names that tell left from right, in order; English and some other languages.

    A name does by one of its words, or by differing from another name in nothing but an L that
    is an R there (LV and RV).
    """
    pairs = {name for pair in combinations(class_names, 2) if _swapped(*pair) for name in pair}
    return [
        name for name in class_names if name in pairs or any(map(_is_side, _WORD.findall(name)))
    ]


def _is_side(word: str) -> bool:
    return word.lower() in _SIDES or word.lower().startswith(_STEMS)


def _swapped(one: str, other: str) -> bool:
    """Return whether two names differ in one letter, an L or an R."""
    if len(one) != len(other):
        return False
    differing = [{a, b} for a, b in zip(one.lower(), other.lower(), strict=True) if a != b]
    return differing == [{"l", "r"}]
