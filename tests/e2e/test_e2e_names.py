"""Case names that would drive a terminal, a table or a page stay text from scores to report."""

import csv
import json

import numpy as np
import pytest

from medseg.cli import main
from medseg.core.geometry import Grid
from medseg.io import write_label_map

NAMES = ["<script>", "[red]bold[", "=cmd()", "new\nline", "brain \N{BRAIN}", "esc\x1b[31m", "@sum"]
GRID = Grid.from_spacing((8, 8, 8), (1, 1, 1))


@pytest.fixture
def folders(tmp_path):
    for number, name in enumerate(NAMES):
        for side in ("ref", "pred_a", "pred_b"):
            label = np.zeros(GRID.shape, int)
            label[2:6, 2:6, 2 : 6 - (number % 2) * (side != "ref")] = 1
            write_label_map(tmp_path / side / f"{name}.nii.gz", label, GRID)
    return tmp_path


def test_hostile_case_names_stay_text(folders, capsys):
    for run in ("a", "b"):
        flags = ["--predictions", folders / f"pred_{run}", "--references", folders / "ref"]
        assert main(["evaluate", *map(str, flags), "--output", str(folders / run)]) == 0
    scores = [str(folders / run / "scores.csv") for run in ("a", "b")]
    assert main(["compare", "--scores", *scores, "--output", str(folders / "compared")]) == 0
    page = folders / "report.html"
    assert main(["report", "--runs", *scores, "--output", str(page)]) == 0
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    for table in ("scores.csv", "cases.csv"):
        with (folders / "a" / table).open(newline="") as file:
            cells = {row["case_id"] for row in csv.DictReader(file)}
        assert len(cells) == len(NAMES)
        assert not any(cell[0] in "=@" for cell in cells), "a spreadsheet would compute it"
    summary = json.loads((folders / "a" / "summary.json").read_text())
    assert {row["case_id"] for row in summary["metric_per_case"]} == set(NAMES)
    for html in (page.read_text(), (folders / "compared" / "comparison.html").read_text()):
        assert html.count("<script>") <= 1  # the page's own
