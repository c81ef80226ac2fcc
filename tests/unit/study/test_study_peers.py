"""The comparison with nnU-Net measures whole process trees, and compares like with like."""

import json
import stat
import sys
import textwrap

import nibabel
import numpy as np
import pytest
import torch

from medseg.core.errors import MedsegError, OptionError
from medseg.data.transforms import scale_intensity
from medseg.networks.checkpoint import KEY, Description, load_trained
from medseg.networks.unet import Architecture
from medseg.study.benchmark import benchmark
from medseg.study.measuring import measure
from medseg.study.nnunet_side import our_name, plans_of, translated
from medseg.study.options import BenchmarkOptions
from medseg.study.staging import described

MIB = 2**20
HOLD_200_MIB = "import time; block = bytearray(b'x') * (200 * 2**20); time.sleep(1.2)"
START_A_CHILD = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {HOLD_200_MIB!r}])
"""
LEAVE_AN_ORPHAN = f"""
import subprocess, sys, time
middle = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]])"
subprocess.run([sys.executable, "-c", middle, {HOLD_200_MIB!r}])
time.sleep(1.2)
"""
SHARE_WITH_A_CHILD = """
import os, time
block = bytearray(b"x") * (200 * 2**20)
os.fork()
time.sleep(1.2)
"""


@pytest.mark.parametrize("program", [START_A_CHILD, LEAVE_AN_ORPHAN])
def test_the_memory_of_every_process_counts(tmp_path, program):
    found = measure([sys.executable, "-c", program], tmp_path / "log")
    assert 200 * MIB < found.pss_bytes <= found.rss_bytes < 300 * MIB
    assert found.processes >= 2
    assert 1.2 < found.seconds < 60


def test_the_processor_time_of_a_child_counts(tmp_path):
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    found = measure([sys.executable, "-c", program], tmp_path / "log")
    assert 0.5 <= found.processor_seconds < 1.5


def test_pages_that_processes_share_count_once_in_pss(tmp_path):
    found = measure([sys.executable, "-c", SHARE_WITH_A_CHILD], tmp_path / "log")
    assert found.rss_bytes > 400 * MIB
    assert found.pss_bytes < 300 * MIB


def test_a_command_that_fails_shows_what_it_said(tmp_path):
    program = "print('a reason'); raise SystemExit(7)"
    with pytest.raises(MedsegError, match=r"status 7:\na reason"):
        measure([sys.executable, "-c", program], tmp_path / "log")
    with pytest.raises(MedsegError, match="absent cannot be run"):
        measure([str(tmp_path / "absent")], tmp_path / "log")


NAMES = [f"case_{number}" for number in range(5)]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Return the manifest of five boxes, bright in their middle."""
    folder = tmp_path_factory.mktemp("boxes")
    noise = np.random.default_rng(0)
    for name in NAMES:
        image = noise.uniform(50, 100, (18, 26, 30)).astype(np.float32)
        label = np.zeros(image.shape, np.uint8)
        label[4:10, 8:18, 9:20] = 1
        for kind, values in (("images", image + 100 * label), ("labels", label)):
            (folder / kind).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / kind / f"{name}.nii.gz")
    listed = [{"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"}
              for name in [*NAMES, "absent"]]  # fmt: skip
    about = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "box": 1}}
    path = folder / "boxes.json"
    path.write_text(json.dumps({**about, "training": listed}))
    return path


@pytest.fixture
def run(tmp_path):
    """Return a run whose network (random weights) trained on all but two cases."""
    return write_run(tmp_path / "run")


def write_run(folder, norm="instance", **network):
    task = {
        "channel_names": ["MR"],
        "labels": {"background": 0, "box": 1},
        "patch_size": [16, 24, 32],
        "batch_size": 2,
        "preprocessing": {"spacing": None, "orientation": "RAS", "intensity": ["zscore"]},
        "train_cases": NAMES[2:],
        "val_cases": NAMES[:2],
    }
    plan = Architecture(channels=[8, 16, 24], **network)
    description = Description(norm, 8, plan, task, 0.5)
    state = description.build(seed=0).state_dict()
    (folder / "checkpoints").mkdir(parents=True)
    content = {
        KEY: description.to_primitives(),
        "state_dict": {f"network.{k}": v for k, v in state.items()},
    }
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    return folder


def trained(folder):
    return load_trained(folder / "checkpoints" / "last.ckpt")


