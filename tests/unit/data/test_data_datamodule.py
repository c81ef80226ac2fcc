"""The data module: folds, what a network must know, what is missing."""

import json

import pytest
import torch

from medseg.core.errors import ManifestError, OptionError
from medseg.core.manifest import load_manifest
from medseg.data.datamodule import SegmentationData


def module(phantoms, **changes):
    return SegmentationData(
        phantoms, **{"patch_size": (16, 16, 16), "steps_per_epoch": 3} | changes
    )


def test_the_validation_fold_is_never_trained_on(phantoms):
    task = module(phantoms, fold=2).task
    assert len(task["val_cases"]) == 2
    assert len(task["train_cases"]) == 6
    assert set(task["val_cases"]).isdisjoint(task["train_cases"])
    assert len(module(phantoms, fold=2, train_folds=[0]).task["train_cases"]) == 2


def test_loaders_give_patches_and_whole_volumes(phantoms):
    data = module(phantoms)
    data.prepare_data()
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    assert batches[0]["image"].shape == (2, 1, 16, 16, 16)
    assert batches[0]["image"].dtype == torch.float32
    volumes = list(data.val_dataloader())
    assert [v["case_id"][0] for v in volumes] == data.task["val_cases"]
    assert volumes[0]["image"].shape[2:] == volumes[0]["label"].shape[1:]


def test_the_task_is_primitives_only(phantoms):
    task = module(phantoms).task
    assert json.loads(json.dumps(task)) == task


def test_absent_files_matter_only_to_the_folds_that_need_them(phantoms, tmp_path):
    content = json.loads(phantoms.read_text())
    content["source"] = "Ask the radiologist."
    gone = next(case for case in content["training"] if case["fold"] == 3)
    gone["image"] = "images/gone.nii.gz"
    gone["case_id"] = "gone"
    (tmp_path / "m.json").write_text(json.dumps(content))
    manifest, root = tmp_path / "m.json", load_manifest(phantoms).root
    SegmentationData(manifest, root, fold=0, train_folds=[1, 2])
    with pytest.raises(ManifestError, match=r"gone.nii.gz: no such file \(fold 3\)") as caught:
        SegmentationData(manifest, root, fold=0)
    assert "Ask the radiologist." in str(caught.value)


def test_a_held_back_fold_is_answered_with_the_folds_that_are_there(phantoms, tmp_path):
    content = json.loads(phantoms.read_text())
    for case in content["training"]:
        if case["fold"] == 3:
            case["image"] = case["label"] = f"held/{case['image']}"
    (tmp_path / "m.json").write_text(json.dumps(content))
    manifest, root = tmp_path / "m.json", load_manifest(phantoms).root
    with pytest.raises(ManifestError, match=r"No file of fold 3 is here: .*'\[1, 2\]'"):
        SegmentationData(manifest, root, fold=0)
    with pytest.raises(ManifestError) as caught:  # the root is wrong: no fold could be trained on
        SegmentationData(manifest, tmp_path, fold=0)
    assert "train_folds" not in str(caught.value)
    assert "Is --data.root right" in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"batch_size": 0}, {"steps_per_epoch": 0}, {"foreground": 1.5}]
)
def test_impossible_numbers_are_refused(phantoms, changes):
    with pytest.raises(OptionError, match=next(iter(changes))):
        module(phantoms, **changes)


def test_the_numbers_of_patches_stay_where_they_can_be_read_at_once(phantoms):
    batch = {"image": torch.zeros(2, 1, 4, 4, 4), "number": torch.tensor([3, 4])}
    moved = module(phantoms).transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved["image"].is_meta
    assert moved["number"].tolist() == [3, 4]
