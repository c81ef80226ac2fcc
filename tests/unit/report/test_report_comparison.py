"""The page of a comparison: whole, safe, self-contained."""

import base64
import hashlib
import re

import numpy as np
import pytest

from medseg.core.comparison import compare_variants
from medseg.core.endpoints import Design, Variant
from medseg.core.runs import Score
from medseg.report.comparison import ScoredFile, p_text, page, section

HOSTILE = "<script>document.title='owned'</script>\n😀`$x$ \ud800"


def comparison_of(names=("batch", "group", "layer"), n=24, seeds=1, lost=False):
    rng = np.random.default_rng(0)
    base = rng.beta(14, 1, n)
    cases = [f"case_{i}" for i in range(n)]
    variants = []
    for name in names:
        trainings = []
        for _ in range(seeds):
            values = np.clip(base + rng.normal(0, 0.01, n), 0, 1)
            if lost:
                values[0] = 0.0
            trainings.append([
                Score(c, "", "organ", metric, float(np.inf if metric == "hd95_mm" and v == 0 else v))
                for c, v in zip(cases, values, strict=True) for metric in ("dice", "hd95_mm")
            ])  # fmt: skip
        variants.append(Variant(name, tuple(trainings)))
    design = Design(tuple(variants), {c: c for c in cases}, ("organ",), ("dice", "hd95_mm"))
    return compare_variants(design, ("A <note>.",))


FILES = [ScoredFile("batch", "runs/batch/scores.csv", 30, 4, 2)]


def test_the_page_says_what_it_shows_in_order():
    html = page(comparison_of(), FILES)
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Verdict", "Variants", "Pairs", "Ranks", "Other endpoints", "Score files",
    ]  # fmt: skip
    assert html.count("data:image/svg+xml;base64,") == 3
    assert "24 cases in common" in html
    assert "A &lt;note&gt;." in html
    assert '<td class="num">24</td></tr>' in html, "30 scored less 4 and 2"


def test_the_verdicts_on_the_page_are_those_of_the_comparison():
    comparison = comparison_of()
    html = page(comparison, FILES)
    for verdict in comparison.verdicts:
        assert verdict in html


def test_the_section_stands_alone_for_other_pages():
    html = str(section(comparison_of()))
    assert html.strip().startswith("<section>")
    assert "<html" not in html


def test_the_page_runs_and_loads_nothing_and_its_policy_forbids_it():
    html = page(comparison_of((HOSTILE, "b")), FILES)
    assert "<script" not in html
    assert not re.search(r"(src|href)=\"(?!data:image/)|style=|\bon[a-z]+=\"", html)
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', html)[1].replace("&#39;", "'")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "script-src" not in policy


def test_seeds_have_their_own_columns():
    assert "SD over seeds" in page(comparison_of(seeds=2), FILES)
    assert "SD over seeds" not in page(comparison_of(), FILES)


def test_infinite_distances_stand_beside_the_means():
    html = page(comparison_of(lost=True), FILES)
    assert '<td class="num">1, 1</td>' in html
    assert "1 of 24 [1, 20]" in html


def test_a_dice_of_0_is_not_called_a_lost_structure():
    html = page(comparison_of(lost=True, seeds=2), FILES)
    assert "With a Dice of 0 in a class" in html
    assert "missed, invented or found elsewhere; the last column counts" in html
    assert "in any seed" in html
    assert "lost structure" not in html
    assert "in any seed" not in page(comparison_of(lost=True), FILES)


@pytest.mark.parametrize("n", [1, 3])
def test_a_few_cases_make_a_page_too(n):
    html = page(comparison_of(n=n), FILES)
    assert "too few cases to test" in html
    assert not re.search(r"\bis better than\b", html)


def test_many_variants_fit_and_hidden_panels_are_counted():
    html = page(comparison_of(tuple(f"a_long_variant_name_{i}" for i in range(7))), FILES)
    assert "9 more pairs not drawn" in html


def test_no_variant_is_praised_where_none_differs():
    html = page(comparison_of(("a", "b")), FILES)
    assert "no clear difference" in html
    assert not re.search(r"\b(best|wins|winner|significant)\b", html)


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "<\xa00.001"), (0.049, "0.049"), (1.0, "1.000"), (float("nan"), "–")]
)
def test_p_values_are_never_printed_as_zero(p, text):
    assert p_text(p) == text
