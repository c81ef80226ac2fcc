"""Several networks that label together: whether they can, and what they ask of a case."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medseg.core.errors import CheckpointError, OptionError
from medseg.core.postprocessing import Postprocessing, Rule
from medseg.data.transforms import Preprocessing
from medseg.inference.cuts import Footprint
from medseg.inference.plan import Request
from medseg.inference.settings import Settings
from medseg.io.write import label_dtype
from medseg.networks.checkpoint import Description, Trained


def request_of(members: Sequence[Trained], settings: Settings, device: torch.device) -> Request:
    """Return what these networks ask of every case."""
    footprints = tuple(
        Footprint.of(
            member.description,
            settings.window(member.description, device),
            sum(weight.nbytes for weight in member.weights.values()),
        )
        for member in members
    )
    tasks = [member.description.task for member in members]
    return Request(
        footprints,
        tuple(Preprocessing(**task["preprocessing"]) for task in tasks),
        label_dtype(max(tasks[0]["labels"].values())).itemsize,
        rules=shared_rules([m.description for m in members]) if settings.postprocessing else (),
        on_host=device.type == "cpu",
    )


def shared_rules(descriptions: Sequence[Description]) -> Postprocessing:
    """Return the post-processing that all networks of an ensemble have found to help.

    Where they differ, the milder rule: an ensemble has fewer false pieces than its members.
    """
    tables = [{rule.class_name: rule for rule in each.postprocessing} for each in descriptions]
    shared = []
    for name in tables[0]:
        rules = [table[name] for table in tables if name in table]
        if len(rules) == len(tables):
            largest = all(rule.largest_component for rule in rules)
            shared.append(Rule(name, largest, min(rule.minimum_ml for rule in rules)))
    return tuple(rule for rule in shared if rule.largest_component or rule.minimum_ml)


def check_together(descriptions: Sequence[Description]) -> tuple[Description, ...]:
    """Return the descriptions of an ensemble.

    Raises:
        CheckpointError: If channels, label tables or orientations differ.
    """
    if not descriptions:
        raise OptionError("an ensemble needs at least one network.")
    first = descriptions[0].task
    for other in (description.task for description in descriptions[1:]):
        for key in ("labels", "channel_names"):
            # The order of the classes counts too.
            if list(other[key]) != list(first[key]) or other[key] != first[key]:
                raise CheckpointError(
                    f"the networks of an ensemble need equal {key}; got {first[key]} and "
                    f"{other[key]}."
                )
        ours, theirs = (Preprocessing(**task["preprocessing"]) for task in (first, other))
        if ours.orientation != theirs.orientation:
            raise CheckpointError(
                "the networks of an ensemble need one orientation; got "
                f"{ours.orientation} and {theirs.orientation}."
            )
    return tuple(descriptions)


def mirror_axes(description: Description) -> tuple[int, ...]:
    """Return the axes that test-time augmentation mirrors.

    Raises:
        OptionError: If the training mirrored none.
    """
    if not description.mirror_axes:
        raise OptionError(
            "--tta mirrors the axes that the training mirrored, and this one mirrored none "
            "(data.augmentation.flip_axes): mirrored images would be unlike all it has seen."
        )
    return description.mirror_axes


def role_of(descriptions: Sequence[Description], case_id: str) -> str:
    """Return what a case of this name was: `training`, `validation` or `unseen`."""
    if any(case_id in description.trained_on for description in descriptions):
        return "training"
    known = any(case_id in description.task["val_cases"] for description in descriptions)
    return "validation" if known else "unseen"
