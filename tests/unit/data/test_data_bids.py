"""Manifests from BIDS data sets."""

import json
import shutil

import numpy as np
import pytest

from medseg.cli import main
from medseg.core.errors import ManifestError
from medseg.core.geometry import Grid
from medseg.core.manifest import load_manifest
from medseg.data.convert import write_manifest
from medseg.data.options import ManifestOptions
from medseg.io import write_volume

GRID = Grid.from_spacing((4, 3, 2), (1, 1, 2))


def volumes(root, *names, values=(0, 1)):
    for name in names:
        write_volume(root / name, np.resize(np.array(values, dtype=np.uint8), GRID.shape), GRID)


def labels(root, *names, pipeline="manual", values=(0, 1)):
    volumes(root / "derivatives" / pipeline, *names, values=values)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    about = {"Name": "Some brains", "BIDSVersion": "1.10.0", "License": "CC0"}
    (folder / "dataset_description.json").write_text(json.dumps(about))
    return folder


def build(root, **more):
    write_manifest(ManifestOptions(root, root / "m.json", overwrite=True, **more))
    return load_manifest(root / "m.json")


def ids(cases):
    return [case.case_id for case in cases]


def refused(root, **more):
    with pytest.raises(ManifestError) as caught:
        build(root, **more)
    return str(caught.value)


class TestLayout:
    """Sessions, channels, subjects and sites."""

    def test_sessions_become_cases_and_subjects_groups(self, root):
        for sub, ses in (("01", "1"), ("01", "2"), ("02", "1")):
            stem = f"sub-{sub}/ses-{ses}/anat/sub-{sub}_ses-{ses}"
            volumes(root, f"{stem}_T1w.nii.gz", f"{stem}_FLAIR.nii.gz")
            labels(root, f"{stem}_dseg.nii.gz", values=(0, 2))
        (root / "participants.tsv").write_text(
            "participant_id\tage\tsite\nsub-01\t3\tOslo\nsub-02\t4\tn/a\n"
        )
        manifest = build(root)
        assert ids(manifest.training) == ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"]
        assert [c.group for c in manifest.training] == ["sub-01", "sub-01", "sub-02"]
        assert [c.site for c in manifest.training] == ["Oslo", "Oslo", ""]
        assert manifest.channel_names == ("FLAIR", "T1w")
        anat = "sub-02/ses-1/anat/sub-02_ses-1"
        assert manifest.training[2].images == (f"{anat}_FLAIR.nii.gz", f"{anat}_T1w.nii.gz")
        assert manifest.training[2].label == f"derivatives/manual/{anat}_dseg.nii.gz"
        assert manifest.labels == {"background": 0, "class_2": 2}
        assert (manifest.name, manifest.licence) == ("some_brains", "CC0")
        assert {c.fold for c in build(root, folds=2).training[:2]} in ({0}, {1})

    def test_the_order_of_channels_is_as_given(self, root):
        volumes(
            root,
            "sub-1/anat/sub-1_T1w.nii",
            "sub-1/anat/sub-1_FLAIR.nii",
            "sub-1/anat/sub-1_T2w.nii",
        )
        labels(root, "sub-1/anat/sub-1_dseg.nii.gz")
        manifest = build(root, channels=("T1w", "FLAIR"))
        assert manifest.channel_names == ("T1w", "FLAIR")
        assert manifest.training[0].images == (
            "sub-1/anat/sub-1_T1w.nii",
            "sub-1/anat/sub-1_FLAIR.nii",
        )

    def test_other_modalities_count_and_time_series_only_if_asked_for(self, root):
        volumes(
            root,
            "sub-1/pet/sub-1_pet.nii.gz",
            "sub-1/ct/sub-1_ct.nii.gz",
            "sub-1/func/sub-1_task-x_bold.nii.gz",
        )
        labels(root, "sub-1/pet/sub-1_dseg.nii.gz")
        assert build(root).channel_names == ("ct", "pet")
        assert build(root, channels=("task-x_bold",)).training[0].images == (
            "sub-1/func/sub-1_task-x_bold.nii.gz",
        )

    def test_what_is_incomplete_or_without_a_label_is_told(self, root, capsys):
        for sub in "123":
            volumes(root, f"sub-{sub}/anat/sub-{sub}_T1w.nii.gz")
        volumes(
            root,
            "sub-1/anat/sub-1_FLAIR.nii.gz",
            "sub-2/anat/sub-2_FLAIR.nii.gz",
            "sub-1/anat/strange.nii.gz",
            "sub-1/anat/sub-1_mind.nii.gz.nii",
        )
        labels(root, "sub-1/anat/sub-1_dseg.nii.gz", "sub-3/anat/sub-3_dseg.nii.gz")
        assert main(["manifest", "--source", str(root), "--output", str(root / "m.json")]) == 0
        said = capsys.readouterr().err
        assert (
            "left out, for channels lacking or unclear: sub-3 (FLAIR) (channels are FLAIR T1w"
            in said
        )
        assert "sessions without a label become test cases: sub-2\n" in said
        manifest = load_manifest(root / "m.json")
        assert (ids(manifest.training), ids(manifest.test)) == (["sub-1"], ["sub-2"])
        assert manifest.test[0].group == "sub-2"
        assert ids(build(root, channels=("T1w",)).training) == ["sub-1", "sub-3"]

    def test_nothing_complete_is_an_error_that_says_what_was_looked_for(self, root):
        assert "no BIDS image" in refused(root)
        volumes(root, "sub-1/anat/sub-1_T1w.nii.gz")
        assert (
            "no session has a label (derivatives/NAME/sub-01/anat/sub-01_dseg.nii.gz)"
            in refused(root)
        )

    def test_the_root_may_be_above(self, root):
        volumes(root, "sub-1/anat/sub-1_T1w.nii.gz")
        labels(root, "sub-1/anat/sub-1_dseg.nii.gz")
        write_manifest(ManifestOptions(root, root.parent / "m.json"))
        assert load_manifest(root.parent / "m.json").training[0].images == (
            "set/sub-1/anat/sub-1_T1w.nii.gz",
        )