@pytest.fixture
def peer(tmp_path, cases):
    """Return a function that writes an environment which plays nnU-Net's."""

    def write(difference=1e-6, leave_out=0):
        answer = {"difference": difference, "parameters": 1, "versions": {"nnunetv2": "2.8.1"}}
        python = f"""
            import pathlib, sys
            pathlib.Path(sys.argv[-1], "answer.json").write_text({json.dumps(answer)!r})
        """
        predict = f"""
            import os, pathlib, shutil, sys
            values = dict(zip(sys.argv[1:], sys.argv[2:]))
            assert values["-device"] == "cpu" and values["-step_size"] == "0.5"
            assert "--disable_tta" in sys.argv and os.environ["nnUNet_results"]
            os.mkdir(values["-o"])
            for image in sorted(pathlib.Path(values["-i"]).iterdir())[{leave_out}:]:
                name = image.name.removesuffix("_0000.nii.gz")
                shutil.copy(f"{cases.parent}/labels/{{name}}.nii.gz", values["-o"])
        """
        folder = tmp_path / "peer"
        folder.mkdir()
        for name, text in (("python", python), ("nnUNetv2_predict", predict)):
            path = folder / name
            path.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return folder / "python"

    return write


def options(**changes):
    return BenchmarkOptions(what="nnunet", **changes)


def test_both_sides_are_timed_weighed_and_scored(tmp_path, run, cases, peer, caplog):
    result = tmp_path / "result.json"
    with caplog.at_level("INFO", logger="medseg"):
        status = benchmark(options(run=run, input=cases, peer_python=peer(),
                                   predict_flags="--format nifti", output=result))  # fmt: skip
    assert status == 0
    content = json.loads(result.read_text())
    assert (content["cases"], content["cases_scored"]) == (5, 2)  # the others trained the network
    ours, theirs = content["sides"]
    assert theirs["dice"] == 1.0
    assert ours["dice"] == pytest.approx(content["dice_between_them"], abs=0.3)
    assert 0 <= ours["dice"] < 0.5  # random weights
    assert content["times_faster"] == theirs["seconds"] / ours["seconds"]
    assert content["pss_share"] == ours["pss_bytes"] / theirs["pss_bytes"]
    assert theirs["cases_per_second"] == 5 / theirs["seconds"]
    commands = [line for line in caplog.messages if " predict " in line or "_predict" in line]
    assert "--overlap 0.5" in commands[0]
    assert commands[0].endswith("--format nifti")
    assert commands[1].endswith("-device cpu --disable_tta -step_size 0.5")
    rows = {line.split()[0]: line.split() for line in caplog.messages[-3:-1]}
    assert rows["nnunetv2"][-1] == "1.0000"
    assert float(rows["medseg"][2]) > 0


@pytest.mark.parametrize("difference", [1e-2, float("nan")])
def test_networks_that_differ_are_not_compared(run, cases, peer, difference):
    with pytest.raises(MedsegError, match=r"differs by .* 1e-04 is allowed"):
        benchmark(options(run=run, input=cases, peer_python=peer(difference)))


def test_a_side_that_leaves_out_a_case_is_no_result(run, cases, peer):
    asked = options(run=run, input=cases, cases=3, peer_python=peer(leave_out=1))
    with pytest.raises(MedsegError, match=r"nnunetv2 2.8.1 wrote 2 label maps for 3 cases"):
        benchmark(asked)


def test_all_that_is_missing_is_named_at_once(tmp_path):
    with pytest.raises(OptionError, match=r"3 problems:\n.*--run.*\n.*--input.*\n.*--peer_python"):
        benchmark(options())
    python = tmp_path / "python"
    python.touch()
    with pytest.raises(OptionError, match="no nnUNetv2_predict beside it"):
        benchmark(options(run=tmp_path, input=tmp_path, peer_python=python))
    with pytest.raises(OptionError, match="--cases must be at least 1; got 0"):
        benchmark(options(run=tmp_path, input=tmp_path, peer_python=python, cases=0))


def test_what_nnunet_would_see_otherwise_is_refused(tmp_path, run, peer, cases):
    python, folder = peer(), tmp_path / "images"
    folder.mkdir()
    with pytest.raises(OptionError, match="no volume"):
        benchmark(options(run=run, input=folder, peer_python=python))
    for name, affine in (("a", (1, 1, 1)), ("b", (-1, 1, 1)), ("c", (1, 1, 2))):
        volume = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.diag([*affine, 1.0]))
        nibabel.save(volume, folder / f"{name}.nii.gz")
    with pytest.raises(OptionError, match=r"(?s)2 problems.*b.nii.gz.*LAS.*c.nii.gz: spacing"):
        benchmark(options(run=run, input=folder, peer_python=python))
    nibabel.save(volume, folder / "d.nii")
    with pytest.raises(OptionError, match=r"1 problem.*\n.*d.nii: .* one .nii.gz file per channel"):
        benchmark(options(run=run, input=folder, peer_python=python))
    layer = write_run(tmp_path / "layer", norm="layer")
    with pytest.raises(OptionError, match=r"'layer'.* instance, batch with encoder"):
        benchmark(options(run=layer, input=cases, peer_python=python))


