"""`medseg report`: one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medseg import __version__
from medseg.core.errors import OptionError
from medseg.core.runs import atomic_text
from medseg.core.statistics import BOOTSTRAP_FROM
from medseg.report import figures, provenance, tables
from medseg.report.options import ReportOptions
from medseg.report.pictures import gallery
from medseg.report.slices import PREDICTION_COLOUR, REFERENCE_COLOUR
from medseg.report.sources import Source, read_sources

log = logging.getLogger("medseg")


def report(options: ReportOptions) -> int:
    """Write the report.

    Raises:
        OptionError: If there is nothing to report in a run, or the page cannot be written.
    """
    if options.worst < 0:
        raise OptionError(f"--worst must be 0 or more; got {options.worst}.")
    sources = read_sources(options.runs)
    page = render(sources, options.worst)
    with atomic_text(options.output) as file:
        file.write(page)
    log.info("report of %d run(s): %s", len(sources), options.output)
    return 0


def render(sources: Sequence[Source], worst: int) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("medseg.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["with_code"] = _with_code
    colours = f":root {{ --reference: {REFERENCE_COLOUR}; --prediction: {PREDICTION_COLOUR}; }}\n"
    style, script = colours + _asset("style.css"), _asset("table.js")
    page = environment.get_template("page.html").render(
        **_content(sources, worst),
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'",
    )
    return page.encode("utf-8", "replace").decode()  # a name may hold half a surrogate pair


def _content(sources: Sequence[Source], worst: int) -> dict[str, Any]:
    galleries = [gallery(source, worst) for source in sources]
    return {
        "version": __version__,
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "names": [source.name for source in sources],
        "data_set": provenance.data_set(sources),
        "provenance": provenance.provenance_rows(sources),
        "flow": provenance.flow_rows(sources),
        "conclusions": provenance.conclusions(sources),
        "missing": provenance.missing_parts(sources),
        "runs": tables.run_rows(sources),
        "classes": tables.class_groups(sources),
        "cases": tables.case_rows(sources),
        "bootstrap_from": BOOTSTRAP_FROM,
        "has_groups": any(source.groups for source in sources),
        "definitions": tables.definitions(sources),
        "definition_note": tables.definition_note(sources),
        "curves": figures.curves(sources),
        "strips": figures.strips(sources),
        "volumes": figures.volumes(sources),
        "galleries": [gallery for gallery in galleries if gallery.pictures],
        "configs": [(source.name, source.config) for source in sources if source.config],
    }


def _with_code(text: str) -> Markup:
    """Set what stands between backticks as code; all else stays text."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part
        for place, part in enumerate(parts)
    )


def _asset(name: str) -> str:
    folder = resources.files("medseg.report") / "templates"
    return (folder / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """Return the text's entry in a content security policy."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
