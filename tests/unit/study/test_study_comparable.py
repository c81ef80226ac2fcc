"""Norms are compared among runs that differ in nothing an outcome does not know."""

import pytest

from medseg.core.runs import RunFiles
from medseg.study.comparable import comparable, held_words
from medseg.study.grid import Run
from medseg.study.norm_page import is_of_norms
from medseg.study.planned import LeftOut, Plan, Planned

DECAY = "model.optimization.weight_decay"
OWN = 0.01


def settings(norm="batch", decay=OWN):
    return {"seed_everything": 0, "model": {"norm": norm, "optimization": {"weight_decay": decay}}}


def planned(cell, settings):
    run = Run(cell, ())
    return Planned(run, RunFiles(f"runs/{run.name}"), settings)


def grid(norms, decays):
    return [
        planned({"model.norm": norm, DECAY: decay}, settings(norm, decay))
        for norm in norms
        for decay in decays
    ]


@pytest.fixture(autouse=True)
def _configuration(monkeypatch):
    monkeypatch.setattr("medseg.study.compared_at.resolved", lambda run: settings())


def decays(plan):
    return [entry.settings["model"]["optimization"]["weight_decay"] for entry in plan.runs]


@pytest.mark.parametrize(
    ("tried", "kept"), [([0.1, OWN, 0.0], OWN), ([0.1, 0.0], 0.1), ([OWN, OWN], OWN)]
)
def test_a_flag_that_varies_beside_the_norm_is_held_at_the_configurations_value(tried, kept):
    found = comparable(Plan(grid(["batch", "instance"], tried), []))
    assert set(decays(found.plan)) == {kept}
    assert {entry.settings["model"]["norm"] for entry in found.plan.runs} == {"batch", "instance"}
    assert found.others == 2 * sum(value != kept for value in tried)
    assert held_words(found.held) == (f"{DECAY} {kept}" if found.others else "")


def test_variants_are_compared_where_they_change_nothing_but_the_norm():
    runs = [
        planned({}, settings()),
        planned({"model.norm": "group"}, settings("group")),
        planned({DECAY: 0.5}, settings("batch", 0.5)),
    ]
    found = comparable(Plan(runs, []))
    assert found.plan.runs == runs[:2]
    assert (dict(found.held), found.others) == ({DECAY: OWN}, 1)
    assert is_of_norms(Plan(runs, []))
    assert not is_of_norms(Plan([runs[0], runs[2]], []))


def test_a_flag_that_one_variant_has_no_place_for_is_told_apart():
    without = {"model": {"norm": "batch", "optimization": None}}
    runs = [planned({"model.optimization": None}, without), planned({}, settings())]
    assert comparable(Plan(runs, [])).plan.runs == [runs[1]]


def test_cells_that_cannot_be_built_are_compared_alike():
    left = [LeftOut("a", settings("group", 0.5), "no"), LeftOut("b", settings("group"), "no")]
    found = comparable(Plan(grid(["batch"], [0.5, OWN]), left))
    assert found.plan.left_out == left[1:]
