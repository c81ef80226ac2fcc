"""Plans of real data sets: what nnU-Net's published plan has, where it has one."""

import json

import pytest
import yaml

from medseg.cli import main
from medseg.training import plan_fit
from medseg.training.measure import StepCost

pytestmark = pytest.mark.real_data


def planned(repository, root, name, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_fit, "measure", lambda job: StepCost(1 << 30, 0.2))
    output = tmp_path / "plan.yaml"
    manifest = repository / "data_manifests" / f"{name}.json"
    flags = ["--manifest", str(manifest), "--root", str(root), "--fold", "1", "--time", "15m"]
    assert main(["plan", *flags, "--device", "cpu", "--output", str(output)]) == 0
    return yaml.safe_load(output.read_text()), json.loads(output.with_suffix(".json").read_text())


def test_hippocampus_gets_the_patch_and_levels_of_nnunet(
    repository, medseg_data, tmp_path, monkeypatch
):
    plan, record = planned(
        repository, medseg_data / "hippocampus", "hippocampus", tmp_path, monkeypatch
    )
    assert plan["data"]["patch_size"] == [40, 56, 40]
    assert len(plan["model"]["network"]["strides"]) == 4
    assert plan["data"]["train_folds"] == [2, 3, 4]  # fold 0 is held back
    assert plan["data"]["preprocessing"]["intensity"] == ["zscore"]
    assert len(record["fingerprint"]["cases"]) == 156
    assert plan["data"]["augmentation"]["flip_axes"] == []  # each crop shows the same side


def test_sarcoma_is_windowed_by_its_own_uptake(repository, medseg_data, tmp_path, monkeypatch):
    plan, _ = planned(repository, medseg_data / "sarcoma", "sarcoma_pet", tmp_path, monkeypatch)
    ((lower, upper),) = plan["data"]["preprocessing"]["intensity"]
    assert lower == 0
    assert 15 < upper < 25
    assert plan["data"]["augmentation"]["flip_axes"] == [0, 1, 2]  # tumours are anywhere
    assert "train_folds" not in plan["data"]


def test_two_modalities_are_scaled_each_in_its_own_way(
    repository, medseg_data, tmp_path, monkeypatch
):
    plan, _ = planned(repository, medseg_data / "sarcoma", "sarcoma_petct", tmp_path, monkeypatch)
    pet, ct = plan["data"]["preprocessing"]["intensity"]
    assert pet[0] == 0
    assert ct[0] < 0 < ct[1]
