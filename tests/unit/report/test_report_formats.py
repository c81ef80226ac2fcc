"""Markdown, CSV and PDF beside the page."""

import csv
import sys

import pytest

from medseg.core.errors import OptionError
from medseg.core.runs import csv_text
from medseg.report.options import ReportOptions
from medseg.report.pages import report

HOSTILE = "=cmd()|<script>x</script>[/]\n`*😀"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a report in some formats and returns a file of it."""

    def written(*runs, formats):
        output = tmp_path / "out" / "r.html"
        assert report(ReportOptions(tuple(runs), output, formats)) == 0
        return output

    return written


def test_each_format_is_written_beside_the_others(make_run, write):
    output = write(make_run(), formats=("html", "md", "csv"))
    assert {p.name for p in output.parent.iterdir()} == {"r.html", "r.md", "r.csv"}


def test_one_format_is_written_alone(make_run, write):
    output = write(make_run(), formats=("md",))
    assert [p.name for p in output.parent.iterdir()] == ["r.md"]


def test_markdown_holds_the_tables_and_what_they_allow(make_run, write):
    text = write(make_run(), formats=("md",)).with_suffix(".md").read_text()
    assert text.startswith("# Segmentation report: livers\n")
    assert "| batch | batch | 0.600 \\[" in text
    assert "Descriptive only: one run" in text
    assert "| lesion | batch | 0.400 \\[" in text


def test_hostile_names_stay_text_in_markdown(make_run, write):
    run = make_run(fit={"name": HOSTILE, "data_set": HOSTILE})
    text = write(run, formats=("md",)).with_suffix(".md").read_text()
    assert "<script" not in text.replace("\\<", "")
    row = next(line for line in text.splitlines() if line.startswith("| \\=cmd"))
    assert row.replace("\\|", "").count("|") == 8  # seven columns
    assert "\\[/\\] \\`\\*😀" in row


def test_the_csv_holds_every_number_and_no_formula(make_run, write):
    path = write(make_run(fit={"name": HOSTILE}), formats=("csv",)).with_suffix(".csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {csv_text(row["run"]) for row in rows} == {HOSTILE}
    assert all(row["run"].startswith("'=") for row in rows)
    lesion = {row["metric"]: row for row in rows if row["class_name"] == "lesion"}
    assert float(lesion["dice"]["mean"]) == pytest.approx(0.4)
    assert lesion["dice"]["n_missed"] == "1"
    assert lesion["hd95_mm"]["highest"] == "inf"


def test_pdf_without_its_library_is_refused_before_anything_is_written(
    make_run, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    options = ReportOptions((make_run(),), tmp_path / "r.html", ("html", "pdf"))
    with pytest.raises(OptionError, match=r"pip install 'medseg\[pdf\]'"):
        report(options)
    assert not (tmp_path / "r.html").exists()


def test_a_pdf_loads_nothing_from_elsewhere(make_run, write):
    pytest.importorskip("weasyprint", reason="WeasyPrint is not installed")
    output = write(make_run(volumes=True), formats=("pdf",))
    assert output.with_suffix(".pdf").read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize("form", ["html", "md", "csv"])
def test_half_a_surrogate_pair_is_written_as_a_question_mark(make_run, write, form):
    run = make_run()
    fit = run / "fit.json"
    fit.write_text(fit.read_text().replace('"name": "batch"', '"name": "half \\ud800"'))
    assert "half ?" in write(run, formats=(form,)).with_suffix(f".{form}").read_text()


def test_the_html_file_cannot_take_the_name_of_another_format(make_run, tmp_path):
    with pytest.raises(OptionError, match=r"choose .*r\.html"):
        report(ReportOptions((make_run(),), tmp_path / "r.csv"))
