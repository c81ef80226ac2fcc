"""What a run of a study does besides its steps, from headers alone."""

import json

import pytest

from medseg.core.manifest import load_manifest
from medseg.core.runs import RunFiles
from medseg.study.after import CASES, PATCHES
from medseg.study.doctor_probes import DRAWS
from medseg.study.flags import PROBES
from medseg.study.grid import Run
from medseg.study.planned import Planned
from medseg.study.work import LOOKS, STATISTICS_LOOKS, work_of


@pytest.fixture
def planned(phantoms, tmp_path):
    """Return a function that plans a run on phantoms of two cases a fold."""

    def plan(norm="instance", patch=512, **fixed):
        settings = {
            "data": {
                "manifest": str(phantoms),
                "root": None,
                "fold": 1,
                "patch_size": [patch] * 3,
                "preprocessing": {"spacing": [1.2, 1.2, 1.2]},
            },
            "model": {"norm": norm, "overlap": 0.0},
        }
        return Planned(Run({}, (), fixed, reported=0), RunFiles(tmp_path), settings)

    return plan


def test_a_case_in_one_window_is_one_and_halves_of_its_sides_are_eight_times_as_many(
    planned, phantoms
):
    whole = work_of(planned(), load_manifest)
    assert (whole.validated, whole.labelled, whole.cases) == (2, 2, 2)
    assert work_of(planned(patch=32), load_manifest).labelled >= 16
    assert len(json.loads(phantoms.read_text())["training"]) == 8


@pytest.mark.parametrize(("norm", "looks"), [
    ("instance", LOOKS), ("none", LOOKS + 1), ("batch", LOOKS + 1 + STATISTICS_LOOKS)])  # fmt: skip
def test_measurements_after_a_training_look_at_its_validation_cases_again(planned, norm, looks):
    found = work_of(planned(norm, **{PROBES: True}), load_manifest)
    cases = min(2, CASES)
    assert found.labelled == 2 + looks * cases + PATCHES + DRAWS
    assert found.cases == 2 + looks * cases
