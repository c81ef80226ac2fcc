"""Manifests from other layouts, and the drawing of folds."""

import json
import subprocess
import sys

import numpy as np
import pytest

from medseg.cli import main
from medseg.core.errors import ManifestError, OptionError
from medseg.core.geometry import Grid
from medseg.core.manifest import load_manifest, parse_manifest
from medseg.data.convert import manifest_text, save_manifest, write_manifest
from medseg.data.folds import draw_folds
from medseg.data.options import ManifestOptions
from medseg.io import write_volume

GRID = Grid.from_spacing((4, 3, 2), (1, 1, 2))


def volume(path, *values):
    array = np.resize(np.array(values or (0, 1)), GRID.shape)
    write_volume(path, array.astype(np.uint8 if array.dtype.kind == "i" else np.float32), GRID)


def build(source, output, **more):
    write_manifest(ManifestOptions(source, output, **more))
    return load_manifest(output, more.get("root"))


def manifest_of(tmp_path, groups):
    cases = [
        {"image": f"i/c{n:03d}.nii", "label": f"l/c{n:03d}.nii", "group": group}
        for n, group in enumerate(groups)
    ]
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "training": cases}
    return parse_manifest(content, tmp_path / "m.json", tmp_path)


class TestFolds:
    """Drawing folds."""

    def sizes(self, manifest):
        return [sum(case.fold == fold for case in manifest.training) for fold in manifest.folds]

    @pytest.mark.parametrize(("cases", "folds"), [(10, 5), (11, 5), (4, 2), (5, 5)])
    def test_folds_are_of_equal_size(self, tmp_path, cases, folds):
        sizes = self.sizes(draw_folds(manifest_of(tmp_path, [""] * cases), folds, 0))
        assert len(sizes) == folds
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) == cases

    def test_a_group_shares_a_fold_and_folds_stay_balanced(self, tmp_path):
        groups = [f"p{n}" for n, count in enumerate([6, 5, 4, 3, 2, 2, 1, 1]) for _ in range(count)]
        drawn = draw_folds(manifest_of(tmp_path, groups), 4, 0)
        folds = {}
        for case in drawn.training:
            folds.setdefault(case.group, set()).add(case.fold)
        assert all(len(places) == 1 for places in folds.values())
        assert self.sizes(drawn) == [6, 6, 6, 6]

    def test_the_draw_depends_on_the_seed_and_not_on_the_order(self, tmp_path):
        groups = [f"p{n}" for n in range(12)]
        there = manifest_of(tmp_path, groups)
        back = parse_manifest(
            {
                **json.loads(manifest_text(there)),
                "training": [entry(c) for c in there.training[::-1]],
            },
            tmp_path / "m.json",
            tmp_path,
        )
        drawn = [
            {c.group: c.fold for c in draw_folds(manifest, 3, seed).training}
            for manifest, seed in ((there, 0), (back, 0), (there, 1))
        ]
        assert drawn[0] == drawn[1]
        assert drawn[0] != drawn[2]

    @pytest.mark.parametrize(("folds", "seed"), [(1, 0), (4, 0), (2, -1)])
    def test_an_impossible_draw_is_refused(self, tmp_path, folds, seed):
        with pytest.raises(OptionError, match="--folds must be from 2 to the number of groups, 3"):
            draw_folds(manifest_of(tmp_path, ["p", "p", "q", "r"]), folds, seed)


def entry(case):
    return {"image": case.images[0], "label": case.label, "group": case.group}


