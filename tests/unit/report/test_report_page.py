"""The report: its numbers, what is missing, hostile names, a real browser."""

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

from medseg.core.errors import OptionError
from medseg.core.geometry import Grid
from medseg.core.runs import RunFiles, Score, write_scores
from medseg.report.options import ReportOptions
from medseg.report.pages import report
from medseg.report.pictures import error_centre, to_ras
from medseg.report.sections import foreground_dice
from medseg.report.sources import read_source

CASES = {"a": (0.9, 0.5), "b": (0.7, 0.7), "c": (0.8, 0.0)}
HOSTILE = '<script>document.title="owned"</script>[/]=cmd()\n😀'


def save_label(path, filled):
    array = np.zeros((12, 10, 8), np.uint8)
    array[filled] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 2.0, 1.0])), path)


def scores_of(cases):
    for case_id, values in cases.items():
        for name, dice in zip(("liver", "lesion"), values, strict=True):
            lost = dice == 0
            rows = {"dice": dice, "hd95_mm": math.inf if lost else 3.0, "assd_mm": 1.0, "nsd": dice,
                    "volume_ref_ml": 2.0, "volume_pred_ml": 0.0 if lost else 1.5,
                    "volume_difference_ml": -2.0 if lost else -0.5}  # fmt: skip
            yield from (Score(case_id, "", name, metric, value) for metric, value in rows.items())


