"""Grids of norms for data that come with a configuration of `medseg fit`."""

import logging

import pytest
import yaml

from medseg.core.errors import OptionError
from medseg.core.manifest import load_manifest
from medseg.core.runs import write_json
from medseg.study import execute
from medseg.study.execute import study
from medseg.study.grid import read_study
from medseg.study.options import StudyOptions
from medseg.study.profiles import read_profile


@pytest.fixture(autouse=True)
def _measured(monkeypatch):
    """Take a step's time for known: measuring it starts a process."""
    monkeypatch.setattr(execute, "seconds_of_steps", lambda jobs, _: dict.fromkeys(jobs, 0.1))


@pytest.fixture
def data(tmp_path):
    """Return a function that writes a set of so many folds and a configuration for it."""

    def write(folds):
        rows = []
        for fold in range(folds):
            for kind in ("image", "label"):
                (tmp_path / f"{kind}{fold}.nii").write_bytes(b"")
            rows.append({"image": f"image{fold}.nii", "label": f"label{fold}.nii", "fold": fold})
        labels = {"background": 0, "a": 1}
        content = {"channel_names": {"0": "T1w"}, "labels": labels, "training": rows}
        write_json(tmp_path / "set.json", content)
        network = {"network": {"channels": [8, 16]}}
        where = {"manifest": str(tmp_path / "set.json"), "patch_size": [16, 16, 16]}
        (tmp_path / "fit.yaml").write_text(yaml.safe_dump({"model": network, "data": where}))
        return load_manifest(tmp_path / "set.json"), [tmp_path / "fit.yaml"]

    return write


@pytest.mark.parametrize(
    ("name", "runs", "norms", "seeds"),
    [("quick", 18, 6, 1), ("standard", 162, 6, 3), ("full", 900 + 3 * 45, 9, 5)],
)
def test_a_profile_is_the_whole_grid(name, runs, norms, seeds, data):
    manifest, config = data(4)
    found = read_profile(name, config, manifest)
    assert len(found) == runs
    assert len({run.cell["model.norm"] for run in found}) == norms
    assert len({run.cell["seed_everything"] for run in found}) == seeds
    assert all(run.fixed["probes"] for run in found)


def test_folds_take_their_roles(data):
    manifest, config = data(4)
    run = read_profile("quick", config, manifest)[0]
    assert run.reported == 0
    assert (run.fixed["data.fold"], run.fixed["data.train_folds"]) == (1, [2, 3])


def test_the_roles_of_the_folds_and_what_is_left_out_are_said(data, tmp_path, caplog):
    manifest, config = data(5)
    with caplog.at_level(logging.INFO, logger="medseg"):
        read_profile("quick", config, manifest)
    said = "folds {} are trained on, learning rates chosen on fold {}, results reported on fold {}"
    assert caplog.messages == [said.format([2, 3, 4], 1, 0)]
    for kind in ("image", "label"):
        (tmp_path / f"{kind}1.nii").unlink()
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="medseg"):
        read_profile("quick", config, manifest)
    assert caplog.messages == [
        said.format([3, 4], 2, 0), "folds [1] are left out: none of their files is there"
    ]  # fmt: skip


def test_variants_are_tried_in_one_cell_only(data):
    manifest, config = data(3)
    scaled = [run.cell for run in read_profile("full", config, manifest)
              if run.cell.get("model.network.init_scale") == 4.0]  # fmt: skip
    assert len(scaled) == 9 * 5
    assert {(c["data.batch_size"], c["model.optimization.learning_rate"]) for c in scaled} == {
        (2, 3.16e-3)
    }


def test_samples_are_as_many_as_asked(data):
    manifest, config = data(3)
    runs = read_profile("standard", config, manifest, samples=800)
    steps = {run.cell["data.batch_size"]: run.fixed["trainer.max_steps"] for run in runs}
    assert steps == {1: 800, 2: 400, 8: 100}
    with pytest.raises(OptionError, match="that 10 divides"):
        read_profile("standard", config, manifest, samples=100)


def test_too_few_folds_are_refused_with_a_way_out(data):
    manifest, config = data(2)
    with pytest.raises(OptionError, match=r"needs 3 folds.*medseg manifest"):
        read_profile("quick", config, manifest)


def test_samples_without_a_profile_and_a_profile_of_a_study_are_refused(data, tmp_path):
    _, config = data(3)
    with pytest.raises(OptionError, match="--samples goes with --profile"):
        study(StudyOptions(config=tuple(config), output=tmp_path, samples=5))
    (tmp_path / "study.yaml").write_text("grid: {norm: [batch]}")
    with pytest.raises(OptionError, match="not a study"):
        study(StudyOptions((tmp_path / "study.yaml",), tmp_path, profile="quick"))


def test_the_study_of_a_profile_can_be_looked_at(data, tmp_path, caplog):
    _, config = data(3)
    options = StudyOptions(
        tuple(config), tmp_path / "out", profile="quick", samples=100, dry_run=True
    )
    assert study(options) == 0


def test_the_data_may_lie_elsewhere(data, tmp_path):
    _, config = data(3)
    (tmp_path / "elsewhere").mkdir()
    for file in tmp_path.glob("*.nii"):
        file.rename(tmp_path / "elsewhere" / file.name)
    options = {"profile": "quick", "samples": 100, "dry_run": True}
    with pytest.raises(OptionError, match="needs 3 folds"):
        study(StudyOptions(tuple(config), tmp_path / "out", **options))
    options["root"] = tmp_path / "elsewhere"
    assert study(StudyOptions(tuple(config), tmp_path / "out", **options)) == 0


def test_exclude_may_name_flags_of_variants(tmp_path):
    text = "variants: [{}, {dropout: 0.2}]\ngrid: {batch_size: [1, 2]}\n"
    path = tmp_path / "study.yaml"
    path.write_text(text + "exclude: [{dropout: 0.2, batch_size: 1}]")
    names = [run.name for run in read_study(path)]
    assert names == ["batch_size=1", "batch_size=2", "dropout=0.2,batch_size=2"]
    path.write_text(text + "exclude: [{dropout: 0.3}]")
    with pytest.raises(OptionError, match=r"dropout has no value 0\.3"):
        read_study(path)
