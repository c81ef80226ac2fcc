"""study.html of a study of norms: which to take, what was measured, what the claims come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medseg.core.runs import atomic_text, write_json
from medseg.engine.progress import printable
from medseg.report.templating import asset, environment, still_page
from medseg.study import norm_figures, norm_run_figures
from medseg.study.accuracy_table import accuracies, drop_in
from medseg.study.choosing import Choice, choices_at
from medseg.study.claims import judge_claims
from medseg.study.comparable import Comparable, held_words
from medseg.study.cost_table import costs
from medseg.study.curve_reading import VIEWS_OF_BUDGET, at_common_count
from medseg.study.flags import SHORT_NAMES
from medseg.study.outcomes import Study
from medseg.study.planned import Plan
from medseg.study.recommendation import Recommendation, recommend_all
from medseg.study.run_outcomes import outcomes_of
from medseg.study.verdict_words import nothing

PAGE, RECOMMENDATION, CLAIMS = "study.html", "recommendation.json", "claims.json"

_EMPTY = "–"


def is_of_norms(plan: Plan) -> bool:
    """Return whether a study asks about norms: its runs differ in them, or its grid names one.

    Args:
        plan: Its runs that can be compared.
    """
    settings = [*(e.settings for e in plan.runs), *(cell.settings for cell in plan.left_out)]
    if len({given.get("model", {}).get("norm") for given in settings}) > 1:
        return True
    flags = {flag for entry in plan.runs for flag in entry.run.cell}
    return len(plan.runs) > 1 and SHORT_NAMES["norm"] in flags


def write_norm_page(part: Comparable, output: Path, current: str | None = None) -> Study:
    """Write the page, recommendation.json and claims.json; return the study they tell of."""
    study = outcomes_of(part.plan.runs, part.plan.left_out)
    found, claims = recommend_all(study, current), judge_claims(study)
    write_json(output / RECOMMENDATION, {str(size): asdict(r) for size, r in found.items()})
    write_json(output / CLAIMS, [asdict(claim) for claim in claims])
    with atomic_text(output / PAGE) as file:
        file.write(render(study, found, claims, _protocol(part)))
    return study


def render(
    study: Study,
    found: Mapping[int, Recommendation],
    claims: Sequence[Any],
    protocol: Sequence[tuple[str, str]],
) -> str:
    """Return the page.

    Args:
        study: All outcomes.
        found: The recommendation at each batch size.
        claims: Judged.
        protocol: What all trainings have in common, as label and text.
    """
    templates = environment("medseg.study")
    templates.filters |= {"printable": printable, "number": number, "interval": interval}
    sizes = study.batch_sizes
    choices = {size: choices_at(study, size) for size in sizes}
    return still_page(
        templates,
        "norms.html",
        asset("style.css") + "\n" + asset("norms.css", "medseg.study"),
        study=study,
        found=found,
        verdicts=[_verdict(found.get(size), size, choices[size]) for size in sizes],
        facts=_facts(study),
        alternatives=_alternatives(found),
        accuracy={size: accuracies(study, size) for size in sizes},
        drop_in={size: drop_in(study, size) for size in sizes},
        choices=choices,
        claims=claims,
        costs={size: costs(study, size) for size in sizes},
        views={view: at_common_count(study, view) for view in VIEWS_OF_BUDGET},
        troubled=[o for o in study.outcomes if o.status != "finished"],
        figures=_figures(study, found),
        protocol=protocol,
    )


def _verdict(found: Recommendation | None, size: int, choices: Mapping[str, Choice]) -> str:
    text = nothing(size, choices) if found is None else found.verdict
    return text[0].upper() + text[1:]


def _figures(study: Study, found: Mapping[int, Recommendation]) -> dict[str, str | None]:
    return {
        "batch": norm_figures.dice_by_batch_size(study),
        "ranks": norm_figures.rank_shares(found),
        "modes": norm_figures.three_modes(study),
        "map": norm_figures.heat_map(study),
        "rate": norm_run_figures.dice_by_rate(study),
        "curves": norm_run_figures.curves_by_samples(study),
        "runs": norm_run_figures.every_run(study),
        "cases": norm_run_figures.differences(study),
    }


def _facts(study: Study) -> list[tuple[str, str]]:
    outcomes = study.outcomes
    ran = [o for o in outcomes if o.status in ("finished", "diverged", "halved")]
    diverged = sum(o.status == "diverged" for o in outcomes)
    missing = sum(o.status in ("failed", "impossible", "out of memory") for o in outcomes)
    return [
        ("Trainings", f"{len(ran)}, of which {diverged} diverged"),
        ("Not done", str(missing)),
        ("Norms", str(len(study.norms))),
        ("Batch sizes", _listed({o.batch_size for o in outcomes})),
        ("Learning rates", _listed({o.learning_rate for o in outcomes})),
        ("Seeds", _listed({o.seed for o in outcomes})),
        *_varied("Dropout", {o.dropout for o in outcomes}, study.dropout),
        *_varied("Initial scales", {o.init_scale for o in outcomes}, study.init_scale),
        ("Cases reported", str(len(study.cases))),
    ]


def _varied(name: str, values: set[float], compared: float) -> list[tuple[str, str]]:
    """Return the values of what varies beside the norm, and which one norms are compared at."""
    text = f"{_listed(values)}; norms are compared at {compared:g}"
    return [(name, text)] if values - {compared} else []


def _listed(values: set[Any]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))


def _alternatives(found: Mapping[int, Recommendation]) -> list[tuple[str, list[Any]]]:
    """Return what each other way of looking would choose, one entry for each batch size."""
    names = dict.fromkeys(a.by for r in found.values() for a in r.alternatives)
    by_size = [{a.by: a for a in r.alternatives} for r in found.values()]
    return [(name, [there.get(name) for there in by_size]) for name in names]


def _protocol(part: Comparable) -> list[tuple[str, str]]:
    """Return what the trainings have in common."""
    plan = part.plan
    first = plan.runs[0]
    data, trainer = first.settings["data"], first.settings["trainer"]
    choose = {entry.fold for entry in plan.runs}
    report = {entry.reported for entry in plan.runs}
    fitted = next((entry.fitted for entry in plan.runs if entry.fitted), {})
    shared = [
        ("Trained on", f"folds {data['train_folds'] or 'all others'}"),
        ("Chosen on", f"fold {_listed(choose)}"),
        ("Reported on", f"fold {_listed(report)}"),
        ("Data set", str(fitted.get("data_set", _EMPTY))),
        ("Network", f"channels {first.settings['model']['network']['channels']}"),
        ("Patch", f"{data['patch_size']} voxels"),
        ("Precision", str(trainer.get("precision") or "32-true")),
        ("Device", str(fitted.get("device", _EMPTY))),
    ]
    if choose == report:
        shared.append(("Caution", "learning rates were chosen on the very cases that are reported"))
    if part.others:
        text = f"{part.others} trainings that differ in more than this: cells.csv has them"
        shared += [("Compared at", held_words(part.held)), ("Not compared", text)]
    return shared


def number(value: float | None, digits: int = 3) -> str:
    """Return a number for a table."""
    if value is None or not math.isfinite(value):
        return _EMPTY
    if value != 0 and (abs(value) < 10**-digits or abs(value) >= 1e5):
        return f"{value:.2g}"
    return f"{value:.{digits}f}"


def interval(value: float, low: float, high: float, signed: bool = False) -> str:
    """Return a number with its interval."""
    if not math.isfinite(value):
        return _EMPTY
    sign = "+" if signed else ""
    ends = f" [{low:{sign}.3f}, {high:{sign}.3f}]" if math.isfinite(low) else ""
    return f"{value:{sign}.3f}{ends}"
