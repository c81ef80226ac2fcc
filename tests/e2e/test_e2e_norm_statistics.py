"""`medseg validate` with running, precise and own statistics: the doctor's numbers."""

import pytest

from medseg.cli import main
from medseg.study.doctor import examine
from medseg.study.doctor_options import DoctorOptions
from medseg.study.doctor_patient import admit


@pytest.mark.slow
def test_validate_gives_the_doctors_dice_in_each_of_its_modes(tiny_run, capsys):
    options = DoctorOptions(run=tiny_run)
    found, _ = examine(options, admit(options))
    dice = {}
    for kind in ("running", "precise", "own"):
        assert main(["validate", "--run_dir", str(tiny_run), "--norm_statistics", kind]) == 0
        lines = capsys.readouterr().err.splitlines()
        dice[kind] = next(float(line.split()[1]) for line in lines if line.startswith("val/dice "))
        assert dice[kind] == pytest.approx(found.modes.mean(kind), abs=1e-4)
    assert len(set(dice.values())) == 3


def test_statistics_that_a_norm_lacks_and_trainings_are_refused(
    fit_flags, phantoms, tmp_path, capsys
):
    def refused(verb, run, *more):
        flags = fit_flags(phantoms, run, model__norm="instance", trainer__max_epochs=1)
        assert main([verb, *flags, *more]) == 2
        return capsys.readouterr().err

    told = refused("fit", tmp_path / "run", "--norm_statistics", "own")
    assert "--norm_statistics is for validate" in told
    assert not (tmp_path / "run").exists()
    assert main(["fit", *fit_flags(phantoms, tmp_path / "run", model__norm="instance",
                                   trainer__max_epochs=1)]) == 0  # fmt: skip
    told = refused("validate", tmp_path / "run", "--norm_statistics", "own")
    assert "norm 'instance' keeps no running statistics" in told