def make_run(folder, name="batch", cases=CASES, trained=(), pictures=True):
    files = RunFiles(folder / name)
    folder = files.predictions
    folder.mkdir(parents=True)
    write_scores(files.scores, scores_of(cases))
    fit = {"name": name, "norm": name, "data_set": "livers", "seconds": 61.2, "steps": 500, "seed": 0,
           "parameters": 1234567, "peak_memory_mib": 800.0, "manifest": "m.json"}  # fmt: skip
    files.fit.write_text(json.dumps(fit))
    files.curves.write_text(
        "epoch,step,seconds,val/dice,train/loss\n0,250,30,0.5,1.2\n1,500,61,0.8,0.7\n"
    )
    lines = []
    for number, case_id in enumerate(cases):
        record = {"case_id": case_id, "status": "ok", "checkpoint": "last",
                  "role": "training" if case_id in trained else "validation"}  # fmt: skip
        if pictures:
            paths = [files.run_dir / kind / f"{number}.nii.gz" for kind in ("image", "reference")]
            save_label(paths[0], (slice(2, 10),) * 3)
            save_label(paths[1], (slice(3, 8),) * 3)
            save_label(folder / f"{number}.nii.gz", (slice(3, 7),) * 3)
            record |= {
                "image": [str(paths[0])],
                "reference": str(paths[1]),
                "output": f"{number}.nii.gz",
            }
        lines.append(json.dumps(record))
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n{torn")
    return files.run_dir


def page_of(runs, tmp_path, **options):
    output = tmp_path / "report.html"
    assert report(ReportOptions(tuple(runs), output, **options)) == 0
    return output.read_text()


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_foreground_mean_is_over_cases_then_classes(tmp_path):
    source = read_source(make_run(tmp_path))
    estimate = foreground_dice(source)
    assert estimate.mean == pytest.approx((0.8 + 0.4) / 2)
    means = np.array([0.7, 0.7, 0.4])
    half = 4.302653 * means.std(ddof=1) / math.sqrt(3)  # Student's t, 2 degrees of freedom
    assert estimate.low == pytest.approx(means.mean() - half, abs=1e-5)
    page = text_of(page_of([tmp_path / "batch"], tmp_path))
    assert str(estimate) in page
    assert "1,234,567" in page


def test_a_missed_structure_is_counted_and_shown(tmp_path):
    page = page_of([make_run(tmp_path)], tmp_path, worst=0)
    assert "lesion missed" in page
    assert re.search(r"0\.400 \[.*?\]</td><td class=\"num\">3</td><td class=\"num\">1</td>", page)
    assert "∞" in page
    assert page.count("data:image/png") == 1


def test_cases_that_trained_the_network_enter_no_figure(tmp_path):
    source = read_source(make_run(tmp_path, trained=("a",)))
    assert source.case_ids == ("b", "c")
    assert foreground_dice(source).mean == pytest.approx((0.75 + 0.35) / 2)
    assert source.trained == 1


def test_several_runs_are_described_and_no_winner_is_named(tmp_path):
    better = dict.fromkeys(CASES, (0.95, 0.9))
    page = text_of(page_of([make_run(tmp_path), make_run(tmp_path, "group", better)], tmp_path))
    assert "Descriptive only" in page
    assert not re.search(r"\b(best|better|wins|winner)\b", page)


def test_worst_cases_are_the_ones_of_lowest_dice(tmp_path):
    cases = {f"case{i:02d}": (0.5 + i / 50, 0.5 + i / 50) for i in range(20)}
    page = page_of([make_run(tmp_path, cases=cases)], tmp_path, worst=2)
    shown = re.findall(r"<figcaption><strong>(.*?)</strong>", page)
    assert shown == ["case00", "case01"]


def test_what_is_missing_is_said_with_its_command(tmp_path):
    run = make_run(tmp_path, pictures=False)
    page = text_of(page_of([run], tmp_path))
    assert "no picture" in page
    RunFiles(run).scores.unlink()
    assert "medseg evaluate" in text_of(page_of([run], tmp_path))
    RunFiles(run).fit.unlink()
    assert "no fit.json" in text_of(page_of([run], tmp_path))


def test_a_score_file_alone_is_enough(tmp_path):
    write_scores(tmp_path / "other_tool.csv", scores_of(CASES))
    page = text_of(page_of([tmp_path / "other_tool.csv"], tmp_path))
    assert "other_tool" in page
    assert "0.600" in page


def test_two_runs_of_one_name_are_told_apart(tmp_path):
    first, second = make_run(tmp_path / "x"), make_run(tmp_path / "y")
    page = page_of([first, second], tmp_path)
    assert str(first) in page
    assert str(second) in page


def test_wrong_requests_are_refused(tmp_path):
    with pytest.raises(OptionError, match="no such run"):
        report(ReportOptions((tmp_path / "absent",), tmp_path / "r.html"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError, match="neither a training nor"):
        report(ReportOptions((tmp_path / "empty",), tmp_path / "r.html"))
    assert not (tmp_path / "r.html").exists()


def test_hostile_names_stay_text_and_the_policy_holds_the_page(tmp_path):
    run = make_run(tmp_path, cases={HOSTILE: (0.5, 0.0), "b": (0.4, 0.2)})
    page = page_of([run], tmp_path)
    assert "<script>document.title" not in page
    assert "&lt;script&gt;document.title=" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_a_picture_goes_through_the_depth_of_the_largest_error():
    reference = np.zeros((9, 9, 9), int)
    prediction = reference.copy()
    reference[1:6, 2:7, 3:8] = 1
    prediction[8, 8, 8] = 1
    assert error_centre(reference, prediction) == (3, 4, 5)
    assert error_centre(reference, reference) == (3, 4, 5)


def test_pictures_are_shown_in_one_orientation():
    array = np.arange(24).reshape(2, 3, 4)
    affine = np.array([[0, 0, -1.0, 0], [2.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])
    grid = Grid(array.shape, affine)
    assert grid.orientation == "ASL"
    assert to_ras(array, grid).shape == (4, 2, 3)
    assert to_ras(array, grid)[0, 0, 0] == array[0, 0, 3]


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_a_browser_sorts_the_table_and_runs_no_hostile_name(tmp_path):
    run = make_run(tmp_path, cases={HOSTILE: (0.5, 0.0), "b": (0.9, 0.2), "c": (0.7, 0.3)})
    page = page_of([run], tmp_path)
    probe = (
        'addEventListener("load", () => {'
        'const table = document.querySelector("table.sortable");'
        'const head = table.tHead.rows[0].cells[4].querySelector("button"); head.click(); head.click();'
        'document.body.dataset.order = [...table.tBodies[0].rows].map(r => r.cells[4].textContent).join(" ");'
        '});'
    )  # fmt: skip
    digest = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    page = page.replace("script-src ", f"script-src 'sha256-{digest}' ").replace(
        "</main>", f"</main><script>{probe}</script>"
    )
    (tmp_path / "probe.html").write_text(page)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"]  # fmt: skip
    command = ["chromium", *flags, (tmp_path / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    order = re.search(r'data-order="(.*?)"', done.stdout)[1].split()
    assert order == ["0.900", "0.700", "0.500", "0.300", "0.200", "0.000"]
    assert "<title>Segmentation report: livers</title>" in done.stdout
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