class TestFolders:
    """A folder of images and one of labels."""

    @pytest.fixture
    def source(self, tmp_path):
        folder = tmp_path / "set"
        for name in ("b", "a"):
            volume(folder / "images" / f"{name}.nii.gz", 5, 6)
        volume(folder / "labels" / "a.nii.gz", 0, 3)
        volume(folder / "labels" / "b.nii.gz", 0, 3, 7)
        (folder / "images" / "._a.nii.gz").write_bytes(b"left by a file manager")
        (folder / "images" / "notes.txt").touch()
        return folder

    def test_files_are_paired_by_name_and_label_values_are_read(self, source):
        manifest = build(source, source / "m.json")
        assert [(c.case_id, c.images, c.label) for c in manifest.training] == [
            ("a", ("images/a.nii.gz",), "labels/a.nii.gz"),
            ("b", ("images/b.nii.gz",), "labels/b.nii.gz"),
        ]
        assert manifest.labels == {"background": 0, "class_3": 3, "class_7": 7}
        assert manifest.channel_names == ("image",)
        assert manifest.name == "set"

    def test_names_can_be_given(self, source):
        manifest = build(source, source / "m.json", name="Mine", channels=("T1w",))
        assert manifest.name == "mine"
        assert manifest.channel_names == ("T1w",)

    def test_other_folders_can_be_named(self, source, tmp_path):
        (source / "images").rename(source / "scans")
        assert len(build(source, tmp_path / "m.json", images="scans").training) == 2
        with pytest.raises(OptionError, match="Name the folders with --images and --labels"):
            build(source, tmp_path / "n.json")
        with pytest.raises(ManifestError, match="masks: no such folder"):
            build(source, tmp_path / "n.json", images="scans", labels="masks")

    def test_what_has_no_partner_is_told(self, source, capsys):
        (source / "labels" / "a.nii.gz").rename(source / "labels" / "x.nii.gz")
        assert main(["manifest", "--source", str(source), "--output", str(source / "m.json")]) == 0
        said = capsys.readouterr().err
        assert "labels without an image are left out: x\n" in said
        assert "images without a label become test cases: a\n" in said
        manifest = load_manifest(source / "m.json")
        assert [c.case_id for c in manifest.training] == ["b"]
        assert [c.case_id for c in manifest.test] == ["a"]

    def test_two_files_of_one_case_are_refused(self, source):
        (source / "images" / "a.nii").touch()
        with pytest.raises(ManifestError, match="more than one file for a"):
            build(source, source / "m.json")

    def test_labels_that_are_images_are_refused_all_at_once(self, source):
        volume(source / "labels" / "a.nii.gz", 0.0, 0.5)
        (source / "labels" / "b.nii.gz").write_bytes(b"no volume")
        with pytest.raises(ManifestError) as caught:
            build(source, source / "m.json")
        message = str(caught.value)
        assert "has 2 problems" in message
        assert "a.nii.gz: not a label map: 2 values from 0.0 to 0.5" in message
        assert "b.nii.gz: not-a-volume" in message
        assert not (source / "m.json").exists()

    def test_labels_without_any_class_are_refused(self, source):
        for name in "ab":
            volume(source / "labels" / f"{name}.nii.gz", 0)
        with pytest.raises(ManifestError, match="no class besides the background"):
            build(source, source / "m.json")
        assert not (source / "m.json").exists()


class TestPlaces:
    """What paths are relative to."""

    @pytest.fixture
    def source(self, tmp_path):
        volume(tmp_path / "data" / "set" / "images" / "a.nii.gz")
        volume(tmp_path / "data" / "set" / "labels" / "a.nii.gz")
        return tmp_path / "data" / "set"

    def test_paths_follow_the_output(self, source):
        manifest = build(source, source.parent / "m.json")
        assert manifest.training[0].images == ("set/images/a.nii.gz",)
        manifest.require_files(manifest.training)

    def test_with_a_root_they_stay_relative_to_it(self, source, tmp_path):
        manifest = build(source, tmp_path / "else" / "m.json", root=source)
        assert manifest.training[0].images == ("images/a.nii.gz",)
        manifest.require_files(manifest.training)
        above = build(source, tmp_path / "else" / "n.json", root=source.parent)
        assert above.training[0].images == ("set/images/a.nii.gz",)

    def test_files_beside_the_output_are_refused_with_the_way_out(self, source, tmp_path):
        with pytest.raises(ManifestError, match=f"does not lie in .*add --root {source}"):
            build(source, tmp_path / "else" / "m.json")

    def test_a_manifest_is_moved_with_its_paths(self, source):
        build(source, source / "m.json")
        moved = build(source / "m.json", source.parent / "n.json")
        assert moved.training[0].label == "set/labels/a.nii.gz"
        moved.require_files(moved.training)

    def test_nothing_is_overwritten_unasked(self, source):
        build(source, source / "m.json")
        before = (source / "m.json").read_bytes()
        for more in ({}, {"folds": 1}):
            with pytest.raises(OptionError, match=r"exists\. Add --overwrite, or choose another"):
                build(source / "m.json", source / "m.json", **more)
        assert (source / "m.json").read_bytes() == before
        assert build(source / "m.json", source / "m.json", overwrite=True, name="new").name == "new"

    def test_a_source_that_is_absent_is_named(self, tmp_path):
        with pytest.raises(OptionError, match="none: no such file or folder"):
            build(tmp_path / "none", tmp_path / "m.json")


