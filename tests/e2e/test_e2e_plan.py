"""`medseg plan`: its configuration trains as it is; what cannot be planned is refused in words."""

import itertools
import json

import pytest
import torch
import yaml

from medseg.cli import main
from medseg.core.manifest import load_manifest
from medseg.networks.checkpoint import load_trained
from medseg.training import plan_fit
from medseg.training.measure import StepCost

GIB = 1 << 30


@pytest.fixture
def known_speed(monkeypatch):
    """Have every step take 2 µs a voxel, and half of it in bfloat16; return what was asked."""
    asked = []

    def measure(job):
        asked.append(job)
        seconds = 2e-6 * job.voxels * (0.5 if job.precision == "bf16-mixed" else 1)
        return StepCost(GIB // 2 + 1000 * job.voxels, seconds)

    monkeypatch.setattr(plan_fit, "measure", measure)
    return asked


def planned(manifest, tmp_path, *flags):
    output = tmp_path / "plan.yaml"
    status = main(
        ["plan", "--manifest", str(manifest), "--device", "cpu", "--output", str(output), *flags]
    )
    assert status == 0
    return yaml.safe_load(output.read_text())


def refused(manifest, tmp_path, capsys, *flags):
    output = tmp_path / "plan.yaml"
    assert main(["plan", "--manifest", str(manifest), "--output", str(output), *flags]) == 2
    assert not output.exists()
    return capsys.readouterr().err


def test_a_plan_trains_as_it_is(phantoms, tmp_path, capsys):
    plan = planned(phantoms, tmp_path, "--batch_size", "2", "--time", "5m", "--memory", "4GiB")
    run = tmp_path / "run"
    bounds = [
        "--trainer.max_steps",
        "2",
        "--data.steps_per_epoch",
        "2",
        "--model.network.channels",
        str([8] * len(plan["model"]["network"]["strides"])),
    ]
    assert (
        main(["fit", "--config", str(tmp_path / "plan.yaml"), "--run_dir", str(run), *bounds]) == 0
    )
    assert load_trained(run / "checkpoints" / "last.ckpt").description.norm == "instance"
    record = json.loads((tmp_path / "plan.json").read_text())
    assert record["step"]["measured"]
    assert 0.4 * GIB < record["step"]["bytes"] < 4 * GIB
    page = (tmp_path / "plan.html").read_text()
    assert "model.network.strides" in page
    assert "Content-Security-Policy" in page


def test_thick_slices_get_a_network_of_their_own(ct_phantoms, tmp_path, known_speed):
    plan = planned(ct_phantoms, tmp_path)
    network, data = plan["model"]["network"], plan["data"]
    assert data["preprocessing"]["spacing"][2] > 1.5 * data["preprocessing"]["spacing"][0]
    assert [2, 2, 1] in network["strides"]
    lower, upper = data["preprocessing"]["intensity"][0]
    assert -300 < lower < upper < 1000
    assert len(network["channels"]) == len(network["strides"]) == len(network["kernels"])


def test_every_setting_has_its_reason_above_it(phantoms, tmp_path, known_speed):
    planned(phantoms, tmp_path)
    lines = (tmp_path / "plan.yaml").read_text().splitlines()
    for above, line in itertools.pairwise(lines):
        if not line.lstrip().startswith("#") and not line.endswith(":"):
            assert above.lstrip().startswith("#"), line


def test_little_time_means_a_small_patch(phantoms, tmp_path, known_speed):
    flags = ["--batch_size", "2", "--overwrite", "--time"]
    sizes, reasons = [], []
    for given in ("1h", "50s"):
        patch = planned(phantoms, tmp_path, *flags, given)["data"]["patch_size"]
        sizes.insert(0, torch.tensor(patch).prod())
        reasons.append("did not fit the time" in (tmp_path / "plan.yaml").read_text())
    assert reasons == [False, True]
    assert sizes[0] < sizes[1]
    # At least a thousand steps, as far as patches can be small.
    assert 2e-6 * 0.5 * 2 * int(sizes[0]) <= 50 / plan_fit.FEWEST_STEPS


def test_memory_bounds_the_batch_and_what_was_measured_counts(phantoms, tmp_path, known_speed):
    flags = ["--overwrite", "--time", "30d", "--memory"]
    small, large = (planned(phantoms, tmp_path, *flags, m)["data"] for m in ("1GiB", "16GiB"))
    asked = known_speed[-1]
    assert small["batch_size"] * torch.tensor(small["patch_size"]).prod() * 1000 <= GIB // 2
    assert large["batch_size"] >= small["batch_size"]
    assert asked.batch_size == large["batch_size"]


def test_a_measurement_that_does_not_fit_means_a_smaller_patch(phantoms, tmp_path, monkeypatch):
    def measure(job):
        return StepCost(None, None) if job.voxels > 2 * 30_000 else StepCost(GIB, 0.1)

    monkeypatch.setattr(plan_fit, "measure", measure)
    data = planned(phantoms, tmp_path)["data"]
    assert data["batch_size"] * torch.tensor(data["patch_size"]).prod() <= 60_000
    assert "the next larger one did not fit the memory" in (tmp_path / "plan.yaml").read_text()


def test_that_steps_are_measured_is_said_before_the_first(phantoms, tmp_path, monkeypatch, capsys):
    said = []

    def measure(job):
        said.append(capsys.readouterr().err)
        return StepCost(GIB, 0.1)

    monkeypatch.setattr(plan_fit, "measure", measure)
    planned(phantoms, tmp_path, "--time", "15m")
    assert "measuring training steps on the CPU, about 83 s at most" in said[0]
    assert not any("measuring" in later for later in said[1:])


def test_bfloat16_is_taken_where_it_is_faster_only(phantoms, tmp_path, known_speed, monkeypatch):
    assert planned(phantoms, tmp_path)["trainer"]["precision"] == "bf16-mixed"
    monkeypatch.setattr(plan_fit, "measure", lambda job: StepCost(GIB, 0.1))
    plan = planned(phantoms, tmp_path, "--overwrite")
    assert plan["trainer"]["precision"] == "32-true"


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_a_gpu_that_is_not_here_is_reckoned_with(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_fit, "measure", None)
    plan = planned(phantoms, tmp_path, "--device", "gpu", "--memory", "4GiB")
    assert plan["trainer"]["accelerator"] == "gpu"
    assert plan["trainer"]["precision"] == "16-mixed"
    assert plan["model"]["network"]["channels"][0] == 32
    text = (tmp_path / "plan.yaml").read_text()
    assert "reckoned" in text
    # Time is not known, so it is no reason.
    assert "how long a step takes is not known" in text
    assert "how many the time allows is not known" in text
    assert "of the time on it" not in text


def test_the_validated_fold_is_not_read(phantoms, tmp_path, known_speed):
    planned(phantoms, tmp_path, "--fold", "1")
    read = json.loads((tmp_path / "plan.json").read_text())["fingerprint"]["cases"]
    held = {case.case_id for case in load_manifest(phantoms).in_folds([1])}
    assert held
    assert not held & set(read)


def test_another_norm_and_batch_are_taken_as_they_are(phantoms, tmp_path, known_speed):
    plan = planned(
        phantoms, tmp_path, "--norm", "batch", "--batch_size", "3", "--spacing", "2", "2", "2"
    )
    assert plan["model"]["norm"] == "batch"
    assert plan["data"]["batch_size"] == 3
    assert plan["data"]["preprocessing"]["spacing"] == [2, 2, 2]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--time", "soon"], "--time must be a duration"),
        (["--memory", "much"], "--memory must be a size"),
        (["--norm", "grup"], "Did you mean 'group'"),
        (["--fold", "9"], "has no fold 9"),
        (["--batch_size", "0"], "--batch_size must be at least 1"),
        (["--spacing", "1", "2"], "three lengths"),
        (["--output", "plan.txt"], "must end in .yaml"),
        (["--memory", "200MiB", "--device", "cpu"], "the memory does not suffice"),
        (["--spacing", "90", "90", "90"], "too small for two levels"),
        (
            ["--time", "1s", "--memory", "16GiB", "--batch_size", "8", "--device", "cpu"],
            "nothing is learned in fewer than 100",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(phantoms, tmp_path, capsys, known_speed, flags, words):
    assert words in refused(phantoms, tmp_path, capsys, *flags)


def test_a_plan_that_is_there_is_kept(phantoms, tmp_path, capsys):
    (tmp_path / "plan.yaml").write_text("mine: 1\n")
    assert main(["plan", "--manifest", str(phantoms), "--output", str(tmp_path / "plan.yaml")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "plan.yaml").read_text() == "mine: 1\n"


def test_a_set_without_folds_is_refused(phantoms, tmp_path, capsys):
    content = json.loads(phantoms.read_text())
    for case in content["training"]:
        case.pop("fold")
    (tmp_path / "m.json").write_text(json.dumps(content))
    told = refused(tmp_path / "m.json", tmp_path, capsys, "--root", str(phantoms.parent))
    assert "medseg manifest" in told


@pytest.mark.parametrize("place", ["file/p.yaml", "file/deeper/p.yaml", "folder.yaml"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    phantoms, tmp_path, capsys, monkeypatch, place
):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.yaml").mkdir()
    monkeypatch.setattr("medseg.training.plan.fingerprint", None)  # would be the work
    output = ["--output", str(tmp_path / place), "--overwrite"]
    assert main(["plan", "--manifest", str(phantoms), "--device", "cpu", *output]) == 2
    told = capsys.readouterr().err
    assert "--output" in told
    assert "Traceback" not in told


def test_a_fold_that_does_not_exist_is_all_that_is_spoken_of(phantoms, tmp_path, capsys):
    content = json.loads(phantoms.read_text())
    for case in content["training"]:
        if case["fold"] == 0:  # held back
            case["image"] = f"absent_{case['image']}"
    (tmp_path / "m.json").write_text(json.dumps(content))
    flags = ["--root", str(phantoms.parent), "--fold", "9"]
    told = refused(tmp_path / "m.json", tmp_path, capsys, *flags)
    assert "has no fold 9" in told
    assert "left out" not in told


@pytest.mark.parametrize(("norm", "told"), [("batch", True), ("group", False)])
def test_a_batch_that_changes_what_the_norm_computes_is_told(
    phantoms, tmp_path, capsys, known_speed, monkeypatch, norm, told
):
    monkeypatch.setattr(plan_fit, "MOST_OF_DATA", 1.0)
    flags = ["--norm", norm, "--time", "30d", "--memory", "4GiB", "--spacing", "3", "3", "3"]
    assert planned(phantoms, tmp_path, *flags)["data"]["batch_size"] > 2
    assert ("takes its statistics over the batch" in capsys.readouterr().err) is told


@pytest.mark.gpu
def test_a_gpu_is_measured(phantoms, tmp_path):
    output = tmp_path / "plan.yaml"
    flags = ["--device", "gpu", "--memory", "4GiB", "--time", "10m", "--output", str(output)]
    assert main(["plan", "--manifest", str(phantoms), *flags]) == 0
    record = json.loads((tmp_path / "plan.json").read_text())
    assert record["step"]["measured"]
    assert 0 < record["step"]["bytes"] <= 4 * GIB
    assert record["steps"] > 100
    assert yaml.safe_load(output.read_text())["trainer"]["accelerator"] == "gpu"


def test_a_validated_fold_that_is_held_back_is_answered_with_one_that_is_there(
    phantoms, tmp_path, capsys
):
    content = json.loads(phantoms.read_text())
    for case in content["training"]:
        if case["fold"] == 0:
            case["image"] = case["label"] = f"held/{case['image']}"
    (tmp_path / "m.json").write_text(json.dumps(content))
    root = str(load_manifest(phantoms).root)
    said = refused(tmp_path / "m.json", tmp_path, capsys, "--root", root)
    assert "no file of fold 0 is here" in said
    assert "--fold 1" in said
    assert "--root" not in said
