"""One case in, label map out: ensembles, mirroring, uncertainty, limits, and memory that runs out."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.core.errors import CheckpointError, OptionError, VolumeError
from medseg.core.geometry import Grid
from medseg.core.postprocessing import Rule
from medseg.inference import predictor as predictor_module
from medseg.inference.backends import build_backend
from medseg.inference.ensemble import shared_rules
from medseg.inference.files import probability_file
from medseg.inference.gate import Gate
from medseg.inference.predictor import Predictor, relative_entropy
from medseg.inference.settings import Settings
from medseg.io import write_volume
from medseg.networks.checkpoint import Description, Trained
from medseg.networks.devices import is_out_of_memory
from medseg.networks.unet import Architecture

LABELS = {"background": 0, "liver": 3, "tumour": 700}


def trained(seed=0, norm="instance", labels=None, **task):
    base = {
        "manifest": "m",
        "channel_names": ["CT"],
        "labels": labels or LABELS,
        "patch_size": [16, 16, 16],
        "batch_size": 2,
        "preprocessing": {
            "spacing": [1.0, 1.0, 1.5],
            "orientation": "RAS",
            "intensity": ["zscore"],
        },
        "train_cases": ["seen"],
        "val_cases": ["judged"],
    }
    description = Description(norm, 8, Architecture(channels=[8, 16]), base | task, 0.5)
    return Trained(description, description.build(seed).state_dict())


@pytest.fixture
def image(tmp_path):
    rng = np.random.default_rng(0)
    grid = Grid((30, 22, 26), np.diag([-1.2, 0.9, 1.4, 1.0]))
    path = tmp_path / "image.nii.gz"
    write_volume(path, rng.normal(100, 20, grid.shape).astype(np.float32), grid)
    return path


def test_labels_are_those_of_the_table_on_the_images_grid(image):
    found = Predictor([trained()]).predict([image])
    assert found.label.dtype == np.uint16
    assert found.label.shape == (30, 22, 26)
    assert set(np.unique(found.label)) <= {0, 3, 700}
    assert len(np.unique(found.label)) > 1


def test_a_tight_limit_gives_the_same_labels(image):
    free = Predictor([trained()])
    plan = free.estimate([image])
    tight = Settings(
        max_memory=free.request.fixed_bytes + plan.labelling - plan.cut.slab_bytes // 2
    )
    limited = Predictor([trained()], tight)
    cut = limited.estimate([image]).cut
    assert cut.windows > cut.fewest
    np.testing.assert_array_equal(limited.predict([image]).label, free.predict([image]).label)


def test_a_case_that_cannot_keep_the_limit_is_refused_before_it_is_read(image, monkeypatch):
    predictor = Predictor([trained()])
    fixed = predictor.request.fixed_bytes
    small = Predictor([trained()], Settings(max_memory=fixed + 1000))
    monkeypatch.setattr(
        "medseg.inference.predictor.prepare_case", lambda *_, **__: pytest.fail("read")
    )
    with pytest.raises(VolumeError) as refusal:
        small.predict([image])
    assert refusal.value.code == "memory"


def test_an_ensemble_is_the_mean_of_probabilities(image):
    members = [trained(0), trained(1, patch_size=[16, 24, 16]), trained(2, "batch")]
    members[1].description.task["preprocessing"] = {
        "spacing": None, "orientation": "RAS", "intensity": ["zscore"],
    }  # fmt: skip
    alone = [Predictor([m]).predict([image], probabilities=True).probabilities for m in members]
    together = Predictor(members).predict([image], probabilities=True)
    mean = np.mean([each.astype(np.float64) for each in alone], axis=0)
    np.testing.assert_allclose(together.probabilities, mean, atol=2e-3)
    values = np.asarray(list(LABELS.values()))
    clear = np.diff(np.sort(mean, axis=0)[-2:], axis=0)[0] > 5e-3
    np.testing.assert_array_equal(together.label[clear], values[mean.argmax(0)][clear])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (trained(labels={"background": 0, "tumour": 700, "liver": 3}), "equal labels"),
        (trained(labels={"background": 0, "liver": 3}), "equal labels"),
        (trained(channel_names=["MR"]), "equal channel_names"),
        (trained(preprocessing={"orientation": "LPS"}), "one orientation"),
    ],
)
def test_networks_that_do_not_go_together_are_refused(other, words):
    with pytest.raises(CheckpointError, match=words):
        Predictor([trained(), other])


def test_roles_count_every_member():
    predictor = Predictor([trained(), trained(train_cases=["judged"], val_cases=["seen"])])
    assert predictor.role("seen") == predictor.role("judged") == "training"
    assert predictor.role("new") == "unseen"
    assert Predictor([trained()]).role("judged") == "validation"


def test_rules_of_an_ensemble_are_those_of_all_members_the_milder_one():
    one = replace(
        trained().description, postprocessing=(Rule("liver", True), Rule("tumour", minimum_ml=3.0))
    )
    other = replace(trained().description, postprocessing=(Rule("tumour", minimum_ml=1.0),))
    assert shared_rules([one, other]) == (Rule("tumour", minimum_ml=1.0),)
    assert shared_rules([one]) == one.postprocessing


def test_rules_are_applied_unless_switched_off(image):
    member = trained()
    ruled = Trained(
        replace(member.description, postprocessing=(Rule("liver", minimum_ml=1e9),)), member.weights
    )
    assert 3 in Predictor([member]).predict([image]).label
    assert 3 not in Predictor([ruled]).predict([image]).label
    assert 3 in Predictor([ruled], Settings(postprocessing=False)).predict([image]).label


def test_mirroring_is_the_mean_of_the_logits_and_needs_a_training_that_mirrored(tmp_path):
    grid = Grid.from_spacing((16, 16, 16), (1, 1, 1.5))
    values = np.random.default_rng(1).normal(size=grid.shape).astype(np.float32)
    path = tmp_path / "x.nii.gz"
    write_volume(path, values, grid)
    member = trained(mirror_axes=[0, 2])
    found = Predictor([member], Settings(tta=True)).predict([path], probabilities=True)
    plain = Predictor([member])
    window = torch.from_numpy(plain.open([path]).prepared[0].image)[None]
    network = member.network()
    with torch.inference_mode():
        flips = [[], [2], [4], [2, 4]]
        logits = sum(network(window.flip(axes)).flip(axes) for axes in flips) / 4
    np.testing.assert_allclose(found.probabilities, logits[0].softmax(0), atol=2e-3)
    with pytest.raises(OptionError, match="mirrored none"):
        Predictor([trained()], Settings(tta=True))


def test_uncertainty_is_relative_entropy():
    certain, even = torch.tensor([1.0, 0, 0]), torch.full((3,), 1 / 3)
    assert float(relative_entropy(certain[:, None])[0]) == pytest.approx(0, abs=1e-6)
    assert float(relative_entropy(even[:, None])[0]) == pytest.approx(1, abs=1e-6)


def test_probabilities_sum_to_one_and_go_with_labels_and_uncertainty(image):
    found = Predictor([trained()]).predict([image], uncertainty=True, probabilities=True)
    assert found.probabilities.shape == (3, 30, 22, 26)
    np.testing.assert_allclose(found.probabilities.astype(float).sum(0), 1, atol=2e-3)
    assert found.uncertainty.min() >= 0
    assert found.uncertainty.max() <= 1 + 1e-6
    exact = found.probabilities.astype(np.float64)
    entropy = -(exact * np.log(np.maximum(exact, 1e-9))).sum(0) / np.log(3)
    np.testing.assert_allclose(found.uncertainty, entropy, atol=5e-3)


def test_a_file_of_probabilities_takes_boxes_in_any_order_and_appears_whole(tmp_path):
    values = np.random.default_rng(0).random((3, 7, 8, 9)).astype(np.float16)
    path = tmp_path / "p.npy"
    with probability_file(path, 3, (7, 8, 9)) as write:
        for i in ((5, 7), (0, 5)):
            for j in ((3, 8), (0, 3)):
                for k in ((0, 9),) if i[0] else ((4, 9), (0, 4)):
                    write((i, j, k), values[:, i[0] : i[1], j[0] : j[1], k[0] : k[1]])
        assert not path.exists()
    np.testing.assert_array_equal(np.load(path), values)
    with pytest.raises(RuntimeError), probability_file(tmp_path / "q.npy", 3, (7, 8, 9)):
        raise RuntimeError
    assert [file.name for file in tmp_path.iterdir()] == ["p.npy"]


class Starved:
    """A network that runs out of memory for more than one window, or always."""

    def __init__(self, network, most, error):
        self.network, self.most, self.error = network, most, error

    def __call__(self, windows):
        if len(windows) > self.most:
            raise self.error
        return self.network(windows)


ENOUGH = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@pytest.mark.parametrize(
    "error",
    [ENOUGH, MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")],
)
def test_memory_that_runs_out_gives_the_same_labels_by_a_smaller_batch(image, error):
    settings = Settings(sw_batch_size=4)
    expected = Predictor([trained()], settings).predict([image])
    predictor = Predictor([trained()], settings)
    predictor._networks = [Starved(predictor._networks[0], 1, error)]
    found = predictor.predict([image])
    np.testing.assert_array_equal(found.label, expected.label)
    assert [text.split(":")[0] for text in found.warnings] == ["memory", "memory"]


def test_thinner_slabs_give_the_same_labels(image, monkeypatch):
    predictor = Predictor([trained()])
    expected = predictor.predict([image]).label
    opened = predictor.open([image])
    slabs = []
    for rung in predictor._rungs(opened):
        slabs.append(rung.cut.slab_bytes)
        label, _ = predictor._label(opened, rung, False, None)
        np.testing.assert_array_equal(label, expected)
    assert slabs == sorted(slabs, reverse=True)
    assert slabs[-1] <= slabs[0] / 16
    assert rung.cut.windows > opened.plan.cut.windows


def test_when_the_least_does_not_suffice_the_case_fails_and_the_next_one_works(image):
    predictor = Predictor([trained()])
    good = predictor._networks
    predictor._networks = [Starved(good[0], 0, ENOUGH)]
    with pytest.raises(VolumeError) as refusal:
        predictor.predict([image])
    assert refusal.value.code == "memory"
    predictor._networks = good
    assert predictor.predict([image]).label.any()


def test_other_errors_are_no_lack_of_memory(image):
    predictor = Predictor([trained()])
    calls = []

    def broken(windows):
        calls.append(1)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    predictor._networks = [broken]
    with pytest.raises(RuntimeError, match="illegal memory"):
        predictor.predict([image])
    assert len(calls) == 1
    assert not is_out_of_memory(RuntimeError("CUDA error: out of something"))


def test_air_is_skipped_and_is_background(tmp_path):
    values = np.full((64, 20, 20), -1000, dtype=np.int16)
    values[20:34, 4:16, 4:16] = np.random.default_rng(0).integers(0, 100, (14, 12, 12))
    path = tmp_path / "ct.nii.gz"
    write_volume(path, values, Grid.from_spacing(values.shape, (1, 1, 1)))
    task = {"preprocessing": {"intensity": [[-100, 200]]}}
    calls = {True: 0, False: 0}
    for skip in (True, False):
        predictor = Predictor([trained(**task)], Settings(skip_empty=skip))
        network = predictor._networks[0]

        def counted(windows, skip=skip, network=network):
            calls[skip] += len(windows)
            return network(windows)

        predictor._networks = [counted]
        label = predictor.predict([path]).label
        if skip:
            assert not label[:4].any()
            assert not label[-20:].any()
    assert calls[True] < calls[False] / 2


def test_the_gate_lets_one_in_always_and_more_up_to_the_limit():
    gate = Gate(100)
    gate.acquire(300)
    assert not gate._has_room(1)
    gate.release(300)
    gate.acquire(60)
    assert gate._has_room(40)
    assert not gate._has_room(41)
    Gate(None).acquire(1 << 60)


PEAK = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_inference_predictor import members_for
from medseg.inference.predictor import Predictor
from medseg.inference.settings import Settings
kind, limit, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
predictor = Predictor(members_for(kind), Settings(max_memory=limit or None))
plan = predictor.estimate([path])
predictor.predict([path], uncertainty=kind == "uncertain")
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
print(predictor.request.fixed_bytes + plan.bytes, peak, plan.cut.windows / plan.cut.fewest)
"""


