"""What --input means."""

import json
from pathlib import Path

import pytest

from medseg.core.errors import ManifestError, OptionError
from medseg.inference.inputs import list_jobs, refuse_file

OUT = Path("elsewhere")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def named(jobs):
    return {job.output: [path.name for path in job.images] for job in jobs}


def test_a_folder_keeps_its_structure_and_skips_what_is_no_volume(tmp_path):
    touch(tmp_path, "a.nii.gz", "site/b.nii", "site/notes.txt", ".hidden.nii", ".trash/c.nii")
    assert named(list_jobs(tmp_path, 1, None, None, OUT)) == {
        "a.nii.gz": ["a.nii.gz"],
        "site/b.nii.gz": ["b.nii"],
    }


def test_a_single_file_is_one_case(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.nii.gz")
    assert named(list_jobs(tmp_path / "a.nii.gz", 1, None, None, OUT)) == {"a.nii.gz": ["a.nii.gz"]}


def test_channel_files_of_a_case_go_together(tmp_path):
    names = ["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"]
    touch(tmp_path, *names)
    assert named(list_jobs(tmp_path, 2, None, None, OUT)) == {
        "a.nii.gz": names[:2],
        "b.nii.gz": names[2:],
    }


def test_two_cases_with_one_output_are_refused_with_both_names(tmp_path):
    touch(tmp_path, "a.nii", "a.nii.gz", "b.nii", "B.nii.gz")
    with pytest.raises(OptionError, match=r"2 problems") as caught:
        list_jobs(tmp_path, 1, None, None, OUT)
    assert "a.nii.gz" in str(caught.value)


def test_nothing_to_do_is_said(tmp_path):
    with pytest.raises(OptionError, match="no volume"):
        list_jobs(tmp_path, 1, None, None, OUT)
    with pytest.raises(OptionError, match="no such file or folder"):
        list_jobs(tmp_path / "absent", 1, None, None, OUT)
    with pytest.raises(OptionError, match="go with a manifest"):
        list_jobs(tmp_path, 1, None, 0, OUT)


def test_a_manifest_gives_the_cases_of_a_fold_with_their_references(tmp_path):
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "one": 1},
        "training": [
            {"image": f"{n}.nii", "label": f"{n}_l.nii", "fold": i} for i, n in enumerate("ab")
        ],
        "test": [{"image": "c.nii"}],
    }
    (tmp_path / "m.json").write_text(json.dumps(content))
    assert [job.case_id for job in list_jobs(tmp_path / "m.json", 1, None, None, OUT)] == [
        "a",
        "b",
        "c",
    ]
    with pytest.raises(ManifestError, match="no such file"):
        list_jobs(tmp_path / "m.json", 1, None, 1, OUT)
    touch(tmp_path, "b.nii", "b_l.nii")
    (job,) = list_jobs(tmp_path / "m.json", 1, None, 1, OUT)
    assert (job.case_id, job.reference.name) == ("b", "b_l.nii")


