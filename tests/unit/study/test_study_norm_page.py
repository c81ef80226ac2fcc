"""The page of a study of norms, from outcomes made by hand."""

from dataclasses import replace
from html import unescape

import pytest
from outcomes_builder import curve, noisy, outcome, study

from medseg.study import norm_figures, norm_run_figures
from medseg.study.claims import judge_claims
from medseg.study.measurements import CaseScores, Probes
from medseg.study.norm_page import interval, number, render
from medseg.study.recommendation import recommend_all


def page(table):
    return render(table, recommend_all(table), judge_claims(table), [("Device", "a <b>")])


@pytest.fixture(scope="module")
def whole():
    """A study of three norms, two batch sizes, two rates and three seeds, one run diverged."""
    parts = [noisy({"batch": 0.02, "group": 0.02, "none": 0}, batch_size=size, rate=rate,
                   choosing=0.8 + rate, curve=curve((0.3, 0.6, 0.8 + rate), batch_size=size))
             for size in (1, 8) for rate in (1e-3, 1e-2)]  # fmt: skip
    rows = [o for part in parts for o in part.outcomes]
    kept = Probes(dice_running=0.7, dice_precise=0.75, dice_own=0.8, statistics_distance=0.3)
    rows = [replace(o, probes=kept) if o.norm == "batch" else o for o in rows]
    bad = {"status": "diverged", "reason": "the loss & more", "choosing": 0.0}
    rows = [replace(o, **bad) if o.norm == "none" and o.learning_rate == 1e-2 else o for o in rows]
    return study(rows)


@pytest.fixture(scope="module")
def html(whole):
    """Its page."""
    return page(whole)


def test_the_page_begins_with_the_answer_for_every_batch_size(whole, html):
    head = unescape(html[: html.index("<h2>")])
    for recommendation in recommend_all(whole).values():
        assert recommendation.verdict in head
    assert "At batch size 1" in head
    assert "At batch size 8" in head
    assert "36, of which 6 diverged" in head


def test_every_claim_has_its_verdict_and_its_numbers(whole, html):
    for claim in judge_claims(whole):
        assert claim.statement in html
    assert html.count("<details><summary>Numbers:") == sum(
        bool(claim.rows) for claim in judge_claims(whole)
    )


def test_what_varies_beside_the_norm_is_among_the_facts_with_what_is_compared():
    rows = [outcome(n, [0.5, 0.6], dropout=d) for n in ("batch", "none") for d in (0.0, 0.2)]
    html = page(study(rows))
    assert "0, 0.2; norms are compared at 0<" in html
    assert "Initial scales" not in html


def test_text_of_the_data_is_no_markup(html):
    assert "a &lt;b&gt;" in html
    assert "the loss &amp; more" in html
    assert "<script" not in html


def test_all_figures_are_in_it(html):
    assert html.count('<img src="data:image/svg') == 8


def test_one_seed_is_descriptive_only():
    table = noisy({"batch": 0.02, "group": 0}, seeds=1)
    assert "descriptive only" in page(table)


def test_a_study_without_a_scored_run_says_so():
    html = page(study([outcome("batch", status="failed", reason="no disk"), outcome("none")]))
    assert "At batch size 2 no norm can be recommended: batch: no learning rate has" in html
    assert "No norm can be recommended: no training has ended" in page(study([]))
    assert "no disk" in html


def test_a_batch_size_without_a_recommendation_says_why(whole):
    lost = {"status": "failed", "reason": "no disk", "scores": None}
    rows = (replace(o, **lost) if o.batch_size == 8 else o for o in whole.outcomes)
    html = unescape(page(replace(whole, outcomes=tuple(rows))))
    assert "At batch size 8 no norm can be recommended: batch: no learning rate" in html
    assert "3 of 3 seeds at 0.001 failed, 3 of 3 seeds at 0.01 failed" in html


def test_norms_without_the_baseline_have_their_table_and_their_figure():
    parts = [noisy({"instance": 0.01, "group": 0}, batch_size=size).outcomes for size in (1, 2)]
    table = study([o for part in parts for o in part])
    html = page(table)
    assert html.count("each norm at its own learning rate</h3>") == 2
    assert "Less batch" not in html
    assert norm_figures.dice_by_batch_size(table)


def test_where_the_baseline_cannot_be_built_the_other_batch_sizes_keep_their_differences(whole):
    lost = {"status": "impossible", "reason": "one value", "scores": None, "choosing": None}
    rows = (replace(o, **lost) if (o.norm, o.batch_size) == ("batch", 1) else o for o in whole.outcomes)  # fmt: skip
    html = page(replace(whole, outcomes=tuple(rows)))
    assert html.count("each norm at its own learning rate</h3>") == 2
    assert html.count('<th scope="col" class="num">Less batch</th>') == 2  # own rate, drop-in


def test_one_case_of_one_seed_leaves_the_figure_whole():
    table = study(outcome("batch", [0.8], batch_size=size) for size in (1, 2))
    assert norm_figures.dice_by_batch_size(table)


def test_a_study_of_one_norm_shows_its_runs():
    html = page(noisy({"instance": 0.0}))
    assert "only instance can be compared: there is nothing to choose from" in html
    assert "Every training" in html


def test_figures_need_something_to_draw():
    bare = study([outcome("batch", [0.5, 0.6])])
    assert norm_figures.dice_by_batch_size(bare) is None  # one batch size
    assert norm_figures.three_modes(bare) is None
    assert norm_figures.heat_map(bare) is None  # one cell
    assert norm_run_figures.dice_by_rate(bare) is None
    assert norm_run_figures.curves_by_samples(bare) is None
    assert norm_run_figures.differences(bare) is None  # one norm


def test_a_training_that_diverged_stays_in_the_figures():
    whole = outcome("batch", [0.5], curve=curve((0.3, 0.6)))
    lost = [
        outcome("batch", [0.5], seed=s, status="diverged", choosing=None, curve=broken)
        for s, broken in ((1, curve((0.2,))), (2, None))
    ]
    bare = replace(whole, curve=None)
    assert norm_run_figures._along([whole, *lost, bare]) == {10: [0.3, 0.2, 0], 20: [0.6, 0, 0]}
    by_rate = norm_run_figures._by([whole, *lost], lambda o: o.learning_rate)
    assert by_rate == {0.01: [0.8, 0.0, 0.0]}
    assert norm_run_figures._by([replace(whole, status="failed", choosing=None)], id) == {}


def test_a_case_without_a_score_leaves_the_figure_whole(whole):
    rows = [
        replace(o, scores=CaseScores((float("nan"), *o.scores.dice[1:]))) for o in whole.outcomes
    ]
    assert norm_run_figures.differences(replace(whole, outcomes=tuple(rows)))


def test_numbers_as_a_table_shows_them():
    assert number(None) == number(float("nan")) == number(float("inf")) == "–"
    assert number(0.1234) == "0.123"
    assert number(0.00012) == "0.00012"
    assert number(0) == "0.000"
    assert interval(0.1, 0.05, 0.2, True) == "+0.100 [+0.050, +0.200]"
    assert interval(0.1, float("nan"), float("nan")) == "0.100"
    assert interval(float("nan"), 0, 0) == "–"
