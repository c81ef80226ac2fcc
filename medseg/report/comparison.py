"""A comparison as HTML: a section for any page, and a page of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from medseg.core.comparison import Comparison, Level, compare_variants
from medseg.core.errors import OptionError
from medseg.core.metrics import METRICS
from medseg.core.paired import ALPHA, EXACT_UP_TO, POWER
from medseg.core.pairs import Pair
from medseg.core.statistics import BOOTSTRAP_FROM
from medseg.core.verdicts import digits_for
from medseg.report import comparison_figures as figures
from medseg.report.contestants import Contestant, design_of, notes_on
from medseg.report.sources import Source
from medseg.report.tables import DASH, number
from medseg.report.templating import asset, environment, still_page

METRICS_COMPARED = ("dice", "hd95_mm", "nsd")

_OUTCOMES = {
    "better": "second better",
    "worse": "first better",
    "unclear": "no clear difference",
    "too few": "too few cases",
}


@dataclass(frozen=True)
class ScoredFile:
    """One of the files that are compared.

    Attributes:
        variant: The variant it is a training of.
        path: As the user named it.
        scored: Cases in it.
        trained: Of these, cases that trained the network; left out.
        unmatched: Of the others, cases that are not in all files; left out.
    """

    variant: str
    path: str
    scored: int
    trained: int
    unmatched: int


def section(comparison: Comparison) -> Markup:
    """Return the sections of a comparison; they need the styles of the report's page."""
    html = environment().get_template("comparison_sections.html").render(**_content(comparison))
    return Markup(html)  # noqa: S704  # the template escapes what it is given


def comparison_of(sources: Sequence[Source]) -> Markup:
    """Return the sections that compare several runs, each a variant; nothing for one.

    Runs that share no case or class are not compared; the report's conclusions say so.
    """
    contestants = [Contestant(source.name, source) for source in sources if source.scores]
    if len(contestants) < 2:
        return Markup()
    try:
        design = design_of(contestants, METRICS_COMPARED)
    except OptionError:
        return Markup()
    return section(compare_variants(design, tuple(notes_on(contestants, design, METRICS_COMPARED))))


def page(comparison: Comparison, files: Sequence[ScoredFile]) -> str:
    """Return a self-contained page that loads and runs nothing."""
    return still_page(
        environment(),
        "comparison.html",
        asset("style.css"),
        names=[level.name for level in comparison.levels],
        files=files,
        n_cases=comparison.n_cases,
        sections=section(comparison),
    )


def _content(comparison: Comparison) -> dict[str, Any]:
    return {
        "overall": comparison.overall,
        "verdicts": [pair.verdict for pair in comparison.primary],
        "notes": comparison.notes,
        "levels": [level_row(level) for level in comparison.levels],
        "pairs": [pair_row(pair) for pair in comparison.primary],
        "families": _families(comparison.descriptive),
        "has_seeds": any(len(level.seed_means) > 1 for level in comparison.levels),
        "has_groups": len(comparison.units) != comparison.n_cases,
        "difference": comparison.difference,
        "comparisons": len(comparison.primary),
        "bootstrap_from": BOOTSTRAP_FROM,
        "exact_up_to": EXACT_UP_TO,
        "alpha": ALPHA,
        "power": POWER,
        "ranking_words": [
            (ranking.order, number(ranking.kendall_tau, 2), number(ranking.kendall_tau_low, 2))
            for ranking in comparison.rankings
        ],
        "figure_differences": figures.differences(comparison),
        "hidden_pairs": figures.hidden_pairs(comparison.primary),
        "figure_cases": figures.cases(comparison),
        "figure_ranks": figures.rank_frequencies(comparison),
    }


def level_row(level: Level) -> dict[str, str]:
    """Return one variant's row, as text."""
    return {
        "name": level.name,
        "mean": _interval(level.mean, level.ci_low, level.ci_high, 3, signed=False),
        "median": number(level.median, 3),
        "sd": number(level.sd, 3),
        "seeds": str(len(level.seed_means)),
        "seed_sd": number(level.seed_sd, 4),
        "n": str(level.n),
        "cases": str(level.n_cases),
        "failed": f"{level.n_failed} of {level.n_cases} "
        f"[{number(100 * level.failed_low, 0)}, {number(100 * level.failed_high, 0)}]",
    }


def pair_row(pair: Pair) -> dict[str, str]:
    """Return one pair's row, as text."""
    digits = digits_for(pair)
    return {
        "first": pair.first,
        "second": pair.second,
        "n": str(pair.n),
        "means": f"{number(pair.mean_first, 3)}, {number(pair.mean_second, 3)}",
        "difference": _interval(pair.difference, pair.ci_low, pair.ci_high, digits, signed=True),
        "median": _signed(pair.median_difference, digits),
        "p": p_text(pair.p),
        "holm": p_text(pair.p_holm),
        "rank_biserial": _signed(pair.rank_biserial, 2),
        "standardized": _signed(pair.standardized, 2),
        "counts": f"{pair.wins} / {pair.ties} / {pair.losses}",
        "better": _interval(pair.p_better, pair.p_better_low, pair.p_better_high, 2, signed=False),
        "detectable": number(pair.detectable, digits),
        "needed": DASH if pair.needed is None else number(pair.needed, 0),
        "infinite": f"{pair.infinite_first}, {pair.infinite_second}",
        "left_out": str(pair.n_undefined + pair.n_one_sided),
        "method": pair.ci_method,
        "outcome": _OUTCOMES.get(pair.outcome, ""),
    }


def _families(pairs: Sequence[Pair]) -> list[tuple[str, list[dict[str, str]]]]:
    """Return the rows of each descriptive endpoint."""
    found: dict[str, list[dict[str, str]]] = {}
    for pair in pairs:
        unit = METRICS[pair.metric].unit
        label = pair.endpoint.label + (f", {unit}" if unit else "")
        found.setdefault(label, []).append(pair_row(pair))
    return list(found.items())


def _interval(value: float, low: float, high: float, digits: int, signed: bool) -> str:
    parts = [_signed(x, digits) if signed else number(x, digits) for x in (value, low, high)]
    return parts[0] if math.isnan(low) else f"{parts[0]} [{parts[1]}, {parts[2]}]"


def _signed(value: float, digits: int) -> str:
    """Return a number with its sign, without one where it rounds to 0."""
    return number(0.0 if round(value, digits) == 0 else value, digits, round(value, digits) != 0)


def p_text(p: float) -> str:
    """Return a p value for a table."""
    if math.isnan(p):
        return DASH
    return "<\N{NO-BREAK SPACE}0.001" if p < 0.001 else f"{p:.3f}"
