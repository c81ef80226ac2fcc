"""Folds by patient and site, and patients and sites by name."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.core.errors import ManifestError, OptionError
from medseg.core.manifest import Case, Manifest, load_manifest
from medseg.data.folds import draw_folds, name_by_pattern


def manifest_of(cases, test=()):
    return Manifest(Path("m.json"), Path(), "m", ("CT",), {"background": 0, "a": 1}, tuple(cases), tuple(test))  # fmt: skip


def case(number, group="", site=""):
    name = f"c{number:03d}"
    return Case(name, (f"i/{name}.nii",), f"l/{name}.nii", group=group, site=site)


def sizes(cases, folds):
    return [sum(c.fold == fold for c in cases) for fold in range(folds)]


@st.composite
def data_sets(draw):
    """Cases in at least as many groups as folds, of up to four sites."""
    folds = draw(st.integers(2, 6))
    rows = draw(st.lists(st.tuples(st.integers(1, 5), st.sampled_from("ABCD")), min_size=folds, max_size=30))  # fmt: skip
    groups = [(f"p{n}", site) for n, (size, site) in enumerate(rows) for _ in range(size)]
    return [case(n, *group) for n, group in enumerate(groups)], folds


@given(data_sets(), st.integers(0, 3), st.randoms())
def test_a_draw_keeps_groups_whole_and_folds_balanced_in_any_order(data, seed, random):
    cases, folds = data
    drawn = draw_folds(manifest_of(cases), folds, seed).training
    assert len({(c.group, c.fold) for c in drawn}) == len({c.group for c in drawn})
    assert max(sizes(drawn, folds)) - min(sizes(drawn, folds)) <= max(
        Counter(c.group for c in cases).values()
    )
    shuffled = random.sample(cases, len(cases))
    again = draw_folds(manifest_of(shuffled), folds, seed).training
    assert {c.case_id: c.fold for c in again} == {c.case_id: c.fold for c in drawn}


@given(
    st.lists(st.sampled_from(["A", "B", "C", ""]), min_size=6, max_size=60),
    st.integers(2, 6),
    st.integers(0, 3),
)
def test_single_cases_of_each_site_are_spread_evenly(sites, folds, seed):
    cases = [case(n, site=site) for n, site in enumerate(sites)]
    drawn = draw_folds(manifest_of(cases), folds, seed).training
    for site in set(sites):
        counts = sizes([c for c in drawn if c.site == site], folds)
        assert max(counts) - min(counts) <= 1
    assert max(sizes(drawn, folds)) - min(sizes(drawn, folds)) <= 1


def test_patients_of_several_cases_are_spread_by_site_too():
    cases = [case(4 * p + n, f"p{p}", "AB"[p % 2]) for p in range(8) for n in range(1 + p // 2)]
    drawn = draw_folds(manifest_of(cases), 2, 0).training
    for site in "AB":
        counts = sizes([c for c in drawn if c.site == site], 2)
        assert counts == [5, 5]


def test_a_patient_of_two_sites_counts_where_most_of_its_cases_are():
    cases = [case(0, "p", "A"), case(1, "p", "B"), case(2, "p", "B")]
    cases += [case(n, f"q{n}", "B") for n in range(3, 6)]
    drawn = draw_folds(manifest_of(cases), 2, 0).training
    assert len({c.fold for c in drawn if c.group == "p"}) == 1
    assert sizes(drawn, 2) == [3, 3]


def test_without_sites_and_with_one_site_the_draw_is_the_same():
    groups = [f"p{n % 11}" for n in range(40)]
    bare = [case(n, group) for n, group in enumerate(groups)]
    one = [case(n, group, "A") for n, group in enumerate(groups)]
    folds = [[c.fold for c in draw_folds(manifest_of(cs), 4, 5).training] for cs in (bare, one)]
    assert folds[0] == folds[1]


def test_folds_drawn_before_there_were_sites_are_drawn_again(repository):
    filed = load_manifest(repository / "data_manifests/sarcoma_pet.json")
    assert draw_folds(filed, 5, 0) == filed
    phantoms = load_manifest(repository / "data_manifests/phantoms.json")
    expected = [0, 4, 1, 2, 3, 4, 4, 0, 2, 1, 2, 1, 0, 1, 3, 3, 2, 3, 4, 0]
    assert [c.fold for c in draw_folds(phantoms, 5, 7).training] == expected


class TestPatterns:
    """Group and site out of the case id."""

    cases = (
        Case("sA_p01_1", ("a.nii",), "l.nii", group="old"),
        Case("sB_p02_1", ("b.nii",), "m.nii"),
    )

    def test_the_first_group_of_the_pattern_counts_or_the_whole_match(self):
        named = name_by_pattern(
            manifest_of(self.cases, (Case("sC_p03", ("t.nii",)),)), r"p\d+", r"^s(.)_(p)"
        )
        assert [(c.group, c.site) for c in (*named.training, *named.test)] == [("p01", "A"), ("p02", "B"), ("p03", "C")]  # fmt: skip

    def test_what_has_no_pattern_stays(self):
        named = name_by_pattern(manifest_of(self.cases), None, "s(.)")
        assert [c.group for c in named.training] == ["old", ""]
        assert name_by_pattern(manifest_of(self.cases), None, None) == manifest_of(self.cases)

    def test_cases_that_do_not_match_are_named_all_at_once(self):
        with pytest.raises(ManifestError) as caught:
            name_by_pattern(manifest_of(self.cases), "p01", "x(.)?")
        message = str(caught.value)
        assert "has 3 problems" in message
        assert "--group_pattern 'p01' finds nothing in case 'sB_p02_1'" in message
        assert "--site_pattern 'x(.)?' finds nothing in case 'sA_p01_1'" in message

    def test_an_empty_match_is_none(self):
        with pytest.raises(ManifestError, match="finds nothing in case 'sA_p01_1'"):
            name_by_pattern(manifest_of(self.cases), "(x)?", None)

    @pytest.mark.parametrize("flag", ["group", "site"])
    def test_a_wrong_pattern_is_refused_with_its_flag(self, flag):
        given = {"group": None, "site": None, flag: "("}
        with pytest.raises(OptionError, match=rf"--{flag}_pattern '\(' is no regular expression"):
            name_by_pattern(manifest_of(self.cases), **given)