def test_channels_must_be_numbered_from_zero_without_a_gap(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_0002.nii.gz")
    with pytest.raises(OptionError, match=r"case 'a' needs the channels \['0000', '0001'\]"):
        list_jobs(tmp_path, 2, None, None, OUT)


def test_a_case_without_all_channels_leaves_the_others_to_be_labelled(tmp_path):
    touch(tmp_path, *(f"a_000{n}.nii.gz" for n in range(3)), "b_0000.nii.gz", "b_0002.nii.gz")
    whole, broken = list_jobs(tmp_path, 3, None, None, OUT)
    assert (whole.case_id, whole.problem) == ("a", "")
    assert "it has b_0000.nii.gz, b_0002.nii.gz" in broken.problem
    assert broken.code == "wrong-channels"


def test_one_channel_files_of_nnunet_get_the_names_of_their_references(tmp_path):
    touch(tmp_path, "a_0000.nii.gz")
    assert named(list_jobs(tmp_path, 1, None, None, OUT)) == {"a.nii.gz": ["a_0000.nii.gz"]}


def test_a_header_and_image_pair_is_one_case(tmp_path):
    touch(tmp_path, "a.hdr", "a.img")
    assert named(list_jobs(tmp_path, 1, None, None, OUT)) == {"a.nii.gz": ["a.hdr"]}


@pytest.mark.parametrize(
    ("written", "outputs"),
    [
        ("source", ["a.mha", "b.mha", "c.nrrd", "d.nrrd", "e.nii.gz"]),
        ("nifti", ["a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz", "e.nii.gz"]),
    ],
)
def test_label_maps_go_out_as_the_images_came_in(tmp_path, written, outputs):
    touch(tmp_path, "a.mha", "b.mhd", "b.raw", "c.nrrd", "d.nhdr", "e.nii")
    assert list(named(list_jobs(tmp_path, 1, None, None, OUT, written))) == outputs


def test_a_folder_with_dicom_files_is_one_case_named_after_it(tmp_path):
    for folder in ("p1/ct", "p2"):
        touch(tmp_path, f"{folder}/readme.txt", f"{folder}/2", f"{folder}/1")
        (tmp_path / folder / "1").write_bytes(bytes(128) + b"DICM")
    touch(tmp_path, "p2/label.nii.gz")
    jobs = list_jobs(tmp_path, 1, None, None, OUT)
    assert named(jobs) == {
        "p1/ct.nii.gz": ["ct"],
        "p2.nii.gz": ["p2"],
        "p2/label.nii.gz": ["label.nii.gz"],
    }
    (alone,) = list_jobs(tmp_path / "p1/ct", 1, None, None, OUT)
    assert (alone.case_id, alone.output) == ("ct", "ct.nii.gz")


def test_an_output_within_the_input_is_no_input(tmp_path):
    touch(tmp_path, "a.nii.gz", "out/a.nii.gz")
    assert list(named(list_jobs(tmp_path, 1, None, None, tmp_path / "out"))) == ["a.nii.gz"]


@pytest.mark.parametrize(
    ("source", "output", "written", "name"),
    [
        ("a.nii", "lab.nii.gz", "source", "a.nii.gz"),
        ("a_0000.nii.gz", "lab.nii", "source", "a.nii.gz"),
        ("a.mhd", "lab.MHA", "source", "a.mha"),
        ("a.mhd", "lab.nrrd", "nifti", "a.nii.gz"),
        ("", "lab.nii.gz", "source", "named after the case"),
        ("m.json", "lab.dcm", "dicom_seg", "named after the case"),
    ],
)
def test_an_output_named_like_a_file_is_refused_with_the_name_of_the_label_map(
    tmp_path, source, output, written, name
):
    touch(tmp_path, "a.nii", "a_0000.nii.gz", "a.mhd", "m.json")
    with pytest.raises(
        OptionError, match=rf"{output} is named like a file .* will be {name} in it"
    ):
        refuse_file(tmp_path / output, tmp_path / source, written)


def test_a_folder_may_be_called_as_it_likes(tmp_path):
    (tmp_path / "lab.nii.gz").mkdir()
    for output in ("lab.nii.gz", "labels", "labels.v2", "l" * 300):
        refuse_file(tmp_path / output, tmp_path, "source")


def test_no_input_is_ever_replaced(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.nii")
    for source in (tmp_path, tmp_path / "a.nii.gz"):
        with pytest.raises(OptionError, match=r"a.nii.gz is an input and would be replaced"):
            list_jobs(source, 1, None, None, tmp_path)


@pytest.mark.parametrize(
    ("names", "cases"),
    [
        (["amos_0001", "amos_0002"], ["amos_0001", "amos_0002"]),
        (["a_0000", "b_0000"], ["a", "b"]),
        (["a_0000", "b"], ["a_0000", "b"]),
    ],
)
def test_four_digits_are_a_channel_only_where_all_names_end_with_the_first(tmp_path, names, cases):
    for name in names:
        (tmp_path / f"{name}.nii.gz").write_bytes(b"")
    jobs = list_jobs(tmp_path, 1, None, None, tmp_path / "out")
    assert [job.case_id for job in jobs] == cases
