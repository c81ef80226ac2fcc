"""The report in a real browser without network: sorted, scrolled through, and no error."""

import json
import math
import time

import nibabel as nib
import numpy as np
import pytest
from devtools import CHROMIUM, Browser

from medseg.cli import main
from medseg.core.runs import RunFiles, Score, write_json, write_scores

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

HOSTILE = "<script>document.title='owned'</script>[/]=cmd()\n😀"
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])


def write_run(run_dir, cases, pictured=0, classes=("liver", "lesion")):
    """Write a run with scores of `cases`; the first `pictured` ones have volumes."""
    run = RunFiles(run_dir)
    rng = np.random.default_rng(len(run_dir.name))
    scores, lines = [], []
    for place, case_id in enumerate(cases):
        for name in classes:
            dice, size = 0.0 if place == 0 else rng.uniform(0.5, 0.95), rng.uniform(5, 50)
            values = {"dice": dice, "hd95_mm": rng.uniform(1, 9) if dice else math.inf, "nsd": dice,
                      "volume_ref_ml": size, "volume_pred_ml": size * dice, "volume_difference_ml": size * (dice - 1)}  # fmt: skip
            scores += [Score(case_id, "", name, metric, value) for metric, value in values.items()]
        line = {"case_id": case_id, "status": "ok", "role": "validation", "seconds": 1.0}
        lines.append(line | (write_case(run, place) if place < pictured else {}))
    write_scores(run.scores, scores)
    write_json(
        run.fit, {"name": run_dir.name, "norm": "batch", "seed": 0, "seconds": 60.0, "steps": 100}
    )
    run.curves.write_text("step,seconds,val/dice,train/loss\n50,30,0.6,1.2\n100,60,0.8,0.7\n")
    run.predictions.mkdir(exist_ok=True)
    (run.predictions / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return run_dir


def write_case(run, number, shape=(48, 40, 24)):
    rng = np.random.default_rng(number)
    image = rng.normal(60, 10, shape).astype(np.int16)
    reference = np.zeros(shape, np.uint8)
    reference[10:30, 10:30, 6:18], reference[32:40, 20:30, 10:14] = 1, 2
    image += 60 * reference
    arrays = {"image": image, "reference": reference, "predictions": np.roll(reference, 3, axis=0)}
    for kind, array in arrays.items():
        (run.run_dir / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, AFFINE), run.run_dir / kind / f"{number}.nii.gz")
    names = {kind: str(run.run_dir / kind / f"{number}.nii.gz") for kind in ("image", "reference")}
    return {
        "image": [names["image"]],
        "reference": names["reference"],
        "output": f"{number}.nii.gz",
    }


@pytest.fixture
def hostile_page(tmp_path):
    """Return the report of a run whose first case, a lost one, has a hostile name."""
    run = write_run(tmp_path / "batch", [HOSTILE, "b", "c", "d"], pictured=4)
    output = tmp_path / "report.html"
    assert (
        main(["report", "--runs", str(run), "--output", str(output), "--format", "html", "csv"])
        == 0
    )
    return output


def errors(browser):
    """Return what the page complained of; the software renderer's speed is not its fault."""
    words = [json.dumps(message) for message in browser.messages]
    return [text for text in words if "GPU stall due to ReadPixels" not in text]


def column(browser, place):
    return browser.run(
        f'[...document.querySelector("table.sortable").tBodies[0].rows].map(r => r.cells[{place}].textContent)'
    )


def test_the_table_sorts_and_hostile_names_stay_text(hostile_page, tmp_path):
    with Browser() as browser:
        browser.open(hostile_page)
        click = 'document.querySelectorAll("table.sortable button")[{}].click()'
        browser.run(click.format(4))
        up = [float(text) for text in column(browser, 4)]
        browser.run(click.format(4))
        assert up == sorted(up)
        assert [float(text) for text in column(browser, 4)] == up[::-1]
        assert HOSTILE in column(browser, 0)
        assert browser.run("document.title").startswith("Segmentation report")
        assert len(browser.screenshot(tmp_path / "table.png")) > 20_000
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert errors(browser) == []
    rows = hostile_page.with_suffix(".csv").read_text().splitlines()
    assert not [row for row in rows if row.startswith(("=", "+", "-", "@"))]


