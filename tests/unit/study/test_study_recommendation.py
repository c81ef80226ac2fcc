"""The rule: who is compared, who may be as good, which one is taken, and the words for it."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from outcomes_builder import changed, noisy, outcome, study

from medseg.core.errors import OptionError
from medseg.core.paired import cases_needed
from medseg.core.runs import strict_json
from medseg.study.choosing import choose
from medseg.study.contrasts import Table
from medseg.study.measurements import CaseScores, Costs, Probes
from medseg.study.outcomes import BACKGROUND, KILLED
from medseg.study.recommendation import recommend, recommend_all
from medseg.study.standing import stand
from medseg.study.tie_breaks import default_norm

FIVE = dict.fromkeys(("batch", "group", "instance", "layer", "none"), 0.0)
NAN, INF = float("nan"), float("inf")


def rates(*rows, seeds=1):
    """Return outcomes of one norm from (rate, status, choosing Dice of each seed)."""
    return [
        outcome("batch", [0.5], rate=rate, seed=s, status=status, choosing=value)
        for rate, status, *values in rows
        for s, value in enumerate(values)
    ]


def test_the_learning_rate_is_chosen_by_the_mean_over_seeds_of_the_choosing_fold():
    choice = choose(rates((0.01, "finished", 0.8, 0.8), (0.1, "finished", 0.9, 0.6)))
    assert choice.learning_rate == 0.01
    assert [rate.choosing for rate in choice.rates] == pytest.approx([0.8, 0.75])
    assert choice.rates[1].worst == 0.6


def test_reporting_cases_never_choose_a_learning_rate():
    rows = [outcome("batch", [0.2], rate=0.01, choosing=0.8), outcome("batch", [0.9], rate=0.1, choosing=0.7)]  # fmt: skip
    assert choose(rows).learning_rate == 0.01


def test_of_equal_learning_rates_the_smaller_is_chosen():
    assert choose(rates((0.1, "finished", 0.8), (0.01, "finished", 0.8))).learning_rate == 0.01


def test_a_rate_that_was_halved_away_for_one_seed_cannot_be_chosen():
    rows = rates((0.01, "finished", 0.7, 0.7), (0.1, "finished", 0.9))
    rows.append(outcome("batch", None, rate=0.1, seed=1, status="halved", choosing=0.9))
    choice = choose(rows)
    assert choice.learning_rate == 0.01
    assert choice.halved == (0.1,)


def test_tolerance_is_counted_in_decades_around_the_chosen_rate():
    choice = choose(rates(
        (0.001, "finished", 0.80), (0.01, "finished", 0.5), (0.1, "finished", 0.79), (1.0, "finished", 0.82),
        (10.0, "diverged", None),
    ))  # fmt: skip
    assert choice.learning_rate == 1.0
    assert choice.decades == pytest.approx(1.0)  # 0.1 to 1; 0.001 is cut off by 0.01
    assert choice.highest_stable == 1.0
    assert not choice.at_edge


def test_one_learning_rate_tells_no_tolerance():
    choice = choose(rates((0.01, "finished", 0.8)))
    assert choice.decades is None
    assert choice.at_edge


def test_a_norm_that_diverges_at_its_best_rate_is_left_out_and_named():
    table = noisy(FIVE)
    rows = [replace(o, status="diverged") if (o.norm, o.seed) == ("none", 1) else o for o in table.outcomes]  # fmt: skip
    found = recommend(replace(table, outcomes=tuple(rows)), 2)
    assert found.left_out == {"none": "1 of 3 seeds diverged at 0.01, its best learning rate"}
    assert "none" not in found.standing.norms


@pytest.mark.parametrize(
    ("status", "words"),
    [("out of memory", "does not fit in memory: 9 GiB"), ("impossible", "cannot be built: 9 GiB")],
)
def test_a_norm_that_could_not_run_is_left_out_with_the_reason(status, words):
    table = changed(noisy(FIVE), layer={"status": status, "reason": "9 GiB", "scores": None})
    assert words in recommend(table, 2).left_out["layer"]


def test_nothing_to_recommend_names_every_reason():
    table = changed(noisy({"batch": 0.0, "none": 0.0}), batch={"status": "impossible"}, none={"status": "diverged"})  # fmt: skip
    with pytest.raises(
        OptionError, match=r"batch: it cannot be built; none: 3 of 3 seeds diverged"
    ):
        recommend(table, 2)
    assert recommend_all(table) == {}


def test_a_clear_gain_is_named_with_its_numbers():
    found = recommend(noisy({**FIVE, "group": 0.03}), 2)
    assert found.standing.confidence == "clear"
    assert found.standing.candidates == ("group",)
    assert (found.pick.norm, found.pick.by) == ("group", "Dice")
    assert found.standing.contrasts[0].difference == pytest.approx(0.03, abs=0.006)
    assert found.standing.rank_shares[0][0] > 0.99
    assert found.verdict.startswith("At batch size 2 group clearly has a higher Dice than any of the 4 other norms (0.8")  # fmt: skip
    assert "40 cases, 3 seeds" in found.verdict
    assert found.verdict.endswith("take group.")


def test_contrasts_are_those_of_hand_computed_numbers():
    base = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.7, 0.6])
    gains = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, -0.005])
    found = stand([Table("a", (0, 1), np.stack([base, base])), Table("b", (0, 1), np.stack([base + gains, base + gains]))])  # fmt: skip
    (contrast,) = found.contrasts
    assert found.norms == ("b", "a")
    assert contrast.difference == pytest.approx(0.205 / 7)
    assert contrast.sd == pytest.approx(np.std(gains, ddof=1))
    assert (
        contrast.p == contrast.p_holm == pytest.approx(4 / 128)
    )  # only rank 1 or none is negative
    assert (contrast.wins, contrast.ties, contrast.losses) == (6, 0, 1)
    assert found.best_without_seed == {0: "b", 1: "b"}


def test_p_values_are_corrected_for_the_number_of_other_norms():
    two, five = (recommend(noisy({n: FIVE[n] + 0.01 * (n == "group") for n in names}, seed=3), 2)
                 for names in (("batch", "group"), tuple(FIVE)))  # fmt: skip
    assert two.standing.contrasts[0].p_holm == two.standing.contrasts[0].p
    largest = max(five.standing.contrasts, key=lambda c: -c.p)
    assert largest.p_holm == pytest.approx(4 * largest.p)


def test_without_a_difference_the_sentence_says_so_and_how_many_cases_would_be_needed():
    found = recommend(noisy(FIVE, case_sd=0.03, seed_sd=0.0, seed=2), 2)
    assert found.standing.confidence == "no evidence of a difference"
    assert found.needed.seeds == found.needed.seeds_at_hand == 3
    assert found.needed.cases >= cases_needed(0.005, found.standing.contrasts[0].sd, 4)
    assert "there is no evidence of a difference between" in found.verdict
    assert (
        f"{found.needed.cases} cases with 3 seeds would be needed to see 0.005 with 80 % power"
        in found.verdict
    )
    assert (found.pick.norm, found.pick.by) == ("instance", "default")
    assert "the default at batch size 2, a convention after Wu & He (2018)" in found.verdict


def test_where_seeds_scatter_no_number_of_cases_is_enough_and_that_is_said():
    found = recommend(noisy({"batch": 0.0, "group": 0.0}, cases=50, seed_sd=0.009), 2)
    assert found.needed.lacks_seeds
    assert (
        "no number of cases with 3 seeds would show 0.005 with 80 % power, about "
        f"{found.needed.seeds} seeds and {found.needed.cases} cases would"
    ) in found.verdict
    assert recommend(noisy({"batch": 0.0, "group": 0.0}, seeds=1), 2).needed is None


def test_what_is_in_use_stays_without_evidence_against_it():
    assert recommend(noisy(FIVE, case_sd=0.03), 2, current="layer").pick.norm == "layer"
    with pytest.raises(OptionError, match=r"got 'layr'. Did you mean 'layer'\?"):
        recommend(noisy(FIVE), 2, current="layr")


@pytest.mark.parametrize(
    ("batch_size", "norm"),
    [(1, "instance"), (4, "instance"), (5, "group"), (15, "group"), (16, "batch")],
)
def test_the_default_goes_by_the_batch_size(batch_size, norm):
    assert default_norm(batch_size) == norm


def test_one_seed_is_descriptive_only_however_large_the_gain():
    found = recommend(noisy({**FIVE, "group": 0.1}, seeds=1), 2)
    assert found.standing.confidence == "descriptive only"
    assert "descriptive only" in found.verdict
    assert not any(a.by.startswith("without seed") for a in found.alternatives)


def test_two_seeds_are_never_clear():
    found = recommend(noisy({**FIVE, "group": 0.1}, seeds=2), 2)
    assert found.standing.confidence == "slight"


def test_scores_of_another_number_of_cases_are_refused():
    with pytest.raises(
        OptionError, match="a study of 3 cases needs a score and a unit of each; got 2"
    ):
        study([outcome("batch", [0.5, 0.6])], cases=3)


def test_a_gain_of_one_lucky_seed_is_not_clear():
    rng = np.random.default_rng(0)
    base = 0.8 + rng.normal(0, 0.05, 60)
    lucky = [base + (0.06 if s == 0 else -0.005) + rng.normal(0, 0.005, 60) for s in range(3)]
    others = [base + rng.normal(0, 0.005, 60) for _ in range(3)]
    found = stand([Table("a", (0, 1, 2), np.stack(lucky)), Table("b", (0, 1, 2), np.stack(others))])
    assert found.best == "a"
    assert found.contrasts[0].p_holm < 0.001  # by cases alone it would be a discovery
    assert found.best_without_seed[0] == "b"
    assert found.confidence != "clear"


def test_too_few_cases_leave_everybody_a_candidate():
    found = recommend(noisy({**FIVE, "group": 0.05}, cases=6), 2)
    assert set(found.standing.candidates) == set(FIVE)
    assert found.standing.confidence != "clear"


def test_a_difference_too_small_to_matter_keeps_a_candidate():
    found = recommend(noisy({"batch": 0.0, "group": 0.002}, case_sd=0.0005, seed_sd=0.0001), 2)
    (contrast,) = found.standing.contrasts
    assert contrast.p_holm < 0.001
    assert 0 < contrast.ci_low < contrast.ci_high < 0.005
    assert contrast.equivalent
    assert set(found.standing.candidates) == {"batch", "group"}


def test_slight_evidence_keeps_the_best_against_those_that_merely_were_not_refuted():
    table = noisy({**FIVE, "group": 0.012}, cases=10, case_sd=0.02, seed=2)
    table = changed(table, group={"costs": Costs(folded_seconds=2.0)}, **{
        n: {"costs": Costs(folded_seconds=1.0)} for n in FIVE if n != "group"})  # fmt: skip
    found = recommend(table, 2)
    assert found.standing.confidence == "slight"
    assert found.verdict.startswith("At batch size 2 there is slight evidence that group has a higher Dice")  # fmt: skip
    assert len(found.standing.candidates) > 1
    assert (found.pick.norm, found.pick.by) == ("group", "Dice")


UNDECIDED = noisy(FIVE, case_sd=0.03)


def with_missed(table, counts):
    rows = (
        replace(o, scores=replace(o.scores, missed=(counts.get(o.norm, 2), *[0] * 39)))
        for o in table.outcomes
    )
    return replace(table, outcomes=tuple(rows))


def test_fewest_missed_structures_come_first():
    table = changed(with_missed(UNDECIDED, {"none": 1}), layer={"costs": Costs(folded_seconds=0.1)})
    found = recommend(table, 2)
    assert (found.pick.norm, found.pick.by) == ("none", "missed structures")
    assert found.pick.breaks[0].values["none"] == 1.0
    assert "take none (no normalization layer), the fewest missed structures" in found.verdict


def probes(gap):
    return {"probes": Probes(dice_running=0.8 - gap, dice_own=0.8)}


def test_then_the_smaller_gap_of_the_statistics_with_gaps_below_the_difference_equal():
    gaps = {"batch": 0.05, "group": 0.0, "instance": 0.02, "layer": 0.004, "none": 0.02}
    table = changed(with_missed(UNDECIDED, {}), **{n: probes(gap) for n, gap in gaps.items()})
    found = recommend(table, 2)
    assert set(found.pick.breaks[1].kept) == {"group", "layer"}
    assert (found.pick.norm, found.pick.by) == (
        "group",
        "simplicity",
    )  # instance, the default, is out


def test_then_tolerance_then_speed_then_memory():
    rows = [
        replace(o, learning_rate=rate, choosing=0.8 if rate == 0.01 or o.norm in ("group", "layer", "none") else 0.1)
        for o in UNDECIDED.outcomes
        for rate in (0.01, 0.1)
    ]  # fmt: skip
    costs = {"group": Costs(folded_seconds=1.04, peak_mib=900), "layer": Costs(folded_seconds=1.0, peak_mib=1000), "none": Costs(folded_seconds=1.1)}  # fmt: skip
    table = changed(study(rows), **{n: {"costs": c} for n, c in costs.items()})
    found = recommend(table, 2)
    assert [(b.criterion, b.decided) for b in found.pick.breaks] == [
        ("missed structures", False), ("statistics gap", False), ("learning-rate tolerance", True),
        ("folded inference time", True), ("peak memory", True),
    ]  # fmt: skip
    assert found.pick.breaks[2].values["group"] == pytest.approx(1.0)
    assert set(found.pick.breaks[3].kept) == {"group", "layer"}
    assert (found.pick.norm, found.pick.by) == ("group", "peak memory")


def test_the_unit_of_time_changes_nothing():
    seconds = dict(zip(FIVE, (1.0, 1.2, 1.04, 1.3, 1.02), strict=True))
    seen, again = (
        recommend(changed(UNDECIDED, **{n: {"costs": Costs(folded_seconds=k * t)} for n, t in seconds.items()}), 2)
        for k in (1.0, 1e6)
    )  # fmt: skip
    assert seen.verdict == again.verdict
    assert [b.kept for b in seen.pick.breaks] == [b.kept for b in again.pick.breaks]


def test_that_a_network_without_a_norm_won_is_said():
    found = recommend(noisy({**FIVE, "none": 0.03}), 2)
    assert found.pick.norm == "none"
    assert "none (no normalization layer) clearly has a higher Dice" in found.verdict


def alternatives(found):
    return {a.by: a for a in found.alternatives}


def test_other_measures_would_choose_otherwise_and_that_is_told():
    table = noisy({"batch": 0.0, "group": 0.03})
    far = {"batch": 1.0, "group": 4.0}
    rows = tuple(
        replace(o, scores=replace(
            o.scores,
            hd95_mm=(*(far[o.norm] + 0.01 * i for i in range(39)), INF),
            class_dice={"easy": o.scores.dice, "hard": tuple(1 - 2 * d / 3 for d in o.scores.dice)},
        ))
        for o in table.outcomes
    )  # fmt: skip
    found = alternatives(recommend(replace(table, outcomes=rows), 2))
    assert (found["HD95"].best, found["HD95"].best_changes, found["HD95"].pick_changes) == ("batch", True, True)  # fmt: skip
    assert found["Dice of hard"].best == "batch"
    assert found["NSD"].best is None
    assert found["NSD"].note == "not measured for every norm"
    assert not found["median"].best_changes


def test_the_seed_that_makes_the_winner_is_found():
    base = np.linspace(0.7, 0.9, 20)
    table = study(
        outcome(norm, base + gain, seed=s)
        for norm, gains in {"batch": (0.0, 0.0, 0.0), "group": (0.05, -0.01, -0.01)}.items()
        for s, gain in enumerate(gains)
    )
    found = alternatives(recommend(table, 2))
    assert found["without seed 0"].best == "batch"
    assert found["without seed 0"].best_changes
    assert not found["without seed 1"].best_changes


def test_the_drop_in_view_holds_every_norm_at_the_rate_of_the_baseline():
    low, high = (noisy({"batch": 0.0, "group": gain}, rate=rate).outcomes for rate, gain in ((0.1, -0.05), (0.01, 0.05)))  # fmt: skip
    prefers = {("batch", 0.1): 0.9, ("group", 0.01): 0.9}
    rows = [replace(o, choosing=prefers.get((o.norm, o.learning_rate), 0.5)) for o in (*low, *high)]
    found = recommend(study(rows), 2)
    assert found.standing.best == "group"
    drop_in = alternatives(found)["drop-in learning rate"]
    assert (drop_in.best, drop_in.best_changes, drop_in.note) == ("batch", True, "at 0.1")


def test_norms_that_did_not_finish_at_the_rate_of_the_baseline_are_named_there():
    table = noisy(FIVE)
    rows = [replace(o, learning_rate=0.001) if o.norm == "none" else o for o in table.outcomes]
    assert alternatives(recommend(replace(table, outcomes=tuple(rows)), 2))["drop-in learning rate"].note == (
        "at 0.01; not finished there: none"
    )  # fmt: skip


def test_an_undefined_case_of_a_whole_norm_leaves_the_comparison_and_of_a_seed_does_not():
    table = noisy({"batch": 0.0, "group": 0.02}, cases=20)

    def hole(o, case):
        dice = list(o.scores.dice)
        dice[case] = NAN
        return replace(o, scores=CaseScores(tuple(dice)))

    rows = [hole(o, 3) if o.norm == "group" else o for o in table.outcomes]
    rows[0] = hole(rows[0], 5)
    assert recommend(replace(table, outcomes=tuple(rows)), 2).standing.n == 19


def test_scans_of_one_patient_count_once():
    table = noisy({"batch": 0.0, "group": 0.02}, cases=20)
    found = recommend(replace(table, units=tuple(f"patient_{i // 2}" for i in range(20))), 2)
    assert found.standing.n == 10
    plain = recommend(table, 2).standing
    assert found.standing.means == pytest.approx(plain.means)


def shuffled(table, rng):
    """Return the same study with outcomes and cases in another order."""
    order = rng.permutation(len(table.cases))
    rows = [replace(o, scores=CaseScores(tuple(o.scores.dice[i] for i in order))) for o in table.outcomes]  # fmt: skip
    return replace(table, outcomes=tuple(rows[i] for i in rng.permutation(len(rows))), cases=tuple(table.cases[i] for i in order))  # fmt: skip


@pytest.mark.parametrize("gain", [0.0, 0.01, 0.03])
def test_the_order_of_norms_cases_and_seeds_changes_nothing(gain):
    table = noisy({**FIVE, "layer": gain}, case_sd=0.02)
    rng = np.random.default_rng(1)
    told = recommend(table, 2)
    for _ in range(3):
        again = recommend(shuffled(table, rng), 2)
        assert again.verdict == told.verdict
        assert strict_json(asdict(again)) == strict_json(asdict(told))


def test_each_batch_size_has_its_own_recommendation():
    small = noisy({**FIVE, "instance": 0.03}).outcomes
    large = noisy({**FIVE, "batch": 0.03}, batch_size=8, seed=5).outcomes
    found = recommend_all(study((*small, *large)))
    assert {size: r.pick.norm for size, r in found.items()} == {2: "instance", 8: "batch"}


def test_dropout_and_initial_scale_of_other_cells_stay_out():
    table = noisy({**FIVE, "group": 0.03})
    others = changed(table, group={"dropout": 0.2}, batch={"init_scale": 4.0}).outcomes
    extra = tuple(o for o in others if o.dropout or o.init_scale != 1)
    assert recommend(replace(table, outcomes=table.outcomes + extra), 2).verdict == recommend(table, 2).verdict  # fmt: skip


def test_a_single_norm_leaves_nothing_to_choose():
    found = recommend(noisy({"batch": 0.0}), 2)
    assert found.needed is None
    assert found.standing.confidence == "descriptive only"
    assert "only batch can be compared" in found.verdict


def test_everything_behind_a_recommendation_fits_in_json():
    found = recommend(noisy(FIVE), 2)
    assert json.loads(json.dumps(strict_json(asdict(found)), allow_nan=False))["pick"]["norm"]


def test_nothing_is_clear_whose_interval_holds_zero():
    """First in all resamples and without any one seed, and yet three more seeds might turn it."""
    rng = np.random.default_rng(0)
    cases = 0.85 + rng.normal(0, 0.03, 52)
    finals = {"instance": (0.006, 0.005, 0.007), "batch": (0.005, 0.001, 0.001)}
    rows = [
        outcome(norm, cases + final + rng.normal(0, 0.004, 52), seed=s)
        for norm, seeds in finals.items()
        for s, final in enumerate(seeds)
    ]
    standing = recommend(study(rows), 2).standing
    (contrast,) = standing.contrasts
    assert standing.rank_shares[0][0] > 0.95
    assert not contrast.candidate
    assert set(standing.best_without_seed.values()) == {"instance"}
    assert contrast.ci_low <= 0 < contrast.ci_high
    assert standing.confidence == "slight"


def failing(table, norm, count, **what):
    """Return a study with a second, higher learning rate, at which some seeds of a norm failed."""
    better = [replace(o, learning_rate=0.1, choosing=0.9) for o in table.outcomes]
    lost = {"status": "failed", "reason": "no disk", "scores": None, "choosing": None, **what}
    rows = [replace(o, **lost) if o.norm == norm and o.seed < count else o for o in better]
    return replace(table, outcomes=(*table.outcomes, *rows))


def test_a_rate_that_is_lost_to_a_failed_run_leaves_nothing_clear_and_is_named():
    table = noisy({**FIVE, "group": 0.03})
    whole = recommend(failing(table, "layer", 0), 2)
    assert whole.standing.confidence == "clear"
    assert not any(choice.incomplete for choice in whole.choices.values())
    found = recommend(failing(table, "layer", 1), 2)
    assert found.choices["layer"].learning_rate == 0.01
    assert found.choices["layer"].incomplete == "1 of 3 seeds at 0.1 failed"
    assert found.standing.confidence == "slight"
    assert "slight evidence that group" in found.verdict
    assert found.verdict.endswith("; take group; the learning rate of layer is not settled (1 of 3 seeds at 0.1 failed).")  # fmt: skip


def test_how_a_rate_was_lost_is_told():
    def told(**what):
        return choose([o for o in failing(noisy(FIVE), "layer", 2, **what).outcomes if o.norm == "layer"]).incomplete  # fmt: skip

    assert told(status="out of memory") == "2 of 3 seeds at 0.1 out of memory"
    assert told(reason=KILLED) == "2 of 3 seeds at 0.1 killed (out of memory?)"
    assert told(status="halved") == ""  # stopped on purpose
    rows = rates((0.01, "finished", 0.7, 0.7), (0.1, "finished", 0.9))
    assert choose(rows).incomplete == "1 of 2 seeds at 0.1 not run"


def test_a_norm_of_which_no_run_fits_is_known_and_one_whose_runs_all_failed_is_not():
    table = noisy({**FIVE, "group": 0.03})
    lost = {"reason": "9 GiB", "scores": None, "choosing": None}
    large = recommend(changed(table, layer={**lost, "status": "out of memory"}), 2)
    assert large.standing.confidence == "clear"
    assert large.verdict.endswith("; left out: layer (it does not fit in memory).")
    broken = recommend(changed(table, layer={**lost, "status": "failed"}), 2)
    assert broken.standing.confidence == "slight"
    assert broken.verdict.endswith("; left out: layer (no learning rate has a finished run of every seed).")  # fmt: skip


def test_norms_that_are_left_out_are_named_in_the_sentence_with_the_reason():
    bad = {"status": "diverged", "reason": BACKGROUND, "choosing": 0.0}
    rows = [
        replace(o, **bad) if o.norm in ("group", "layer") and o.seed == 0 else o
        for o in noisy(FIVE).outcomes
    ]
    told = recommend(study(rows), 2).verdict
    assert told.endswith("; left out: group and layer (1 of 3 seeds called everything background at 0.01, its best learning rate).")  # fmt: skip
    alone = recommend(changed(noisy({"batch": 0.0, "none": 0.0}), none={"status": "diverged"}), 2)
    assert alone.verdict == (
        "At batch size 2 only batch can be compared: there is nothing to choose from; left out: "
        "none (no normalization layer) (3 of 3 seeds diverged at 0.01, its best learning rate)."
    )
