"""Data sets written for MSD and nnU-Net, and read again."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from monai.apps.datasets import load_decathlon_properties
from monai.data import load_decathlon_datalist

from medseg.cli import main
from medseg.core.errors import ManifestError, OptionError, VolumeError
from medseg.core.geometry import Grid
from medseg.core.manifest import load_manifest
from medseg.data import volumes
from medseg.data.convert import write_manifest
from medseg.data.options import ManifestOptions
from medseg.io import read_volume, write_volume

# Oblique, and with numbers that float32, NIfTI's own type, holds exactly.
AFFINE = np.array([[-1.5, 0.25, 0, 10], [0.25, 2, 0.5, -3], [0, -0.5, 3, 7], [0, 0, 0, 1]])
GRID = Grid((5, 4, 3), AFFINE)
COARSE = Grid((3, 2, 2), AFFINE @ np.diag([2, 2, 2, 1]))


def image(path, seed, dtype=np.int16, grid=GRID, channels=()):
    values = np.random.default_rng(seed).normal(0, 500, (*grid.shape, *channels)).astype(dtype)
    write_volume(path, values, grid)


def label(path, *values, dtype=np.uint8):
    write_volume(path, np.resize(np.array(values, dtype=dtype), GRID.shape), GRID)


@pytest.fixture
def source(tmp_path):
    """Four training cases and a test case, two channels in files of two types, odd label values."""
    home = tmp_path / "ours"
    training = []
    for number, name in enumerate("dbca"):
        image(home / f"i/{name}.nii", number)
        image(home / f"j/{name}.nii.gz", number + 10, np.float32)
        label(home / f"l/{name}.nii.gz", 0, 3, 7, 250)
        training.append({"case_id": f"case.{name}", "image": [f"i/{name}.nii", f"j/{name}.nii.gz"], "label": f"l/{name}.nii.gz",
                         "fold": number // 2, "group": f"p{number}", "site": "Oslo"})  # fmt: skip
    image(home / "i/t.nii", 20)
    image(home / "j/t.nii.gz", 21, np.float32)
    content = {
        "name": "two_channels", "licence": "CC0", "description": "odd", "citation": "someone",
        "channel_names": {"0": "T1w", "1": "CT"},
        "labels": {"background": 0, "gland": 3, "spot": 7, "ignore": 250},
        "training": training, "test": [{"case_id": "last", "image": ["i/t.nii", "j/t.nii.gz"]}],
    }  # fmt: skip
    (home / "m.json").write_text(json.dumps(content))
    return home / "m.json"


def convert(source, output, to, **more):
    write_manifest(ManifestOptions(source, output, to, **more))
    return output


def back(folder):
    write_manifest(ManifestOptions(folder, folder / "again.json"))
    return load_manifest(folder / "again.json")


def by_id(manifest):
    return {case.case_id: case for case in (*manifest.training, *manifest.test)}


def channels(manifest, case):
    """All channels of a case, as arrays, and the affine of the first file."""
    files = [read_volume(manifest.file(name)) for name in case.images]
    arrays = [f.array for f in files]
    if len(files) == 1 and arrays[0].ndim == 4:
        arrays = list(np.moveaxis(arrays[0], -1, 0))
    return arrays, files[0].grid.affine


class TestRoundTrip:
    """Away and back: cases, channels, labels, voxels, geometry and folds."""

    @pytest.mark.parametrize("to", ["msd", "nnunet"])
    def test_voxels_and_geometry_stay_bit_for_bit(self, source, tmp_path, to):
        there = load_manifest(source)
        again = back(convert(source, tmp_path / to, to))
        assert again.channel_names == ("T1w", "CT")
        assert by_id(again).keys() == by_id(there).keys()
        for case_id, case in by_id(there).items():
            before, affine = channels(there, case)
            after, moved = channels(again, by_id(again)[case_id])
            np.testing.assert_array_equal(moved, affine)
            for one, other in zip(before, after, strict=True):
                np.testing.assert_array_equal(one, other)
        assert [c.case_id for c in again.test] == ["last"]

    def test_msd_keeps_labels_folds_groups_and_sites(self, source, tmp_path):
        there = load_manifest(source)
        again = back(convert(source, tmp_path / "msd", "msd"))
        assert (again.labels, again.ignore_value) == (there.labels, 250)
        for case in there.training:
            same = by_id(again)[case.case_id]
            assert replace(same, images=case.images, label=case.label) == case
            np.testing.assert_array_equal(
                read_volume(again.file(same.label)).array, read_volume(there.file(case.label)).array
            )
        assert (again.name, again.licence, again.description) == ("two_channels", "CC0", "odd")
        assert again.extra["citation"] == "someone"

    def test_nnunet_gets_consecutive_labels_and_keeps_folds(self, source, tmp_path, caplog):
        there = load_manifest(source)
        folder = tmp_path / "Dataset501_Two"
        with caplog.at_level("INFO", "medseg"):
            again = back(convert(source, folder, "nnunet"))
        assert "consecutive label values: 3 → 1, 7 → 2, 250 → 3" in caplog.text
        assert "copy " in caplog.text
        assert "no place for groups and sites" in caplog.text
        assert "wants the folder's name" not in caplog.text
        assert again.labels == {"background": 0, "gland": 1, "spot": 2}
        assert again.ignore_value == 3
        for case in there.training:
            same = by_id(again)[case.case_id]
            assert same.fold == case.fold
            before = read_volume(there.file(case.label)).array
            after = read_volume(again.file(same.label))
            np.testing.assert_array_equal(after.grid.affine, AFFINE)
            for old, new in {0: 0, 3: 1, 7: 2, 250: 3}.items():
                np.testing.assert_array_equal(after.array == new, before == old)

    def test_labels_of_test_cases_come_along(self, source, tmp_path):
        content = json.loads(source.read_text())
        content["test"][0] |= {"label": "l/a.nii.gz", "site": "Bern"}
        source.write_text(json.dumps(content))
        for to, site in (("msd", "Bern"), ("nnunet", "")):
            (case,) = back(convert(source, tmp_path / to, to)).test
            assert case.label == "labelsTs/last.nii.gz"
            assert case.site == site


class TestLayouts:
    """What the other tool finds."""

    def test_nnunet_finds_its_files(self, source, tmp_path):
        folder = convert(source, tmp_path / "Dataset501_Two", "nnunet")
        found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        expected = ["dataset.json", "splits_final.json"]
        expected += [f"imagesTr/case.{n}_000{c}.nii.gz" for n in "abcd" for c in (0, 1)]
        expected += [f"imagesTs/last_000{c}.nii.gz" for c in (0, 1)]
        expected += [f"labelsTr/case.{n}.nii.gz" for n in "abcd"]
        assert found == sorted(expected)
        content = json.loads((folder / "dataset.json").read_text())
        assert content["channel_names"] == {"0": "T1w", "1": "CT"}
        assert content["labels"] == {"background": 0, "gland": 1, "spot": 2, "ignore": 3}
        assert (content["numTraining"], content["file_ending"]) == (4, ".nii.gz")
        splits = json.loads((folder / "splits_final.json").read_text())
        assert [sorted(split["val"]) for split in splits] == [
            ["case.b", "case.d"],
            ["case.a", "case.c"],
        ]
        assert [sorted(split["train"]) for split in splits] == [
            ["case.a", "case.c"],
            ["case.b", "case.d"],
        ]
        stored = nib.load(folder / "imagesTr/case.a_0000.nii.gz")
        assert stored.get_data_dtype() == np.int16
        assert nib.load(folder / "labelsTr/case.a.nii.gz").get_data_dtype() == np.uint8

    def test_monai_reads_the_msd_list(self, source, tmp_path):
        folder = convert(source, tmp_path / "msd", "msd")
        training = load_decathlon_datalist(
            folder / "dataset.json", is_segmentation=True, data_list_key="training"
        )
        assert training[0]["image"] == str(folder / "imagesTr/case.d.nii.gz")
        assert training[0]["label"] == str(folder / "labelsTr/case.d.nii.gz")
        (test,) = load_decathlon_datalist(folder / "dataset.json", data_list_key="test")
        assert test["image"] == str(folder / "imagesTs/last.nii.gz")
        keys = ["name", "description", "reference", "licence", "tensorImageSize", "modality", "labels", "numTraining", "numTest"]  # fmt: skip
        properties = load_decathlon_properties(folder / "dataset.json", keys)
        assert properties["labels"] == {
            "0": "background",
            "3": "gland",
            "7": "spot",
            "250": "ignore",
        }
        assert (properties["modality"], properties["tensorImageSize"]) == (
            {"0": "T1w", "1": "CT"},
            "4D",
        )
        assert (properties["numTraining"], properties["numTest"]) == (4, 1)
        assert nib.load(training[0]["image"]).shape == (5, 4, 3, 2)

    def test_without_folds_there_are_no_splits(self, source, tmp_path):
        content = json.loads(source.read_text())
        for case in content["training"]:
            del case["fold"]
        source.write_text(json.dumps(content))
        folder = convert(source, tmp_path / "x", "nnunet")
        assert not (folder / "splits_final.json").exists()
        assert back(folder).folds == ()

    def test_one_file_of_all_channels_is_taken_apart(self, source, tmp_path):
        image(source.parent / "both.nii.gz", 5, np.int16, channels=(2,))
        label(source.parent / "l.nii.gz", 0, 3)
        content = json.loads(source.read_text())
        content |= {"training": [{"image": "both.nii.gz", "label": "l.nii.gz"}], "test": []}
        source.write_text(json.dumps(content))
        folder = convert(source, tmp_path / "x", "nnunet")
        both = read_volume(source.parent / "both.nii.gz").array
        for channel in (0, 1):
            written = read_volume(folder / f"imagesTr/both_000{channel}.nii.gz").array
            np.testing.assert_array_equal(written, both[..., channel])
            assert written.dtype == np.int16

    def test_a_channel_on_another_grid_is_resampled_onto_the_first(self, source, tmp_path, caplog):
        plane = np.indices(COARSE.shape)[0] * 2.0  # a ramp along the first axis: linear is exact
        write_volume(source.parent / "j/a.nii.gz", plane.astype(np.float32), COARSE)
        with caplog.at_level("INFO", "medseg"):
            folder = convert(source, tmp_path / "x", "nnunet")
        assert "resampled onto the first one's grid in 1 cases" in caplog.text
        written = read_volume(folder / "imagesTr/case.a_0001.nii.gz")
        np.testing.assert_array_equal(written.grid.affine, AFFINE)
        np.testing.assert_allclose(written.array, np.indices(GRID.shape)[0], atol=1e-5)

    def test_labels_stored_as_float_become_integers(self, source, tmp_path):
        label(source.parent / "l/a.nii.gz", 0, 3.0002, dtype=np.float32)
        folder = convert(source, tmp_path / "x", "msd")
        written = read_volume(folder / "labelsTr/case.a.nii.gz").array
        assert written.dtype == np.uint8
        assert set(np.unique(written)) == {0, 3}

    def test_a_label_on_a_noisy_grid_gets_the_grid_of_its_image(self, source, tmp_path):
        noisy = Grid(GRID.shape, AFFINE @ np.diag([1.0005, 1, 1, 1]))
        write_volume(source.parent / "l/a.nii.gz", np.full(GRID.shape, 3, np.uint8), noisy)
        folder = convert(source, tmp_path / "x", "nnunet")
        written = read_volume(folder / "labelsTr/case.a.nii.gz").grid
        np.testing.assert_array_equal(written.affine, AFFINE)

    def test_class_0_has_the_name_that_nnunet_asks_for(self, source, tmp_path):
        content = json.loads(source.read_text())
        content["labels"] = {"air": 0, "gland": 3, "spot": 7, "ignore": 250}
        source.write_text(json.dumps(content))
        folder = convert(source, tmp_path / "x", "nnunet")
        labels = json.loads((folder / "dataset.json").read_text())["labels"]
        assert labels == {"background": 0, "gland": 1, "spot": 2, "ignore": 3}
        content["labels"] = {"air": 0, "background": 3, "spot": 7, "ignore": 250}
        source.write_text(json.dumps(content))
        with pytest.raises(
            ManifestError, match="'background' has the value 3, which nnU-Net keeps for 0"
        ):
            convert(source, tmp_path / "y", "nnunet")

    def test_folds_can_be_drawn_on_the_way(self, source, tmp_path):
        folder = convert(source, tmp_path / "x", "msd", folds=4, group_pattern=r"\w$")
        cases = load_manifest(folder).training
        assert sorted(c.fold for c in cases) == [0, 1, 2, 3]
        assert {c.group for c in cases} == set("abcd")


class TestRefusals:
    """What is not written."""

    def test_every_case_that_cannot_be_converted_is_named_and_no_list_is_written(
        self, source, tmp_path
    ):
        label(source.parent / "l/a.nii.gz", 0, 9)
        label(source.parent / "l/b.nii.gz", 0, 0.5, dtype=np.float32)
        write_volume(source.parent / "l/c.nii.gz", np.zeros(COARSE.shape, np.uint8), COARSE)
        (source.parent / "i/d.nii").write_bytes(b"no volume")
        with pytest.raises(ManifestError) as caught:
            convert(source, tmp_path / "x", "nnunet")
        message = str(caught.value)
        assert "has 4 problems" in message
        assert "case 'case.a': " in message
        assert "unknown-label: values [9] are not in the label table" in message
        assert "not-a-label: values are not whole numbers" in message
        assert "label grid differs from image grid: shape (3, 2, 2) against (5, 4, 3)" in message
        assert "case 'case.d': " in message
        assert not (tmp_path / "x" / "dataset.json").exists()

    def test_a_refusing_disk_ends_it_at_once(self, source, tmp_path, monkeypatch):
        def full(path, array, grid, like):
            raise VolumeError(path, "write-failed", "No space left on device", "free space")

        monkeypatch.setattr(volumes, "write_volume", full)
        with pytest.raises(VolumeError, match=r"case\.d_0000\.nii\.gz: write-failed"):
            convert(source, tmp_path / "x", "nnunet")

    def test_missing_files_are_told_before_anything_is_written(self, source, tmp_path):
        (source.parent / "i/a.nii").unlink()
        with pytest.raises(ManifestError, match=r"i/a.nii: no such file"):
            convert(source, tmp_path / "x", "msd")
        assert not (tmp_path / "x").exists()

    def test_a_taken_folder_is_replaced_only_if_asked(self, source, tmp_path):
        folder = convert(source, tmp_path / "x", "nnunet")
        before = (folder / "dataset.json").read_bytes()
        with pytest.raises(OptionError, match=r"x exists and is not empty\. Add --overwrite"):
            convert(source, folder, "msd")
        assert (folder / "dataset.json").read_bytes() == before
        convert(source, folder, "msd", overwrite=True)
        assert sorted(p.name for p in folder.iterdir()) == [
            "dataset.json",
            "imagesTr",
            "imagesTs",
            "labelsTr",
        ]
        assert len(list((folder / "imagesTr").iterdir())) == 4

    def test_other_peoples_files_are_never_removed(self, source, tmp_path):
        folder = tmp_path / "x"
        (folder / "thesis").mkdir(parents=True)
        with pytest.raises(OptionError, match=r"holds more than a data set \(thesis\)"):
            convert(source, folder, "msd", overwrite=True)
        assert (folder / "thesis").is_dir()

    def test_a_data_set_is_not_written_over_its_source(self, source, tmp_path):
        folder = convert(source, tmp_path / "x", "nnunet")
        with pytest.raises(OptionError, match="holds files of the source"):
            convert(folder, folder, "msd", overwrite=True)
        (tmp_path / "link").symlink_to(folder)
        with pytest.raises(OptionError, match="holds files of the source"):
            convert(folder, tmp_path / "link", "msd", overwrite=True)
        assert (folder / "imagesTr/case.a_0000.nii.gz").exists()

    def test_a_file_is_no_folder(self, source, tmp_path):
        with pytest.raises(OptionError, match="must be a folder"):
            convert(source, tmp_path / "x.json", "msd")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("{", "is not a list of splits"),
            ('{"train": []}', "is not a list of splits"),
            ('[{"train": [], "val": ["case.a"]}]', "do not name each training case"),
        ],
    )
    def test_wrong_splits_are_refused_in_words(self, source, tmp_path, text, told):
        folder = convert(source, tmp_path / "x", "nnunet")
        (folder / "splits_final.json").write_text(text)
        with pytest.raises(ManifestError, match=told):
            back(folder)


def test_the_command_names_what_it_wrote_and_hints_at_the_name(source, tmp_path, capsys):
    command = [
        "manifest",
        "--source",
        str(source),
        "--to",
        "nnunet",
        "--output",
        str(tmp_path / "x"),
    ]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "writing nnunet: 5 of 5" in said
    assert "nnU-Net wants the folder's name to be like Dataset501_Name" in said
    assert f"{tmp_path / 'x'}: 4 training cases (folds: 0: 2, 1: 2), 1 test cases" in said
    assert main(command) == 2