def test_the_page_asks_for_nothing_outside_itself(hostile_page):
    with Browser() as browser:
        browser.open(hostile_page)
        asked = {address.split(":")[0] for address in browser.requests}
        assert asked <= {"file", "data"}
        assert [a for a in browser.requests if a.startswith("file")] == [hostile_page.as_uri()]
        assert not browser.run("fetch('https://example.org').then(() => true, () => false)")


def test_the_viewer_opens_on_a_click_and_moves(hostile_page, tmp_path):
    pytest.importorskip("nilearn", reason="nilearn, which ships NiiVue, is not installed")
    with Browser() as browser:
        browser.open(hostile_page)
        assert browser.run("typeof niivue") == "undefined"
        browser.run('document.querySelector("button.open").click()')
        browser.wait('document.getElementById("viewer-words").textContent.startsWith("Wheel")')
        title = browser.run('document.getElementById("viewer-title").textContent')
        assert title == f"{HOSTILE} · batch"
        before = picture(browser, tmp_path / "before.png")
        assert coloured(before, (0x56, 0xB4, 0xE9)) > 100
        assert coloured(before, (0xE6, 0x9F, 0x00)) > 100
        left, top, width, height = browser.run(
            "(r => [r.left, r.top, r.width, r.height])(document.getElementById('canvas').getBoundingClientRect())"
        )
        place = {"x": left + width / 8, "y": top + height / 2}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            browser.mouse(kind, **place, button="left", clickCount=1)
        moved = picture(browser, tmp_path / "moved.png")
        assert (moved != before).any()
        browser.mouse("mouseWheel", **place, deltaX=0, deltaY=240)
        assert (picture(browser, tmp_path / "scrolled.png") != moved).any()
        browser.run('document.getElementById("show-prediction").click()')
        assert coloured(picture(browser, tmp_path / "alone.png"), (0xE6, 0x9F, 0x00)) == 0
        browser.run('document.getElementById("viewer-close").click()')
        assert not browser.run('document.getElementById("viewer").open')
        assert errors(browser) == []


def test_without_webgl_the_viewer_says_so_and_the_slices_remain(hostile_page):
    pytest.importorskip("nilearn", reason="nilearn, which ships NiiVue, is not installed")
    with Browser("--disable-3d-apis") as browser:
        browser.open(hostile_page)
        browser.run('document.querySelector("button.open").click()')
        words = 'document.getElementById("viewer-words").textContent'
        browser.wait(f'{words} !== "Loading."')
        assert "no WebGL 2" in browser.run(words)
        loaded = '[...document.querySelectorAll(".case img")].every(i => i.naturalWidth > 100)'
        assert browser.run(loaded)


def picture(browser, path):
    """Return the pixels of the viewer, once they are drawn."""
    from matplotlib.image import imread

    time.sleep(0.5)
    browser.screenshot(path)
    left, top, width, height = (
        int(value)
        for value in browser.run(
            "(r => [r.left, r.top, r.width, r.height])(document.getElementById('stage').getBoundingClientRect())"
        )
    )
    return imread(path)[top : top + height, left : left + width, :3]


def coloured(pixels, colour):
    """Count the pixels that are nearly of a colour (outlines are drawn at 90 %)."""
    return int((np.abs(pixels - np.array(colour) / 255).max(axis=-1) < 0.12).sum())


def test_200_cases_of_5_runs_are_below_15_mb_and_sortable_within_3_seconds(tmp_path):
    cases = [f"case_{i:03d}" for i in range(200)]
    runs = [write_run(tmp_path / f"run_{i}", cases, pictured=12) for i in range(5)]
    output = tmp_path / "report.html"
    assert main(["report", "--runs", *map(str, runs), "--output", str(output)]) == 0
    assert output.stat().st_size < 15e6
    with Browser() as browser:
        start = time.monotonic()
        browser.open(output)
        browser.run('document.querySelectorAll("table.sortable button")[4].click()')
        assert time.monotonic() - start < 3
        values = column(browser, 4)
        assert len(values) == 2000
        assert values == sorted(values)
