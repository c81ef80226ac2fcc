"""Post-processing at the end of fit: what is learned, for which weights, and what stays."""

import json
import shutil
from collections import OrderedDict
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medseg.core.errors import CheckpointError
from medseg.core.postprocessing import Rule
from medseg.data.augmentation import Augmentation
from medseg.data.datamodule import SegmentationData
from medseg.data.options import PhantomOptions
from medseg.data.phantoms import write_phantoms
from medseg.networks.checkpoint import Description, load_content, load_trained, store_postprocessing
from medseg.networks.unet import Architecture
from medseg.training import postprocessing
from medseg.training.cli import fit
from medseg.training.fixed import TRAINING_KEY
from medseg.training.postprocessing import PostprocessingLearner, voxel_volume_ml
from medseg.training.validation import Slab

RULES = (Rule("organ", largest_component=True), Rule("lesion", minimum_ml=0.1 + 0.2))
TASK = {
    "manifest": "m",
    "channel_names": ["T1w"],
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "patch_size": [16, 16, 16],
    "train_cases": ["a"],
    "val_cases": ["b"],
}
DESCRIPTION = Description("batch", 8, Architecture(channels=(8, 16)), TASK, 0.5)


def save(path, step, value=0.5, description=DESCRIPTION):
    """Write a checkpoint as Lightning does, its weights all of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = description.build(seed=0).state_dict()
    weights = OrderedDict(
        (f"network.{k}", torch.full_like(v, value) if v.is_floating_point() else v)
        for k, v in state.items()
    )
    weights._metadata = OrderedDict({"": {"version": 1}})
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(5).bfloat16()}}
    content = {
        "global_step": step,
        "state_dict": weights,
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 0.1, "betas": (0.9, 1)}]}],
        "callbacks": {"Curves": {"seconds": 1 / 3, "rows": [{"epoch": 0, "val/dice": None}]}},
        "medseg": description.to_primitives(),
    }
    torch.save(content, path)
    return path


def same(one, other):
    """Return whether two nests of tensors and plain values are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_rules_are_stored_and_all_else_stays(tmp_path):
    path = save(tmp_path / "last.ckpt", 6)
    before = load_content(path)
    store_postprocessing(path, RULES)
    after = load_content(path)
    assert load_trained(path).description.postprocessing == RULES
    assert after["state_dict"]._metadata == before["state_dict"]._metadata
    del before["medseg"]["postprocessing"], after["medseg"]["postprocessing"]
    assert same(before, after)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_that_cannot_be_rewritten_stays_as_it_was(tmp_path, monkeypatch):
    path = save(tmp_path / "last.ckpt", 6)
    before = path.read_bytes()

    def full(_content, target):
        target.write_bytes(before[:100])
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="stays as it was"):
        store_postprocessing(path, RULES)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_of_before_has_no_rules_and_mirrors_nothing(tmp_path):
    content = DESCRIPTION.to_primitives()
    del content["postprocessing"]
    old = Description.from_primitives(content)
    assert old == DESCRIPTION
    assert old.postprocessing == old.mirror_axes == ()


@pytest.mark.parametrize(
    ("augmentation", "axes"),
    [
        (Augmentation(flip_axes=[2, 0]), (0, 2)),
        (Augmentation(flip_axes=[2, 0], flip=0.0), ()),
        (Augmentation(), ()),
        (None, ()),
    ],
)
def test_the_mirrored_axes_are_known_to_the_network(phantoms, augmentation, axes):
    task = SegmentationData(phantoms, augmentation=augmentation).task
    assert Description("batch", 8, Architecture(), task, 0.5).mirror_axes == axes


def references(count=4):
    """Return class maps with an organ of one piece and two lesions."""
    maps = []
    for number in range(count):
        label = np.zeros((24, 24, 24), np.uint8)
        label[3 + number % 2 : 10, 3:10, 3:10] = 1
        label[15:18, 1:4, 1:4] = label[15:18, 8:11, 1:4] = 2
        maps.append(label)
    return maps


@pytest.fixture(autouse=True)
def whole_volumes(monkeypatch):
    """Have the fake window below predict a volume as one slab."""

    def slabs(window, image, network, _classes):
        return iter([Slab(window(image, network), 0, 0)])

    monkeypatch.setattr(postprocessing, "slabs", slabs)


def trainer_and_module(seen, **changes):
    """Return what the callback needs of them; the 'network' adds three false organs."""
    maps = references()

    def window(image, network):
        seen.append(float(next(network.parameters()).flatten()[0]))
        label = maps[int(image)].copy()
        for corner in (13, 16, 20):
            label[corner, 20:22, 20:22] = 1
        return torch.nn.functional.one_hot(torch.from_numpy(label).long(), 3).movedim(-1, 0)[None]

    loader = [
        {"image": torch.tensor([n]), "label": torch.from_numpy(m)[None], "case_id": [str(n)]}
        for n, m in enumerate(maps)
    ]
    data = SimpleNamespace(
        volumes=lambda: loader,
        val_cases=[SimpleNamespace(case_id=str(n), images=("x",)) for n in range(4)],
        manifest=SimpleNamespace(file=lambda name: name),
        preprocessing=SimpleNamespace(spacing=[1.0, 1.0, 2.0]),
    )
    trainer = SimpleNamespace(
        num_val_batches=[4],
        world_size=1,
        is_global_zero=True,
        datamodule=data,
        precision_plugin=SimpleNamespace(val_step_context=nullcontext),
    )
    module = SimpleNamespace(
        learn_postprocessing=True,
        class_names=list(TASK["labels"]),
        device=torch.device("cpu"),
        window=window,
    )
    vars(module).update({k: v for k, v in changes.items() if hasattr(module, k)})
    vars(trainer).update({k: v for k, v in changes.items() if hasattr(trainer, k)})
    return trainer, module