def members_for(kind):
    """Return the networks of a measurement of memory."""
    classes = {f"c{n}": n for n in range(40 if kind == "many" else 3)}
    plain = {"spacing": None, "orientation": "RAS", "intensity": ["zscore"]}
    regrid = {"spacing": [1.5, 1.5, 1.5], "orientation": "RAS", "intensity": ["zscore"]}
    common = {"labels": classes, "patch_size": [32, 32, 32]}
    members = [trained(preprocessing=regrid if kind == "regrid" else plain, **common)]
    if kind == "pair":
        members.append(trained(1, preprocessing=regrid, **common))
    return members


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "limit_mib"),
    [("few", 0), ("many", 0), ("many", 900), ("regrid", 0), ("pair", 0), ("float64", 0)],
)
def test_the_memory_really_taken_is_no_more_than_was_predicted(tmp_path, kind, limit_mib):
    shape = (160, 160, 192)
    values = np.random.default_rng(0).normal(0, 300, shape)
    values = values if kind == "float64" else values.astype(np.int16)
    path = tmp_path / "big.nii.gz"
    write_volume(path, values, Grid.from_spacing(shape, (1, 1, 1)))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    command = [sys.executable, "-c", PEAK, kind, str(limit_mib << 20), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    predicted, peak, factor = map(float, done.stdout.split())
    assert peak <= predicted, f"{peak / 2**20:.0f} MiB taken, {predicted / 2**20:.0f} predicted"
    assert predicted < 3 * peak
    if limit_mib:
        assert peak <= limit_mib << 20
        assert factor > 1


def test_logits_that_are_no_numbers_fail_the_case(image):
    predictor = Predictor([trained()])
    network = predictor._networks[0]
    predictor._networks = [lambda windows: network(windows) * float("nan")]
    with pytest.raises(VolumeError) as refusal:
        predictor.predict([image])
    assert refusal.value.code == "no-finite-logits"


def test_own_statistics_of_a_case_in_one_window_give_the_labels_of_instance_norm(image):
    batch = trained(norm="batch", patch_size=[40, 40, 40])
    instance = trained(norm="instance", patch_size=[40, 40, 40])
    own = Predictor([batch], Settings(norm_statistics="own")).predict([image]).label
    assert np.mean(own == Predictor([instance]).predict([image]).label) > 0.9999
    assert np.mean(own == Predictor([batch]).predict([image]).label) < 0.99


def test_own_statistics_make_each_network_once_and_double_the_time_of_a_window(image, monkeypatch):
    made = []

    def build(*arguments):
        made.append(arguments)
        return build_backend(*arguments)

    monkeypatch.setattr(predictor_module, "build_backend", build)
    predictor = Predictor([trained(norm="batch")], Settings(norm_statistics="own"))
    assert not made
    predictor.predict([image])
    assert len(made) == 1
    assert predictor.time_window() > 0


def test_own_statistics_are_refused_where_they_cannot_be_had():
    with pytest.raises(OptionError, match="keeps no running statistics"):
        Predictor([trained(norm="instance")], Settings(norm_statistics="own"))
    with pytest.raises(OptionError, match=r"'batch_frozen' was trained with .* that never move"):
        Predictor([trained(norm="batch_frozen")], Settings(norm_statistics="own"))
    with pytest.raises(OptionError, match="needs --backend torch"):
        Predictor([trained(norm="batch")], Settings(norm_statistics="own", compile=True))
