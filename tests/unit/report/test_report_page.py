"""The page: whole, safe, self-contained; and in a real browser."""

import base64
import hashlib
import json
import re
import shutil
import subprocess

import pytest

from medseg.core.errors import OptionError
from medseg.core.runs import RunFiles
from medseg.report.options import ReportOptions
from medseg.report.pages import report

HOSTILE = "<script>document.title='owned'</script>[/]=cmd()\n😀`$x$"
CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--dump-dom",
)  # fmt: skip


def text_of(page):
    page = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_several_runs_are_described_and_compared_and_no_winner_is_named(make_run, page_of, cases):
    better = dict.fromkeys(cases, (0.95, 0.9))
    text = text_of(page_of(make_run("batch"), make_run("group", better)))
    verdict = text.split("Verdict")[2].split("Tested:")[0]  # after the pointer to it
    assert "too few cases to test" in verdict
    assert "Descriptive only: 2 runs" in text
    assert "0.600 [" in text
    assert "0.925 [" in text
    assert not re.search(r"\b(best|better|wins|winner|significant)\b", verdict)


def test_the_page_says_what_it_shows_in_order(make_run, page_of):
    page = page_of(make_run(volumes=True), worst=0)
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Cases", "Result", "Classes", "Every case", "Volumes", "Training", "Cost",
        "Cases to look at", "Table of cases", "Definitions", "Configurations",
    ]  # fmt: skip
    assert page.count("data:image/svg+xml;base64,") == 5
    assert page.count("data:image/png;base64,") == 1
    assert page.count("<figcaption>") == 6
    assert "<pre>seed: 0\n</pre>" in page


def test_what_is_missing_is_left_out_and_said(make_run, page_of):
    run = make_run()
    for name in ("scores.csv", "config.yaml"):
        (run / name).unlink()
    page = page_of(run)
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Cases", "Result", "Training", "Cost"]
    assert "scores.csv is not there" in page
    assert "<code>medseg evaluate</code>" in page


def test_a_score_file_alone_is_enough(write_score_file, page_of):
    text = text_of(page_of(write_score_file("other_tool.csv")))
    assert "1 run: other_tool." in text
    assert "0.600 [" in text
    assert "fit.json is not there" in text


def test_hostile_names_stay_text(make_run, page_of):
    run = make_run(cases={HOSTILE: (0.5, 0.0), "b": (0.4, 0.2)}, fit={"name": HOSTILE})
    fit = RunFiles(run).fit
    fit.write_text(json.dumps(json.loads(fit.read_text()) | {"norm": "half \ud800"}))
    page = page_of(run)
    assert "<script>document" not in page
    assert "&lt;script&gt;document.title=" in page
    assert page.count("<script") == 1
    assert "=cmd()\n😀" in page
    assert "half ?" in page


def test_the_page_loads_nothing_and_its_policy_forbids_it(make_run, page_of):
    page = page_of(make_run(volumes=True), viewer_cases=0)
    assert not re.search(r"(src|href)=\"(?!data:image/)", page)
    words = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page).replace("http-equiv", "")
    assert not re.search(r"https?:|//|url\(|@import|style=|\bon[a-z]+=\"", text_of(words) + words)
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_a_page_that_cannot_be_finished_leaves_the_old_one(make_run, tmp_path, monkeypatch):
    output = tmp_path / "out" / "report.html"
    output.parent.mkdir()
    output.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medseg.core.runs.os.replace", full)
    with pytest.raises(OptionError, match="No space left on device"):
        report(ReportOptions((make_run(),), output))
    assert output.read_text() == "old"
    assert list(output.parent.iterdir()) == [output]


def test_wrong_requests_are_refused_before_anything_is_written(tmp_path):
    output = tmp_path / "report.html"
    with pytest.raises(OptionError, match="--worst must be 0 or more; got -1"):
        report(ReportOptions((tmp_path,), output, worst=-1))
    with pytest.raises(OptionError, match="no such run"):
        report(ReportOptions((tmp_path / "absent",), output))
    assert not output.exists()


def test_figures_hold_more_runs_and_longer_names_than_there_are_colours(make_run, page_of):
    names = [f"{'long_' * 8}{i}_$a_{{b$" for i in range(10)]
    page = page_of(*(make_run(name, within=str(i)) for i, name in enumerate(names)))
    assert page.count("data:image/svg+xml;base64,") == 8
    assert "The first 8 of 10 runs." in page


def test_five_runs_of_52_cases_stay_below_two_megabytes_without_pictures(make_run, page_of):
    cases = {f"case_{i:03d}": (0.9 - i / 200, 0.8 - i / 100) for i in range(52)}
    runs = [make_run(norm, cases) for norm in ("none", "batch", "instance", "group", "layer")]
    assert len(page_of(*runs)) < 2e6


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_sorts_the_table_and_runs_no_hostile_name(make_run, page_of, tmp_path):
    cases = {HOSTILE: (0.5, 0.0), "b": (0.9, 0.2), "c": (0.7, 0.3)}
    page = page_of(make_run(cases=cases))
    probe = (
        'addEventListener("load", () => {'
        'const table = document.querySelector("table.sortable");'
        "const sorted = (column) => {"
        '  table.tHead.rows[0].cells[column].querySelector("button").click();'
        '  return [...table.tBodies[0].rows].map(r => r.cells[column].textContent).join(" ");'
        "};"
        "document.body.dataset.up = sorted(4); document.body.dataset.down = sorted(4);"
        "document.body.dataset.hd = sorted(5); document.body.dataset.volume = sorted(8);"
        "const root = document.documentElement;"
        "document.body.dataset.fits = root.scrollWidth <= root.clientWidth;"
        "});"
    )
    digest = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    page = page.replace("script-src ", f"script-src 'sha256-{digest}' ")
    page = page.replace("</main>", f"</main><script>{probe}</script>")
    (tmp_path / "probe.html").write_text(page, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, "--window-size=500,800", f"--user-data-dir={tmp_path / 'profile'}"]
    command.append((tmp_path / "probe.html").as_uri())
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = dict(re.findall(r'data-(\w+)="(.*?)"', done.stdout))
    assert found["up"] == "0.000 0.200 0.300 0.500 0.700 0.900"
    assert found["down"] == "0.900 0.700 0.500 0.300 0.200 0.000"
    assert found["hd"] == "3.00 3.00 3.00 3.00 3.00 ∞"
    assert found["volume"].startswith("−2.000 −0.500")
    assert found["fits"] == "true"
    assert "<title>Segmentation report: livers</title>" in done.stdout
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
