"""The report in other formats: its tables as Markdown, its numbers as CSV, its print as PDF."""

from __future__ import annotations

import csv
import importlib
import io
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medseg.core.errors import OptionError
from medseg.core.runs import atomic_text, csv_cell
from medseg.report import provenance, tables
from medseg.report.conclusions import conclusions
from medseg.report.metric_table import MetricRow, metric_rows
from medseg.report.options import Format, ReportOptions
from medseg.report.sources import Source

MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|$~]|^[-+=])")


def check_formats(options: ReportOptions) -> None:
    """Check that every format can be written.

    Raises:
        OptionError: If two would be one file, or a library is not installed.
    """
    if "pdf" in options.format:
        _weasyprint()
    if options.output.suffix in (".md", ".csv", ".pdf") and "html" in options.format:
        raise OptionError(
            f"--output {options.output} names the HTML file, and other formats after it: "
            f"choose {options.output.with_suffix('.html')}."
        )


def write_formats(options: ReportOptions, sources: Sequence[Source], page: str) -> Iterator[Path]:
    """Write each format and yield its path."""
    for form in dict.fromkeys(options.format):
        path = options.output if form == "html" else options.output.with_suffix(f".{form}")
        if form == "pdf":
            _write_pdf(path, page)
        else:
            _write_text(path, form, sources, page)
        yield path


def _write_text(path: Path, form: Format, sources: Sequence[Source], page: str) -> None:
    out = io.StringIO(newline="")
    if form == "csv":
        csv.writer(out, lineterminator="\n").writerows(csv_rows(metric_rows(sources)))
    else:
        out.write(page if form == "html" else markdown(sources))
    with atomic_text(path) as file:
        # A name may hold half a surrogate pair, which UTF-8 cannot.
        file.write(out.getvalue().encode("utf-8", "replace").decode())


def csv_rows(rows: Sequence[MetricRow]) -> Iterator[list[str]]:
    """Yield the lines of the CSV: header, then class, metric, run and all numbers."""
    for place, row in enumerate(rows):
        numbers = asdict(row.summary) | {"lowest": row.lowest, "highest": row.highest}
        del numbers["mean_with_penalty"]  # the diagonals of the images are not known here
        if not place:
            yield ["class_name", "metric", "run", *numbers]
        words = (row.class_name, row.metric, row.run)
        yield [*map(csv_cell, words), *map(str, numbers.values())]


def markdown(sources: Sequence[Source]) -> str:
    """Return provenance, results, classes and conclusions as Markdown."""
    title = provenance.data_set(sources) or ", ".join(source.name for source in sources)
    blocks = [f"# Segmentation report: {_escaped(title)}"]
    blocks += [
        "\n".join(f"- {_escaped(f'{a}: {b}')}" for a, b in provenance.provenance_rows(sources))
    ]
    blocks += [f"> {_escaped(text)}" for text in provenance.missing_parts(sources)]
    blocks += ["## Cases", _table(provenance.flow_rows(sources))]
    blocks += ["## Result", _table(tables.run_rows(sources))]
    blocks += [_escaped(sentence) for sentence in conclusions(sources)]
    classes = [{"class": name} | row for name, rows in tables.class_groups(sources) for row in rows]
    if classes:
        blocks += ["## Classes", _table(classes), _KEY]
    return "\n\n".join(blocks) + "\n"


_KEY = (
    "dice: mean [95 % interval]; median [quartiles] of Dice; hd95 and assd: medians, mm; nsd: "
    "mean; missed and invented: count [95 % interval of the rate, %]."
)


def _table(rows: Sequence[dict[str, str]]) -> str:
    lines = [
        list(rows[0]),
        ["---"] * len(rows[0]),
        *(list(map(_escaped, r.values())) for r in rows),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _escaped(text: str) -> str:
    """Return text that Markdown leaves as it is, on one line."""
    return MARKDOWN_SIGNS.sub(r"\\\1", " ".join(text.replace("&", "&amp;").split()))


def with_code(text: str) -> Markup:
    """Set what stands between backticks as code; all else stays text."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part
        for place, part in enumerate(parts)
    )


def _write_pdf(path: Path, page: str) -> None:
    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # it warns of CSS meant for screens
    weasyprint = _weasyprint()
    own = weasyprint.urls.URLFetcher(allowed_protocols={"data"})  # the page holds all it shows
    content = weasyprint.HTML(
        string=page.encode("utf-8", "replace").decode(), url_fetcher=own
    ).write_pdf()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise OptionError(f"{path} cannot be written ({error.strerror or error}).") from error


def _weasyprint() -> Any:
    try:
        return importlib.import_module("weasyprint")
    except (ImportError, OSError) as error:  # OSError: Pango is not there
        raise OptionError(
            f"--format pdf needs WeasyPrint ({error}): pip install 'medseg[pdf]', or print the "
            "HTML from a browser."
        ) from error