def nnunet_names(name):
    """Return what PlainConvUNet calls one of our tensors."""
    room, *rest = name.split(".")
    if room in ("upsample", "logits"):
        place = {"upsample": "transpconvs", "logits": "seg_layers"}[room]
        return [f"decoder.{place}.{'.'.join(rest)}"]
    level, block, layer, kind = rest
    stages = {
        "encoder": [f"encoder.stages.{level}.0", f"decoder.encoder.stages.{level}.0"],
        "decoder": [f"decoder.stages.{level}"],
    }
    layers = [("conv", "norm")[int(layer)], f"all_modules.{layer}"]
    return [f"{stage}.convs.{block}.{one}.{kind}" for stage in stages[room] for one in layers]


def turned(tensor):
    return tensor.permute(0, 1, 4, 3, 2) if tensor.ndim == 5 else tensor


def test_every_tensor_gets_nnunets_names_and_axes(tmp_path):
    kernels = [[3, 3, 1], [3, 3, 3], [3, 3, 3]]
    run = trained(write_run(tmp_path, conv_bias=True, kernels=kernels))
    wanted = {
        theirs: torch.zeros_like(turned(value))
        for name, value in run.weights.items()
        for theirs in nnunet_names(name)
    }
    assert all(our_name(theirs) in run.weights for theirs in wanted)
    found = translated(run.weights, wanted)
    for name, value in run.weights.items():
        for theirs in nnunet_names(name):
            assert torch.equal(found[theirs], turned(value))
    assert found["encoder.stages.0.0.convs.0.conv.weight"].shape == (8, 1, 1, 3, 3)


def test_what_finds_no_partner_is_an_error_and_a_bias_left_out_is_zero():
    weight, bias = "decoder.transpconvs.0.weight", "decoder.transpconvs.0.bias"
    ours = {"upsample.0.weight": torch.ones(2, 1, 2, 2, 2)}
    wanted = {weight: torch.zeros(2, 1, 2, 2, 2), bias: torch.ones(1)}
    assert translated(ours, wanted)[bias].tolist() == [0.0]
    with pytest.raises(ValueError, match=r"nothing in nnU-Net's network for \['upsample.0.weight'"):
        translated(ours, {bias: torch.ones(1)})
    with pytest.raises(ValueError, match=r"transpconvs.0.weight: nothing in our network"):
        translated({}, wanted)
    with pytest.raises(ValueError, match=r"\(2, 1, 2, 2, 2\) for \(2, 1, 2, 2, 1\)"):
        translated(ours, {weight: torch.zeros(2, 1, 2, 2, 1)})


def test_the_plans_say_what_our_network_is(run):
    about = described(trained(run), (1.0, 2.0, 3.0))
    plans = plans_of({**about, "intensity": [[-100.0, 300.0]]})
    found = plans["configurations"]["3d_fullres"]
    assert (found["patch_size"], found["spacing"]) == ([32, 24, 16], [3.0, 2.0, 1.0])
    network = found["architecture"]["arch_kwargs"]
    assert network["features_per_stage"] == [8, 16, 24]
    assert network["n_conv_per_stage_decoder"] == [2, 2]
    assert found["normalization_schemes"] == ["CTNormalization"]
    ct = plans["foreground_intensity_properties_per_channel"]["0"]
    image = torch.linspace(-500, 500, 11).reshape(1, 11, 1, 1)
    theirs = (image.clamp(ct["percentile_00_5"], ct["percentile_99_5"]) - ct["mean"]) / ct["std"]
    scale_intensity(image, [[-100.0, 300.0]])
    torch.testing.assert_close(theirs, image)


def test_a_network_with_one_head_puts_it_at_the_finest_level(tmp_path):
    about = described(trained(write_run(tmp_path, deep_supervision=False)), (1, 1, 1))
    heads = {name for name in about["weights"] if name.startswith("logits")}
    assert heads == {"logits.1.weight", "logits.1.bias"}
