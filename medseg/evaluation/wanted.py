"""What is to be scored: classes and regions, each with its tolerance and its lesions."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.core.errors import OptionError, problems, suggestion
from medseg.core.lesions import LesionRule
from medseg.core.metrics import Structure
from medseg.evaluation.options import EvaluateOptions

ALL = "all"
_BY_VALUE = "without --manifest, classes are named by their value"


@dataclass(frozen=True)
class Wanted:
    """The structures to score.

    Attributes:
        classes: Label value of each class by name; None for all values found, named by themselves.
        regions: Label values of each region by name.
        tolerance_mm: Of the normalized surface distance, where no other is given.
        tolerances_mm: Others, by class or region.
        lesions: Classes and regions whose lesions are counted; `all` for every one.
        lesion_rule: What a lesion is.
    """

    classes: Mapping[str, int] | None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tolerance_mm: float = 2.0
    tolerances_mm: Mapping[str, float] = field(default_factory=dict)
    lesions: tuple[str, ...] = ()
    lesion_rule: LesionRule = field(default_factory=LesionRule)

    @classmethod
    def of(cls, options: EvaluateOptions, classes: Mapping[str, int] | None) -> Wanted:
        """Read what the options ask for.

        Raises:
            OptionError: If they name unknown classes or are no numbers; the message lists it all.
        """
        found: list[str] = []
        regions = _regions(options.regions, classes, found)
        tolerance, tolerances = _tolerances(options.tolerance_mm, found)
        for flag, given in (("tolerance_mm", tolerances), ("lesions", {*options.lesions} - {ALL})):
            found += [
                f"--{flag}: {_unknown(name, classes, regions)}"
                for name in sorted(given)
                if not (name in regions or _is_class(name, classes))
            ]
        if not (math.isfinite(options.lesion_min_ml) and options.lesion_min_ml >= 0):
            found.append(f"--lesion_min_ml must be 0 or more; got {options.lesion_min_ml!r}")
        if not 0 <= options.lesion_iou <= 1:
            found.append(f"--lesion_iou must be between 0 and 1; got {options.lesion_iou!r}")
        if found:
            raise OptionError(problems("evaluate", found))
        rule = LesionRule(options.lesion_connectivity, options.lesion_min_ml, options.lesion_iou)
        return cls(classes, regions, tolerance, tolerances, options.lesions, rule)

    def structures(self, values: Collection[int]) -> dict[str, Structure]:
        """Return what to score in a case that holds these label values, by name."""
        classes = self.classes
        if classes is None:
            classes = {str(value): value for value in sorted(values)}
        members = {name: (value,) for name, value in classes.items()} | dict(self.regions)
        return {
            name: Structure(of, self.tolerance_of(name), self.lesion_rule_of(name))
            for name, of in members.items()
        }

    def tolerance_of(self, name: str) -> float:
        """Return the tolerance of a class or region, mm."""
        return self.tolerances_mm.get(name, self.tolerance_mm)

    def lesion_rule_of(self, name: str) -> LesionRule | None:
        """Return what the lesions of a class or region are, None if they are not counted."""
        return self.lesion_rule if {name, ALL} & set(self.lesions) else None


def _tolerances(words: Sequence[str], found: list[str]) -> tuple[float, dict[str, float]]:
    """Read `2` and `tumour=3`."""
    default: list[float] = []
    by_name: dict[str, float] = {}
    for word in words:
        name, equals, number = str(word).rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            found.append(f"--tolerance_mm must be above 0, as in `2 tumour=3`; got {word!r}")
        elif equals:
            by_name[name] = value
        else:
            default.append(value)
    if len(default) > 1:
        found.append(f"--tolerance_mm has {len(default)} numbers for all classes; give one")
    return (default or [float(EvaluateOptions.tolerance_mm[0])])[0], by_name


def _regions(
    words: Sequence[str], classes: Mapping[str, int] | None, found: list[str]
) -> dict[str, tuple[int, ...]]:
    """Read `whole=1,2,3` and JSON files, each member a class name or a label value."""
    given: list[tuple[str, Sequence[Any]]] = []
    for word in words:
        name, equals, members = word.rpartition("=")
        if equals:
            given.append((name, [member.strip() for member in members.split(",")]))
        elif word.lower().endswith(".json"):
            given += _regions_in(Path(word), found)
        else:
            found.append(f"--regions must be as `whole=1,2,3` or a .json file; got {word!r}")
    regions: dict[str, tuple[int, ...]] = {}
    for name, words_of in given:
        values = [_value(member, classes) for member in words_of]
        wrong = [word for word, value in zip(words_of, values, strict=True) if value is None]
        found += [f"--regions {name!r}: {_unknown(word, classes)}" for word in wrong]
        if not name or not values or name in regions or name in (classes or ()):
            found.append(f"--regions {name!r}: needs a name of its own and a class or more")
        elif classes is None and name.isdecimal():
            found.append(f"--regions {name!r}: {_BY_VALUE}; a region needs another name")
        regions[name] = tuple(dict.fromkeys(v for v in values if v is not None))
    return regions


def _regions_in(path: Path, found: list[str]) -> list[tuple[str, Sequence[Any]]]:
    """Return the lists in a JSON object, or in its `labels`, as in nnU-Net's dataset.json."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found.append(f"--regions {path} cannot be read: {error}")
        return []
    if isinstance(content, dict) and isinstance(content.get("labels"), dict):
        content = content["labels"]
    entries = content.items() if isinstance(content, dict) else ()
    lists: list[tuple[str, Sequence[Any]]] = [(k, v) for k, v in entries if isinstance(v, list)]
    if not lists:
        found.append(f'--regions {path} holds no region such as "whole": [1, 2, 3]')
    return lists


def _value(member: Any, classes: Mapping[str, int] | None) -> int | None:
    """Return the label value of a class named or numbered, None if there is none."""
    text = str(member)
    if classes is not None and text in classes:
        return classes[text]
    if not text.isdecimal() or int(text) == 0:
        return None
    return int(text) if classes is None or int(text) in classes.values() else None


def _is_class(name: str, classes: Mapping[str, int] | None) -> bool:
    return name in classes if classes is not None else _value(name, None) is not None


def _unknown(name: object, classes: Mapping[str, int] | None, regions: Collection[str] = ()) -> str:
    if classes is None:
        return f"no class {name!r}; {_BY_VALUE}."
    names = [*classes, *regions]
    return f"no class {name!r}; there are {', '.join(names)}.{suggestion(str(name), names)}"
