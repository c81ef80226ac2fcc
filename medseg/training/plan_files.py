"""A plan as a file to train with, a page to read and a record for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medseg import __version__
from medseg.core.runs import atomic_text, write_json
from medseg.io.memory import size
from medseg.report.templating import asset, environment, still_page
from medseg.training.plan_choices import Choice, choices, max_time
from medseg.training.plan_draft import Draft
from medseg.training.plan_fit import cost_words
from medseg.training.plan_options import PlanOptions

_WIDTH = 100


def write_plan(draft: Draft, options: PlanOptions) -> None:
    """Write the configuration, and beside it the page and the record."""
    chosen = choices(draft, options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.output.with_suffix(".json"), _record(draft, chosen))
    with atomic_text(options.output.with_suffix(".html")) as file:
        file.write(_page(draft, chosen, options.output))
    with atomic_text(options.output) as file:  # last: whoever sees it can read the reasons
        file.write("\n".join(_yaml(draft, chosen)) + "\n")


def _yaml(draft: Draft, chosen: Sequence[Choice]) -> Iterator[str]:
    """Yield lines of YAML, each setting below its reason."""
    yield f"# Planned by medseg {__version__} for {draft.manifest.name}: medseg fit --config FILE"
    yield f"# {size(draft.machine.bytes)}, {max_time(draft.machine.seconds)} (DD:HH:MM:SS)."
    yield "# Flags after --config, and further --config files, override what stands here."
    open_keys: list[str] = []
    for choice in chosen:
        *parents, name = choice.key.split(".")
        common = 0
        while common < min(len(parents), len(open_keys)) and parents[common] == open_keys[common]:
            common += 1
        for depth in range(common, len(parents)):
            yield f"{'  ' * depth}{parents[depth]}:"
        open_keys = parents
        indent = "  " * len(parents)
        reason = " ".join(choice.reason.split())
        yield from textwrap.wrap(reason, _WIDTH, initial_indent=f"{indent}# ",
                                 subsequent_indent=f"{indent}# ")  # fmt: skip
        yield f"{indent}{name}: {_scalar(choice.value)}"


def _scalar(value: Any) -> str:
    """Return a value as YAML; JSON is YAML but for exponents without a point, which are text."""
    if isinstance(value, float):
        return f"{value:.4g}" if "e" not in f"{value:.4g}" else f"{value:.10f}".rstrip("0")
    if isinstance(value, list):
        return f"[{', '.join(_scalar(each) for each in value)}]"
    return json.dumps(value, ensure_ascii=False)


def _record(draft: Draft, chosen: Sequence[Choice]) -> dict[str, Any]:
    facts = draft.facts
    return {
        "data_set": draft.manifest.name,
        "data_digest": draft.manifest.digest,
        "fingerprint": {
            **asdict(facts),
            "median_shape": np.median(facts.shapes, axis=0).tolist(),
            "median_spacing": np.median(facts.spacings, axis=0).tolist(),
        },
        "machine": asdict(draft.machine),
        "step": {**asdict(draft.cost), "measured": draft.machine.there},
        "steps": draft.steps,
        "choices": [asdict(choice) for choice in chosen],
        "medseg": __version__,
    }


def _page(draft: Draft, chosen: Sequence[Choice], output: Path) -> str:
    return still_page(
        environment("medseg.training"),
        "plan.html",
        asset("style.css"),
        name=draft.manifest.name,
        output=str(output),
        facts=_facts(draft),
        choices=[(each.key, _scalar(each.value), each.reason) for each in chosen],
        channels=draft.facts.channels,
        classes=draft.facts.classes,
        cases=len(draft.facts.cases),
        axes=_axes(draft),
    )


def _facts(draft: Draft) -> list[tuple[str, str]]:
    """Return the numbers at the head of the page."""
    job = draft.job
    return [
        ("Norm", job.norm),
        ("Patch", " × ".join(map(str, job.patch_size))),
        ("Batch", str(job.batch_size)),
        ("Spacing, mm", " × ".join(f"{length:g}" for length in draft.spacing)),
        ("Levels", str(len(job.architecture.channels))),
        ("Step", cost_words(draft.cost)),
        ("Steps in the time", f"about {draft.steps}" if draft.steps else "not known"),
        ("Given", f"{size(draft.machine.bytes)}, {max_time(draft.machine.seconds)} (DD:HH:MM:SS)"),
    ]


def _axes(draft: Draft) -> list[dict[str, str]]:
    """Return the images' lengths and spacings along each axis."""
    rows = []
    for axis, name in enumerate(("left to right", "back to front", "feet to head")):
        shapes = np.asarray(draft.facts.shapes)[:, axis]
        spacings = np.asarray(draft.facts.spacings)[:, axis]
        rows.append({
            "name": name,
            "voxels": f"{np.median(shapes):g} [{shapes.min()}, {shapes.max()}]",
            "spacing": f"{np.median(spacings):.3g} [{spacings.min():.3g}, {spacings.max():.3g}]",
        })  # fmt: skip
    return rows