class TestMatching:
    """Which image belongs to which label."""

    def test_runs_are_cases_of_their_own(self, root):
        for run in "12":
            volumes(root, f"sub-1/anat/sub-1_run-{run}_T1w.nii.gz")
            labels(root, f"sub-1/anat/sub-1_run-{run}_dseg.nii.gz")
        manifest = build(root)
        assert ids(manifest.training) == ["sub-1_run-1", "sub-1_run-2"]
        assert manifest.training[1].images == ("sub-1/anat/sub-1_run-2_T1w.nii.gz",)
        assert {c.group for c in manifest.training} == {"sub-1"}

    def test_a_label_of_one_run_takes_that_run(self, root):
        volumes(root, *(f"sub-1/anat/sub-1_run-{run}_T1w.nii.gz" for run in "12"))
        labels(root, "sub-1/anat/sub-1_run-2_desc-expert_dseg.nii.gz")
        manifest = build(root)
        assert ids(manifest.training) == ["sub-1"]
        assert manifest.training[0].images == ("sub-1/anat/sub-1_run-2_T1w.nii.gz",)

    def test_channels_may_differ_in_their_acquisition_from_the_labelled_one(self, root):
        volumes(
            root,
            "sub-1/anat/sub-1_acq-fine_T1w.nii.gz",
            "sub-1/anat/sub-1_acq-thick_FLAIR.nii.gz",
            "sub-1/anat/sub-1_acq-quick_T1w.nii.gz",
        )
        labels(root, "sub-1/anat/sub-1_acq-fine_dseg.nii.gz")
        assert build(root).training[0].images == (
            "sub-1/anat/sub-1_acq-thick_FLAIR.nii.gz",
            "sub-1/anat/sub-1_acq-fine_T1w.nii.gz",
        )

    def test_a_label_of_no_image_there_is_left_out(self, root):
        volumes(root, "sub-1/anat/sub-1_acq-fine_T1w.nii.gz")
        labels(root, "sub-1/anat/sub-1_acq-thick_dseg.nii.gz")
        assert "no session has a label" in refused(root)

    def test_the_same_contrast_with_and_without_agent_are_two_channels(self, root):
        volumes(root, "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_ce-gd_T1w.nii.gz")
        labels(root, "sub-1/anat/sub-1_dseg.nii.gz")
        manifest = build(root, channels=("ce-gd_T1w", "T1w"))
        assert manifest.training[0].images == (
            "sub-1/anat/sub-1_ce-gd_T1w.nii.gz",
            "sub-1/anat/sub-1_T1w.nii.gz",
        )

    def test_equally_fitting_images_are_refused_for_all_cases_at_once(self, root):
        for sub in "12":
            volumes(root, *(f"sub-{sub}/anat/sub-{sub}_acq-{acq}_T1w.nii.gz" for acq in "ab"))
            labels(root, f"sub-{sub}/anat/sub-{sub}_dseg.nii.gz")
        message = refused(root)
        for sub in "12":
            assert (
                f"sub-{sub}: channel T1w may be any of sub-{sub}_acq-a_T1w.nii.gz, sub-{sub}_acq-b"
                in message
            )
        assert "choose others with --channels" in message
        assert len(build(root, channels=("acq-b_T1w",)).training) == 2

    def test_two_labels_of_one_image_are_refused_and_can_be_chosen(self, root):
        volumes(root, "sub-1/anat/sub-1_T1w.nii.gz")
        labels(root, "sub-1/anat/sub-1_desc-a_dseg.nii.gz", "sub-1/anat/sub-1_desc-b_dseg.nii.gz")
        labels(root, "sub-1/anat/sub-1_dseg.nii.gz", pipeline="net")
        message = refused(root)
        assert (
            "sub-1: more than one label: derivatives/manual/sub-1/anat/sub-1_desc-a_dseg.nii.gz, "
            in message
        )
        assert "--labels and a pattern" in message
        for pattern, name in (
            ("*/net/*", "net/sub-1/anat/sub-1_dseg"),
            ("*desc-b*", "manual/sub-1/anat/sub-1_desc-b_dseg"),
        ):
            assert build(root, labels=pattern).training[0].label == f"derivatives/{name}.nii.gz"

    def test_labels_in_the_space_of_a_template_are_left_out(self, root, capsys):
        volumes(root, "sub-1/anat/sub-1_T1w.nii.gz")
        labels(
            root,
            "sub-1/anat/sub-1_space-MNI152_dseg.nii.gz",
            "sub-1/anat/sub-1_space-orig_dseg.nii.gz",
        )
        assert main(["manifest", "--source", str(root), "--output", str(root / "m.json")]) == 0
        assert (
            "not in the space of the raw images, left out: sub-1_space-MNI152"
            in capsys.readouterr().err
        )
        assert (
            load_manifest(root / "m.json")
            .training[0]
            .label.endswith("sub-1_space-orig_dseg.nii.gz")
        )


