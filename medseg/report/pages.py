"""`medseg report`: one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import logging
from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from medseg import __version__
from medseg.core.errors import OptionError
from medseg.core.runs import atomic_text
from medseg.report import figures, sections
from medseg.report.options import ReportOptions
from medseg.report.pictures import PREDICTION_COLOUR, REFERENCE_COLOUR, pictures
from medseg.report.sources import Source, read_source, with_unique_names

log = logging.getLogger("medseg")


def report(options: ReportOptions) -> int:
    """Write the report.

    Raises:
        OptionError: If a run does not exist or there is nothing to report.
    """
    if options.worst < 0:
        raise OptionError(f"--worst must be 0 or more; got {options.worst}.")
    sources = with_unique_names([read_source(path) for path in options.runs])
    page = render(sources, options.worst)
    try:
        with atomic_text(options.output) as file:
            file.write(page)
    except OSError as error:
        raise OptionError(
            f"--output {options.output} cannot be written ({error.strerror})."
        ) from error
    log.info("report of %d run(s): %s", len(sources), options.output)
    return 0


def render(sources: list[Source], worst: int) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("medseg.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _asset("style.css"), _asset("table.js")
    return environment.get_template("page.html").render(
        **_content(sources, worst),
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'",
    )


def _content(sources: list[Source], worst: int) -> dict[str, Any]:
    return {
        "version": __version__,
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "names": [source.name for source in sources],
        "data_set": sections.data_set(sources),
        "provenance": sections.provenance_rows(sources),
        "flow": sections.flow_rows(sources),
        "runs": sections.run_rows(sources),
        "classes": sections.class_rows(sources),
        "cases": sections.case_rows(sources),
        "conclusions": sections.conclusions(sources),
        "missing": [(source.name, text) for source in sources for text in source.missing],
        "curves": figures.curves(sources),
        "strips": figures.strips(sources),
        "volumes": figures.volumes(sources),
        "pictures": [picture for source in sources for picture in pictures(source, worst)],
        "colours": {"reference": REFERENCE_COLOUR, "prediction": PREDICTION_COLOUR},
    }


def _asset(name: str) -> str:
    folder = resources.files("medseg.report") / "templates"
    return (folder / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """Return the text's entry in a content security policy."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
