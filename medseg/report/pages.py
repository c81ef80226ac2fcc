"""`medseg report`: one self-contained HTML page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from medseg import __version__
from medseg.core.errors import OptionError
from medseg.core.statistics import BOOTSTRAP_FROM
from medseg.report import agreement, curves, figures, provenance, tables
from medseg.report.comparison import comparison_of
from medseg.report.conclusions import conclusions
from medseg.report.cost import cost_rows
from medseg.report.distances import distances
from medseg.report.formats import check_formats, with_code, write_formats
from medseg.report.metric_table import metric_groups, metric_rows
from medseg.report.options import ReportOptions
from medseg.report.pictures import gallery
from medseg.report.preface import Preface
from medseg.report.slices import PREDICTION_COLOUR, REFERENCE_COLOUR
from medseg.report.sources import Source, read_sources
from medseg.report.style import MOST_RUNS
from medseg.report.templating import asset, environment, now, policy_hash
from medseg.report.viewer import Viewer, find_viewer

log = logging.getLogger("medseg")


def report(options: ReportOptions) -> int:
    """Write the report.

    Raises:
        OptionError: If there is nothing to report in a run, or a file cannot be written.
    """
    for name in ("worst", "viewer_cases"):
        if getattr(options, name) < 0:
            raise OptionError(f"--{name} must be 0 or more; got {getattr(options, name)}.")
    check_formats(options)
    write_report(options, read_sources(options.runs))
    return 0


def write_report(
    options: ReportOptions, sources: Sequence[Source], preface: Preface | None = None
) -> None:
    """Write the report of sources that were read already."""
    page = ""
    if {"html", "pdf"} & set(options.format):
        viewer_cases = options.viewer_cases * ("html" in options.format)
        page = render(sources, options.worst, viewer_cases, preface)
    for path in write_formats(options, sources, page):
        log.info("report of %d run(s): %s", len(sources), path)


def render(
    sources: Sequence[Source], worst: int, viewer_cases: int, preface: Preface | None = None
) -> str:
    """Return the page."""
    templates = environment()
    templates.filters["with_code"] = with_code
    colours = f":root {{ --reference: {REFERENCE_COLOUR}; --prediction: {PREDICTION_COLOUR}; }}\n"
    viewer = find_viewer() if viewer_cases else None
    content = {**_tables(sources), **_figures(sources), "preface": preface}
    content["comparison"] = comparison_of(sources)
    content |= _pictures(sources, worst, viewer, viewer_cases)
    viewer = content["viewer"]
    style = colours + asset("style.css")
    script = asset("table.js") + ("\n" + asset("viewer.js") if viewer else "")
    return templates.get_template("page.html").render(
        **content, style=style, script=script, policy=_policy(style, script, viewer)
    )


def _tables(sources: Sequence[Source]) -> dict[str, Any]:
    return {
        "version": __version__,
        "made": now(),
        "names": [source.name for source in sources],
        "data_set": provenance.data_set(sources),
        "provenance": provenance.provenance_rows(sources),
        "flow": provenance.flow_rows(sources),
        "missing": provenance.missing_parts(sources),
        "conclusions": conclusions(sources),
        "runs": tables.run_rows(sources),
        "classes": tables.class_groups(sources),
        "metrics": metric_groups(metric_rows(sources)),
        "agreements": agreement.agreement_groups(sources),
        "costs": cost_rows(sources),
        "cases": tables.case_rows(sources),
        "bootstrap_from": BOOTSTRAP_FROM,
        "has_groups": any(source.groups for source in sources),
        "definitions": tables.definitions(sources),
        "definition_note": tables.definition_note(sources),
        "configs": [(source.name, source.config) for source in sources if source.config],
    }


def _figures(sources: Sequence[Source]) -> dict[str, Any]:
    more = f" The first {MOST_RUNS} of {len(sources)} runs." if len(sources) > MOST_RUNS else ""
    return {
        "strips": figures.strips(sources),
        "sizes": figures.sizes(sources),
        "distances": distances(sources),
        "bland_altman": agreement.bland_altman(sources),
        "curves": curves.curves(sources),
        "curve_cases": curves.case_words(sources),
        "more_runs": more,
    }


def _pictures(
    sources: Sequence[Source], worst: int, viewer: Viewer | None, viewer_cases: int
) -> dict[str, Any]:
    """Return the galleries; the runs take turns in sharing the cases of the viewer."""
    shares = [len(range(place, viewer_cases, len(sources))) for place in range(len(sources))]
    galleries = [
        gallery(source, worst, share if viewer else 0)
        for source, share in zip(sources, shares, strict=True)
    ]
    opened = sum(picture.preview is not None for g in galleries for picture in g.pictures)
    note = ""
    if viewer and opened:
        note = (
            f"{opened} of these cases can be scrolled through here, with NiiVue (© its authors, "
            f"BSD 2-Clause licence; from {viewer.origin})."
        )
    elif viewer_cases and not viewer:
        note = (
            "A viewer to scroll through cases comes with `pip install 'medseg[viewer]'`, "
            "if the report is then written again."
        )
    return {
        "galleries": [gallery for gallery in galleries if gallery.pictures],
        "viewer": viewer if opened else None,
        "viewer_note": note,
    }


def _policy(style: str, script: str, viewer: Viewer | None) -> str:
    """Return the content security policy: nothing but what is in the page, known by its hash."""
    scripts = [policy_hash(script), *([policy_hash(viewer.script)] if viewer else [])]
    rules = {
        "default-src": "'none'",
        "img-src": "data: blob:" if viewer else "data:",
        "style-src": policy_hash(style),
        "script-src": " ".join(scripts),
        **({"connect-src": "data: blob:"} if viewer else {}),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {sources}" for name, sources in rules.items())
