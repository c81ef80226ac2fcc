"""The page and the texts: self-contained, and names stay text."""

import json
import re
import shutil

from medseg.check.dataset import check
from medseg.check.options import CheckOptions
from medseg.cli import main

HOSTILE = "[/] <script>alert(1)</script> \U0001f600"


def test_a_folder_gets_all_three_forms(small_set, tmp_path):
    shutil.copyfile(small_set.label("case_a"), small_set.label("case_c"))
    assert check(CheckOptions(small_set.save(), output=tmp_path / "doctor", workers=1)) == 3
    page = (tmp_path / "doctor/check.html").read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("data:image/png;base64,") == 1  # one case is concerned
    assert "error: duplicate-label" in page
    assert len(page) < 300_000
    found = json.loads((tmp_path / "doctor/check.json").read_text(encoding="utf-8"))
    assert found["findings"][0]["files"][0].endswith("labels/case_c.nii.gz")
    assert "error   duplicate-label: case_c" in (tmp_path / "doctor/check.txt").read_text()


def test_hostile_names_stay_text(small_set, tmp_path, capsys):
    name = HOSTILE.replace("/", "")
    target = small_set.folder / f"labels/{name}.nii.gz"
    shutil.copyfile(small_set.label("case_a"), target)
    small_set.entry("case_c").update(label=f"labels/{name}.nii.gz", case_id="\u202e" + name)
    path = small_set.save()
    assert check(CheckOptions(path, output=tmp_path / "x.html", workers=1)) == 3
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert main(["check", "--manifest", str(path), "--workers", "1"]) == 3
    assert "\u202e" not in capsys.readouterr().out


def test_json_on_the_standard_output_is_read_by_a_program(small_set, capsys):
    path = small_set.save()
    assert main(["check", "--manifest", str(path), "--json", "--workers", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["manifest", "data_digest", "cases_checked", "counts", "findings"]


def test_a_page_without_a_finding_says_so(small_set, tmp_path):
    assert check(CheckOptions(small_set.save(), output=tmp_path / "x.html", workers=1)) == 0
    assert "Nothing was found." in (tmp_path / "x.html").read_text(encoding="utf-8")
