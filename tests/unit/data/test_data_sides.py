"""Names of classes that tell left from right."""

import pytest

from medseg.data.sides import sided


@pytest.mark.parametrize(
    "name",
    [
        "kidney_left", "Right atrium", "lh.hippocampus", "LeftKidney", "rightkidney", "leftkidney",
        "hippocampusL", "hippocampus R", "Linke Niere", "Niere rechts", "rein gauche", "rein droit",
        "riñón izquierdo", "rene destro", "A. carotis dextra", "ICA_sin", "kidney-rt",
    ],
)  # fmt: skip
def test_a_side_is_found(name):
    assert sided(["liver", name]) == [name]


@pytest.mark.parametrize(
    "names",
    [
        ["liver"], ["cleft", "bright spot"], ["anterior", "posterior"], ["shell", "core", "nodule"],
        ["linker", "liver"][1:], ["Lunge", "Leber"], ["GTV", "CTV"], ["vertebrae_L1"], ["edema", "necrosis"],
    ],
)  # fmt: skip
def test_no_side_is_invented(names):
    assert sided(names) == []


def test_two_names_that_differ_in_l_and_r_alone_have_a_side():
    assert sided(["LV", "myocardium", "RV"]) == ["LV", "RV"]
    assert sided(["LV", "myocardium"]) == []
