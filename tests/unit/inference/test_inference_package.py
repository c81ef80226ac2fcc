"""A package is the checkpoint again, or it is refused in words; it appears whole or not at all."""

import hashlib
import importlib.util
import json
import os
import shutil
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medseg.cli import main
from medseg.core.errors import CheckpointError, OptionError
from medseg.inference import export as exporting
from medseg.inference.export import export
from medseg.inference.options import ExportOptions
from medseg.inference.package import is_package, load_model, load_package, model_file
from medseg.networks.checkpoint import KEY, Description, load_trained
from medseg.networks.unet import Architecture

TASK = {
    "manifest": "hips",
    "channel_names": ["T1w"],
    "labels": {"background": 0, "anterior": 1, "posterior | <b>": 7},
    "patch_size": [8, 12, 8],
    "batch_size": 2,
    "preprocessing": {"spacing": [1.0, 1.0, 1.5], "orientation": "RAS", "intensity": ["zscore"]},
    "train_cases": ["hip_001", "hip_002"],
    "val_cases": ["hip_003"],
    "postprocessing": {"keep_largest": [1], "of": {"dice": 0.25}},
}


def description(norm="batch"):
    return Description(norm, 8, Architecture(channels=[8, 16]), TASK, 0.5)


@pytest.fixture
def run_dir(tmp_path):
    """Return a run directory with two checkpoints, a record and scores."""
    folder = tmp_path / "runs" / "hips"
    (folder / "checkpoints").mkdir(parents=True)
    for seed, name in enumerate(("best", "last")):
        network = description().build(seed=seed)
        network.train()(torch.randn((2, 1, 8, 12, 8), generator=torch.Generator().manual_seed(1)))
        state = {f"network.{key}": value for key, value in network.state_dict().items()}
        content = {"state_dict": state, KEY: description().to_primitives()}
        torch.save(content, folder / "checkpoints" / f"{name}.ckpt")
    fit = {"data_digest": "abc123", "data_set": "hips", "root": "/home/somebody/data", "epochs": 3}
    (folder / "fit.json").write_text(json.dumps(fit))
    dice = {"mean": 0.875, "ci_low": 0.5, "ci_high": None, "n": 3, "n_missed": 0, "n_invented": 0}
    summary = {"classes": {"anterior": {"metrics": {"dice": dice}}}, "cases": {"in_means": 3}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def packed(run_dir, **options):
    output = run_dir.parent / "package"
    assert export(ExportOptions(run=run_dir, output=output, **options)) == 0
    return output


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def rewrite(package, change):
    path = package / "model.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def reseal(package):
    """Record the weights as they are now; what remains is what only their content tells."""
    data = (package / "model.safetensors").read_bytes()
    found = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    rewrite(package, lambda content: content.update(weights=found))


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_package_is_the_checkpoint_again(run_dir, which):
    package = packed(run_dir, checkpoint=which)
    there = load_trained(run_dir / "checkpoints" / f"{which}.ckpt")
    here = load_package(package)
    assert here.description == there.description
    assert here.weights.keys() == there.weights.keys()
    assert all(torch.equal(here.weights[key], there.weights[key]) for key in there.weights)
    image = torch.randn((1, 1, 8, 12, 8), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.equal(here.network()(image), there.network()(image))
    assert here.description.trained_on == ("hip_001", "hip_002")  # what `role` needs


def test_one_function_reads_runs_and_packages(run_dir):
    package = packed(run_dir, checkpoint="last")
    weights = load_model(run_dir, "last").weights
    assert all(torch.equal(v, weights[k]) for k, v in load_model(package).weights.items())
    assert (is_package(package), is_package(run_dir)) == (True, False)
    assert model_file(run_dir, "last") == run_dir / "checkpoints" / "last.ckpt"
    assert model_file(package) == package / "model.json"
    with pytest.raises(OptionError, match=r"--checkpoint last: .* one set of weights"):
        load_model(package, "last")
    with pytest.raises(OptionError, match="no such run directory"):
        load_model(run_dir / "nowhere")


def test_everything_the_checkpoint_describes_is_carried_over(run_dir):
    path = run_dir / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content[KEY]["task"]["later"] = {"threshold": [0.1, None, "x"]}
    torch.save(content, path)
    kept = json.loads((packed(run_dir) / "model.json").read_text())
    assert kept["description"] == content[KEY]
    assert kept["description"]["task"]["postprocessing"] == TASK["postprocessing"]


def test_the_record_says_where_the_weights_come_from(run_dir):
    package = packed(run_dir, licence="CC-BY-4.0")
    text = (package / "model.json").read_text()
    content = json.loads(text)
    data = (package / "model.safetensors").read_bytes()
    checkpoint = (run_dir / "checkpoints" / "best.ckpt").read_bytes()
    assert content["weights"] == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert content["source"]["sha256"] == hashlib.sha256(checkpoint).hexdigest()
    assert content["training"] == {"data_digest": "abc123", "data_set": "hips", "epochs": 3}
    assert content["licence"] == "CC-BY-4.0"
    assert "somebody" not in text


def test_the_card_says_what_the_model_is_for_and_how_good_it_was(run_dir):
    card = (packed(run_dir) / "README.md").read_text()
    assert "Labels anterior, posterior \\| \\<b\\> in 3D images with the channels T1w." in card
    assert "| anterior | 0.875 [0.500, –] | 3 |" in card
    assert "| licence | not stated |" in card
    assert "| spacing, mm | \\[1.0, 1.0, 1.5\\] |" in card


def test_scores_name_the_weights_that_made_them(run_dir):
    def note(digest):
        (run_dir / "predictions").mkdir(exist_ok=True)
        line = json.dumps({"case_id": "a", "checkpoint_sha256": digest})
        (run_dir / "predictions" / "predictions.jsonl").write_text(line + "\n")
        content = json.loads((packed(run_dir, overwrite=True) / "model.json").read_text())
        return content["scores"]["note"]

    data = (run_dir / "checkpoints" / "best.ckpt").read_bytes()
    assert note(hashlib.sha256(data).hexdigest()) == "by these weights"
    assert note("0" * 64) == "by other weights of this run"
    assert note(None) == "by weights of this run that were not recorded"


def test_a_run_without_record_or_scores_is_packed_too(run_dir):
    (run_dir / "fit.json").unlink()
    (run_dir / "summary.json").write_text("{torn")
    package = packed(run_dir)
    assert "None were found" in (package / "README.md").read_text()
    assert load_package(package).description == description()


@pytest.mark.parametrize("damage", ["flip", "cut", "absent"])
def test_damaged_weights_are_refused(run_dir, damage):
    package = packed(run_dir)
    path = package / "model.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-5] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    words = {"flip": "SHA-256 differs", "cut": "bytes, where", "absent": "No such file"}
    with pytest.raises(CheckpointError, match=words[damage]):
        load_package(package)


def test_weights_that_were_cut_before_they_were_recorded_are_refused(run_dir):
    package = packed(run_dir)
    path = package / "model.safetensors"
    for data in (path.read_bytes()[:-8], b"", struct.pack("<Q", 1 << 60) + b"{}", b"pickle" * 9):
        path.write_bytes(data)
        reseal(package)
        with pytest.raises(CheckpointError, match="not a file of safetensors"):
            load_package(package)


def test_weights_that_do_not_fit_the_description_are_refused(run_dir):
    package = packed(run_dir)
    path = package / "model.safetensors"
    whole = load_file(path)
    name = "encoder.0.0.0.weight"
    changes = {
        r"1 missing \(encoder": {k: v for k, v in whole.items() if k != name},
        r"1 of no use \(surplus": {**whole, "surplus": torch.zeros(1)},
        r"1 of another shape or type \(encoder.0.0.0.weight \(8, 1, 3, 3, 2\)": {
            **whole, name: whole[name][..., :2].contiguous()
        },
        "torch.float16": {**whole, name: whole[name].half()},
        "0 weights are too few": {},
    }  # fmt: skip
    for words, weights in changes.items():
        save_file(weights, path)
        reseal(package)
        with pytest.raises(CheckpointError, match=words):
            load_package(package)


HOSTILE = {
    "format": lambda c: c.update(format="medseg-package-9"),
    "no weights": lambda c: c.pop("weights"),
    "odd weights": lambda c: c.update(weights=[1, 2]),
    "no description": lambda c: c.pop("description"),
    "no architecture": lambda c: c["description"].pop("architecture"),
    "unknown key": lambda c: c["description"].update(unknown=1),
    "unknown norm": lambda c: c["description"].update(norm="grup"),
    "another norm": lambda c: c["description"].update(norm="none"),
    "a billion channels": lambda c: c["description"]["architecture"].update(channels=[8, 10**9]),
    "a million levels": lambda c: c["description"]["architecture"].update(channels=[8] * 10**6),
    "a huge kernel": lambda c: c["description"]["architecture"].update(
        kernels=[[9999, 9999, 9999]] * 2
    ),
    "text for numbers": lambda c: c["description"]["architecture"].update(channels="many"),
    "a huge depth": lambda c: c["description"]["architecture"].update(depth=10**9),
    "a huge window": lambda c: c["description"]["task"].update(patch_size=[8, 8, 10**12]),
    "no window": lambda c: c["description"]["task"].update(patch_size=[8]),
    "odd window": lambda c: c["description"]["task"].update(patch_size=[8, 8, -8]),
    "no preprocessing": lambda c: c["description"]["task"].pop("preprocessing"),
    "odd preprocessing": lambda c: c["description"]["task"].update(preprocessing={"run": "rm"}),
    "odd labels": lambda c: c["description"]["task"].update(labels=["background", "a", "b"]),
    "text labels": lambda c: c["description"]["task"].update(labels={"a": "0", "b": "1", "c": "2"}),
    "odd cases": lambda c: c["description"]["task"].update(train_cases=[{"a": 1}]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_description_that_makes_no_sense_is_refused(run_dir, name):
    package = packed(run_dir)
    rewrite(package, HOSTILE[name])
    with pytest.raises(CheckpointError, match="package"):
        load_package(package)


@pytest.mark.parametrize("text", ["", "[]", "null", "{" * 10**5, '{"format": ', "\xff"])
def test_a_description_that_is_no_json_is_refused(run_dir, text):
    package = packed(run_dir)
    (package / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"model\.json"):
        load_package(package)


def test_an_output_that_exists_is_only_replaced_if_asked_and_a_package(run_dir):
    package = packed(run_dir)
    before = load_package(package).weights
    with pytest.raises(OptionError, match=r"exists\. .* --overwrite"):
        packed(run_dir, checkpoint="last")
    assert all(torch.equal(v, before[k]) for k, v in load_package(package).weights.items())
    last = load_trained(run_dir / "checkpoints" / "last.ckpt").weights
    packed(run_dir, checkpoint="last", overwrite=True)
    assert all(torch.equal(v, last[k]) for k, v in load_package(package).weights.items())
    (package / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match="is no model package"):
        packed(run_dir, overwrite=True)
    assert (package / "notes.txt").read_text() == "mine"


def test_a_failure_on_the_way_leaves_nothing_and_keeps_the_older_package(run_dir, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "write_package", full)
        with pytest.raises(OptionError, match="No space left"):
            packed(run_dir)
    assert names(run_dir.parent) == ["hips"]
    package = packed(run_dir)
    kept = {path.name: path.read_bytes() for path in package.iterdir()}
    for step in ("write_package", "_write_card"):
        with monkeypatch.context() as patch:
            patch.setattr(exporting, step, full)
            with pytest.raises(OptionError, match="No space left"):
                packed(run_dir, overwrite=True, checkpoint="last")
    real = os.rename

    def stubborn(source, target):
        if str(source).endswith("new"):
            full()
        real(source, target)

    monkeypatch.setattr(exporting.os, "rename", stubborn)
    with pytest.raises(OptionError, match="No space left"):
        packed(run_dir, overwrite=True, checkpoint="last")
    assert {path.name: path.read_bytes() for path in package.iterdir()} == kept
    assert names(run_dir.parent) == ["hips", "package"]


def test_a_copied_package_needs_nothing_of_its_run(run_dir, tmp_path):
    package = packed(run_dir)
    copy = shutil.copytree(package, tmp_path / "elsewhere")
    expected = load_package(package).weights
    shutil.rmtree(run_dir.parent)
    assert all(torch.equal(v, expected[k]) for k, v in load_package(copy).weights.items())


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_other_formats_give_the_logits_of_the_package(run_dir, name):
    for needed in {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}[name]:
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    output = run_dir.parent / "p"
    flags = ["--run", run_dir, "--output", output, "--formats", f"safetensors,{name}"]
    assert main(["export", *map(str, flags)]) == 0
    row = json.loads((output / "model.json").read_text())["exports"][name]
    assert row["agreement"] >= 0.9999
    assert 0 <= row["largest_difference"] < 2e-5
    assert row["input"] == [1, 1, 8, 12, 8]
    assert row["sha256"] == hashlib.sha256((output / row["file"]).read_bytes()).hexdigest()
    image = np.random.default_rng(0).standard_normal(row["input"], dtype=np.float32)
    if name == "onnx":
        import onnxruntime

        found = onnxruntime.InferenceSession(output / row["file"]).run(None, {"image": image})[0]
    else:
        import openvino

        config = {"INFERENCE_PRECISION_HINT": "f32"}
        found = openvino.Core().compile_model(output / row["file"], "CPU", config)(image)[0]
    with torch.no_grad():
        expected = load_package(output).network()(torch.from_numpy(image)).numpy()
    assert np.abs(found - expected).max() < 2e-5 * np.ptp(expected)


def test_a_format_that_disagrees_leaves_no_package(run_dir, monkeypatch):
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed")
    writer, file, _ = exporting._WRITERS["onnx"]
    nonsense = (writer, file, lambda *_: lambda window: torch.randn((1, 3, 8, 12, 8)))
    monkeypatch.setitem(exporting._WRITERS, "onnx", nonsense)
    with pytest.raises(OptionError, match=r"--formats onnx finds the class .* in 0\.3"):
        packed(run_dir, formats=("onnx",))
    assert names(run_dir.parent) == ["hips"]