class TestClasses:
    """Names of classes."""

    @pytest.fixture
    def two(self, root):
        for sub, value in (("1", 4), ("2", 7)):
            volumes(root, f"sub-{sub}/anat/sub-{sub}_T1w.nii.gz")
            labels(root, f"sub-{sub}/anat/sub-{sub}_dseg.nii.gz", values=(0, value))
        return root

    def table(self, path, *rows):
        lines = ["index\tname\tcolor", *(f"{index}\t{name}\t#fff" for index, name in rows)]
        path.write_text("\n".join(lines) + "\n")

    def test_a_table_of_the_pipeline_names_what_occurs(self, two):
        self.table(
            two / "derivatives/manual/dseg.tsv", (0, "Unknown"), (4, "Grey  matter"), (9, "never")
        )
        assert build(two).labels == {"background": 0, "Grey matter": 4, "class_7": 7}

    def test_the_nearest_table_counts(self, two):
        self.table(two / "derivatives/manual/dseg.tsv", (4, "a"))
        self.table(two / "derivatives/manual/sub-2/anat/sub-2_dseg.tsv", (7, "b"))
        self.table(two / "derivatives/manual/desc-other_dseg.tsv", (7, "not this"))
        assert build(two).labels == {"background": 0, "a": 4, "b": 7}

    def test_tables_that_contradict_each_other_are_refused(self, two):
        self.table(two / "derivatives/manual/sub-1/anat/sub-1_dseg.tsv", (4, "a"))
        self.table(two / "derivatives/manual/sub-2/anat/sub-2_dseg.tsv", (4, "b"))
        assert "value 4 is 'a', but 'b' in " in refused(two)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("index,name\n4,a\n", "column index, name is missing; columns are separated by tabs"),
            ("index\tname\nx\ta\n", "`index` must be a whole number; got 'x'"),
            (
                "index\tname\n4\ta\n7\ta\n",
                "class names must differ; got 'a' (value 4), 'a' (value 7)",
            ),
            ("index\tname\n4\tbackground\n", "class names must differ; got 'background' (value 4)"),
        ],
    )
    def test_a_wrong_table_is_refused_in_words(self, two, text, told):
        (two / "derivatives/manual/dseg.tsv").write_text(text)
        assert told in refused(two)

    def test_masks_of_one_label_count_where_there_is_no_dseg(self, two):
        for sub in "12":
            labels(two, f"sub-{sub}/anat/sub-{sub}_label-lesion_mask.nii.gz", pipeline="masks")
            labels(two, f"sub-{sub}/anat/sub-{sub}_desc-brain_mask.nii.gz", pipeline="masks")
        assert build(two).labels == {"background": 0, "class_4": 4, "class_7": 7}
        shutil.rmtree(two / "derivatives/manual")
        assert build(two).labels == {"background": 0, "lesion": 1}
        labels(two, "sub-1/anat/sub-1_label-eye_mask.nii.gz", pipeline="masks")
        assert "masks of several labels (eye, lesion) and no dseg" in refused(two)
        assert build(two, labels="*_label-lesion_*").labels == {"background": 0, "lesion": 1}


def test_a_broken_description_or_participants_table_is_refused(root):
    volumes(root, "sub-1/anat/sub-1_T1w.nii.gz")
    labels(root, "sub-1/anat/sub-1_dseg.nii.gz")
    (root / "participants.tsv").write_bytes(b"\xff\xfe")
    assert "participants.tsv: cannot be read as a table" in refused(root)
    (root / "participants.tsv").unlink()
    (root / "dataset_description.json").write_text("{")
    assert "cannot be read as JSON" in refused(root)