class TestTables:
    """CSV files."""

    @pytest.fixture
    def source(self, tmp_path):
        for number in (1, 2):
            for kind in ("pet", "ct"):
                volume(tmp_path / kind / f"s{number}.nii.gz", 5, 6)
            volume(tmp_path / "label" / f"s{number}.nii.gz", 0, number)
        return tmp_path / "cases.csv"

    def test_every_column_counts(self, source, tmp_path):
        source.write_text(
            "image,image_1,label,case_id,fold,group,site\n"
            "pet/s1.nii.gz,ct/s1.nii.gz,label/s1.nii.gz,first,1,p1,A\n"
            f"pet/s2.nii.gz, ct/s2.nii.gz,{tmp_path / 'label/s2.nii.gz'},,0,,\n"
            "pet/s3.nii.gz,ct/s3.nii.gz,,,,,\n",
            encoding="utf-8-sig",
        )
        manifest = build(source, tmp_path / "m.json", channels=("PET", "CT"))
        first, second = manifest.training
        assert (first.case_id, first.fold, first.group, first.site) == ("first", 1, "p1", "A")
        assert second.images == ("pet/s2.nii.gz", "ct/s2.nii.gz")
        assert (second.label, second.case_id, second.fold) == ("label/s2.nii.gz", "s2", 0)
        assert [c.case_id for c in manifest.test] == ["s3"]
        assert manifest.labels == {"background": 0, "class_1": 1, "class_2": 2}
        assert manifest.channel_names == ("PET", "CT")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("image,lable\na,b\n", "unknown column 'lable'. Did you mean 'label'"),
            ("image;label\na;b\n", "columns `image` and `label` are needed, separated by commas"),
            ("", "columns `image` and `label` are needed"),
            ("image,label\n/etc/a.nii,b.nii\n", "path '/etc/a.nii' leaves the root folder"),
            ("image,label,fold\na.nii,b.nii,x\n", "`fold` must be a whole number >= 0; got 'x'"),
            ("image,label\na.nii\n,b.nii\n", "`image` and `label` must be paths"),
            ("image,label\n", "no case"),
        ],
    )
    def test_a_wrong_table_is_refused_in_words(self, source, tmp_path, text, told):
        source.write_text(text)
        with pytest.raises(ManifestError) as caught:
            build(source, tmp_path / "m.json")
        assert told in str(caught.value)

    def test_what_is_no_text_is_refused_in_words(self, source, tmp_path):
        source.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ManifestError, match="cannot be read as CSV"):
            build(source, tmp_path / "m.json")


class TestDatasets:
    """MSD, nnU-Net, and our own."""

    def test_a_decathlon_task_becomes_ours(self, tmp_path):
        given = {
            "name": "Spleen",
            "relase": "1.0",
            "reference": "a",
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "spleen"},
            "training": [
                {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"}
                for n in range(6)
            ],
            "test": ["./imagesTs/7.nii.gz"],
        }
        (tmp_path / "dataset.json").write_text(json.dumps(given))
        manifest = build(tmp_path, tmp_path / "m.json", folds=3)
        assert manifest.folds == (0, 1, 2)
        assert manifest.labels == {"background": 0, "spleen": 1}
        assert manifest.test[0].images == ("imagesTs/7.nii.gz",)
        assert manifest.extra == {"reference": "a"}

    def test_an_nnunet_folder_becomes_ours(self, tmp_path):
        folder = tmp_path / "Dataset001_x"
        for name in ("imagesTr/p_0000.nii.gz", "imagesTr/p_0001.nii.gz", "labelsTr/p.nii.gz"):
            volume(folder / name)
        given = {"channel_names": {"0": "a", "1": "b"}, "labels": {"background": 0, "x": 1, "ignore": 2}, "numTraining": 1, "file_ending": ".nii.gz"}  # fmt: skip
        (folder / "dataset.json").write_text(json.dumps(given))
        manifest = build(folder, tmp_path / "m.json", format="nnunet")
        images = ("Dataset001_x/imagesTr/p_0000.nii.gz", "Dataset001_x/imagesTr/p_0001.nii.gz")
        assert [(c.case_id, c.images) for c in manifest.training] == [("p", images)]
        assert manifest.ignore_value == 2

    @pytest.mark.parametrize("name", ["hippocampus", "phantoms", "sarcoma_pet", "sarcoma_petct"])
    def test_a_filed_manifest_written_again_is_the_same_text(self, repository, name, tmp_path):
        filed = repository / f"data_manifests/{name}.json"
        save_manifest(load_manifest(filed), tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == filed.read_bytes()


def test_the_command_says_what_it_made(tmp_path, capsys):
    for name in "abcd":
        volume(tmp_path / "images" / f"{name}.nii.gz")
        volume(tmp_path / "labels" / f"{name}.nii.gz")
    command = ["manifest", "--source", str(tmp_path), "--output", str(tmp_path / "m.json")]
    assert main([*command, "--folds", "2"]) == 0
    said = capsys.readouterr().err
    assert (
        "4 training cases (folds: 0: 2, 1: 2), 0 test cases; classes: background, class_1" in said
    )
    assert main(command) == 2
    assert "exists. Add --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--channels", "T1w", "T2w", "PD"]) == 0


@pytest.mark.parametrize("module", ["data.phantoms", "data.convert", "check.dataset"])
def test_data_sets_are_made_and_checked_without_torch(module):
    code = f"import sys, medseg.{module}; sys.exit(bool({{'torch', 'monai'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