def test_noise_teaches_the_organ_its_largest_component_and_the_lesions_nothing(tmp_path):
    save(tmp_path / "best.ckpt", 6)
    save(tmp_path / "last.ckpt", 6)
    learner, seen = PostprocessingLearner(tmp_path), []
    learner.on_train_end(*trainer_and_module(seen))
    for name in ("best", "last"):
        description = load_trained(tmp_path / f"{name}.ckpt").description
        assert description.postprocessing == (Rule("organ", largest_component=True),)
        organ, lesion = learner.record[name]["evidence"]
        assert organ["dice_before"] < 0.99
        assert organ["dice_after"] == 1
        assert lesion["dice_before"] == lesion["dice_after"] == 1
        assert learner.record[name]["rules"][0]["class_name"] == "organ"
    assert len(seen) == 4  # one step, learned once


def test_each_checkpoint_is_judged_with_its_own_weights(tmp_path):
    save(tmp_path / "best.ckpt", 3, value=0.25)
    save(tmp_path / "last.ckpt", 6, value=0.5)
    seen = []
    PostprocessingLearner(tmp_path).on_train_end(*trainer_and_module(seen))
    assert seen == [0.25] * 4 + [0.5] * 4


@pytest.mark.parametrize("changes", [{"learn_postprocessing": False}, {"num_val_batches": [0]}])
def test_nothing_is_learned_where_it_is_off_or_nothing_is_validated(tmp_path, changes):
    path = save(tmp_path / "last.ckpt", 6)
    before = path.read_bytes()
    learner = PostprocessingLearner(tmp_path)
    learner.on_train_end(*trainer_and_module([], **changes))
    assert learner.record is None
    assert path.read_bytes() == before


def test_the_volume_of_a_voxel_is_that_of_the_networks_grid(phantoms):
    data = SegmentationData(phantoms)
    image = data.manifest.file(data.val_cases[0].images[0])
    assert voxel_volume_ml([1.0, 2.0, 3.0], image) == pytest.approx(0.006)
    from medseg.io import read_grid

    assert voxel_volume_ml(None, image) == pytest.approx(np.prod(read_grid(image).spacing) / 1000)


def test_fit_learns_without_touching_weights_and_resumes_after_it(tmp_path):
    write_phantoms(PhantomOptions(output=tmp_path / "set", cases=12))
    flags = ["--data.manifest", str(tmp_path / "set" / "manifest.json"), "--data.patch_size",
             "[16, 16, 16]", "--data.steps_per_epoch", "2", "--model.network.channels", "[4, 8]",
             "--trainer.accelerator", "cpu"]  # fmt: skip
    contents = []
    for learns in ("true", "false"):
        run = tmp_path / learns
        assert fit([*flags, "--trainer.max_epochs", "1", "--run_dir", str(run),
                    "--model.learn_postprocessing", learns]) == 0  # fmt: skip
        contents.append(load_content(run / "checkpoints" / "last.ckpt"))
    learned, plain = contents
    record = json.loads((tmp_path / "true" / "fit.json").read_text())["postprocessing"]
    assert learned["medseg"].pop("postprocessing") == record["last"]["rules"]
    assert [entry["cases"] for entry in record["last"]["evidence"]] == [3, 3, 3]
    assert record["seconds"] > 0
    assert plain["medseg"].pop("postprocessing") == []
    assert json.loads((tmp_path / "false" / "fit.json").read_text())["postprocessing"] is None
    for key in ("state_dict", "optimizer_states", "loops", "medseg", "global_step"):
        assert same(learned[key], plain[key])

    ends = []
    for learns in ("true", "false"):
        run = tmp_path / f"resumed_{learns}"
        shutil.copytree(tmp_path / learns, run)
        assert fit([*flags, "--trainer.max_epochs", "2", "--run_dir", str(run), "--ckpt_path",
                    "last", "--model.learn_postprocessing", learns]) == 0  # fmt: skip
        ends.append(load_content(run / "checkpoints" / "last.ckpt")["state_dict"])
    assert same(*ends)


def test_a_resumed_training_mirrors_only_what_all_of_it_mirrored(phantoms, tmp_path):
    flags = ["--data.manifest", str(phantoms), "--data.patch_size", "[16, 16, 16]",
             "--data.steps_per_epoch", "1", "--model.network.channels", "[4, 8]", "--run_dir",
             str(tmp_path / "run"), "--trainer.accelerator", "cpu",
             "--model.learn_postprocessing", "false"]  # fmt: skip
    one = ["--data.augmentation.flip_axes", "[0, 1]", "--trainer.max_epochs", "1"]
    other = ["--data.augmentation.flip_axes", "[1, 2]", "--trainer.max_epochs", "2"]
    assert fit([*flags, *one]) == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with pytest.raises(CheckpointError, match=r"flip_axes \[1, 2\] contradicts the checkpoint"):
        fit([*flags, *other, "--ckpt_path", "last"])
    content = load_content(last)  # as it was written before augmentation was compared
    del content[TRAINING_KEY]["data.augmentation"]
    torch.save(content, last)
    assert fit([*flags, *other, "--ckpt_path", "last"]) == 0
    assert load_trained(last).description.mirror_axes == (1,)
