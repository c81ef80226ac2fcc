"""What --input means."""

import json

import pytest

from medseg.core.errors import ManifestError, OptionError
from medseg.inference.inputs import list_jobs


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def named(jobs):
    return {job.output: [path.name for path in job.images] for job in jobs}


def test_a_folder_keeps_its_structure_and_skips_what_is_no_volume(tmp_path):
    touch(tmp_path, "a.nii.gz", "site/b.nii", "site/notes.txt", ".hidden.nii", ".trash/c.nii")
    assert named(list_jobs(tmp_path, 1, None, None)) == {
        "a.nii.gz": ["a.nii.gz"],
        "site/b.nii.gz": ["b.nii"],
    }


def test_a_single_file_is_one_case(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.nii.gz")
    assert named(list_jobs(tmp_path / "a.nii.gz", 1, None, None)) == {"a.nii.gz": ["a.nii.gz"]}


def test_channel_files_of_a_case_go_together(tmp_path):
    names = ["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"]
    touch(tmp_path, *names)
    assert named(list_jobs(tmp_path, 2, None, None)) == {
        "a.nii.gz": names[:2],
        "b.nii.gz": names[2:],
    }
    assert len(list_jobs(tmp_path, 1, None, None)) == 4


def test_two_cases_with_one_output_are_refused_with_both_names(tmp_path):
    touch(tmp_path, "a.nii", "a.nii.gz", "b.nii", "B.nii.gz")
    with pytest.raises(OptionError, match=r"2 problems") as caught:
        list_jobs(tmp_path, 1, None, None)
    assert "a.nii.gz" in str(caught.value)


def test_nothing_to_do_is_said(tmp_path):
    with pytest.raises(OptionError, match="no volume"):
        list_jobs(tmp_path, 1, None, None)
    with pytest.raises(OptionError, match="no such file or folder"):
        list_jobs(tmp_path / "absent", 1, None, None)
    with pytest.raises(OptionError, match="go with a manifest"):
        list_jobs(tmp_path, 1, None, 0)


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
    assert [job.case_id for job in list_jobs(tmp_path / "m.json", 1, None, None)] == ["a", "b", "c"]
    with pytest.raises(ManifestError, match="no such file"):
        list_jobs(tmp_path / "m.json", 1, None, 1)
    touch(tmp_path, "b.nii", "b_l.nii")
    (job,) = list_jobs(tmp_path / "m.json", 1, None, 1)
    assert (job.case_id, job.reference.name) == ("b", "b_l.nii")
