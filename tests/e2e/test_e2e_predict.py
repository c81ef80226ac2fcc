"""Folder inference through the command line."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from medseg.cli import main
from medseg.core.manifest import load_manifest
from medseg.inference.predictor import Predictor
from medseg.io import read_volume, write_volume


def journal(folder):
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return {record["case_id"]: record for record in map(json.loads, lines)}


def predict(run, source, output, *more):
    flags = ["--run", run, "--input", source, "--output", output, *more]
    return main(["predict", *map(str, flags)])


@pytest.fixture(scope="module")
def images(phantoms):
    return load_manifest(phantoms).root / "images"


def test_label_maps_lie_on_the_images_own_grid_with_the_tables_values(
    tiny_run, phantoms, images, tmp_path
):
    assert predict(tiny_run, images, tmp_path) == 0
    values = set(load_manifest(phantoms).labels.values())
    sources = sorted(images.glob("*.nii.gz"))
    assert len(sources) == 8
    for source in sources:
        image, label = nib.load(source), nib.load(tmp_path / source.name)
        assert label.shape == image.shape
        np.testing.assert_array_equal(label.affine, image.affine)
        assert set(np.unique(np.asarray(label.dataobj))) <= values
        assert label.get_data_dtype() == np.uint8


def test_label_values_are_mapped_back(tiny_run, images):
    predictor = Predictor.from_run(tiny_run, "last")
    source = next(images.glob("*.nii.gz"))
    plain = predictor.predict([source]).label
    predictor.label_values = predictor.label_values * 100
    np.testing.assert_array_equal(predictor.predict([source]).label, plain.astype(np.uint16) * 100)


def test_one_bad_case_does_not_stop_the_others(tiny_run, images, tmp_path, capsys):
    source = tmp_path / "in"
    shutil.copytree(images, source)
    good = sorted(source.glob("*.nii.gz"))
    (source / "0_text.nii.gz").write_text("not an image")
    (source / "[b]=cmd().nii.gz").write_bytes(good[0].read_bytes()[:-500])
    assert predict(tiny_run, source, tmp_path / "out") == 3
    told = capsys.readouterr().err
    records = journal(tmp_path / "out")
    assert [r["status"] for r in records.values()].count("ok") == len(good)
    for name in ("0_text", "[b]=cmd()"):
        assert records[name]["status"] == "failed"
        assert name in told
        assert not (tmp_path / "out" / f"{name}.nii.gz").exists()
    assert "truncated" in records["[b]=cmd()"]["message"]


def test_the_journal_says_where_a_case_comes_from(tiny_run, phantoms, tmp_path):
    assert predict(tiny_run, phantoms, tmp_path) == 0
    records = journal(tmp_path)
    roles = [record["role"] for record in records.values()]
    assert (roles.count("validation"), roles.count("training")) == (2, 6)
    record = next(iter(records.values()))
    assert record["reference"].endswith(".nii.gz")
    assert record["checkpoint"] == "best"
    assert record["seconds"] >= 0


def test_what_is_done_is_skipped_until_something_changes(tiny_run, images, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(images, source)
    first = sorted(source.glob("*.nii.gz"))
    lines = output / "predictions.jsonl"

    def run(*more):
        before = len(lines.read_text().splitlines()) if lines.exists() else 0
        assert predict(tiny_run, source, output, *more) == 0
        return len(lines.read_text().splitlines()) - before

    assert run() == 8
    assert run() == 0
    (output / first[0].name).write_bytes(b"damaged")
    (output / first[1].name).unlink()
    os.utime(first[2], ns=(1, 1))
    with lines.open("a") as file:
        file.write('{"case_id": "torn')
    assert run() == 3
    assert run("--checkpoint", "last", "--overlap", "0.25") == 8
    assert run("--checkpoint", "last", "--overlap", "0.25", "--overwrite") == 8


def test_single_slices_and_large_volumes_are_labelled(tiny_run, images, tmp_path):
    volume = read_volume(next(images.glob("*.nii.gz")))
    grid = type(volume.grid)
    flat = volume.array[:, :, :1].astype(np.float32)
    write_volume(tmp_path / "in" / "flat.nii.gz", flat, grid(flat.shape, volume.grid.affine))
    tall = np.concatenate([volume.array] * 3, axis=2).astype(np.float32)
    write_volume(tmp_path / "in" / "tall.nii.gz", tall, grid(tall.shape, volume.grid.affine))
    assert predict(tiny_run, tmp_path / "in", tmp_path / "out") == 0
    assert read_volume(tmp_path / "out" / "flat.nii.gz").array.shape == flat.shape
    assert read_volume(tmp_path / "out" / "tall.nii.gz").array.shape == tall.shape


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--checkpoint", "bset"], "has no checkpoint 'bset'"),
        (["--overlap", "1.5"], "overlap must be in [0, 1)"),
        (["--device", "tpu9"], "--device"),
        (["--input", "/nowhere"], "no such file or folder"),
        (["--run", "/nowhere"], "no such run directory"),
        (["--fold", "0"], "go with a manifest"),
        (["--batchsize", "3"], "no such flag: --batchsize"),
    ],
)
def test_a_wrong_request_is_refused_before_any_work(
    tiny_run, images, tmp_path, capsys, flags, told
):
    output = tmp_path / "out"
    assert predict(tiny_run, images, output, *flags) == 2
    assert told in capsys.readouterr().err
    assert not output.exists() or list(output.iterdir()) == []


def test_an_output_that_cannot_be_written_is_refused(tiny_run, images, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert predict(tiny_run, images, tmp_path / "file" / "out") == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_windows_is_refused_in_words(tiny_run, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    assert predict(tiny_run, images, tmp_path) == 2
    assert "Windows" in capsys.readouterr().err
