"""The data set doctor: each finding by name, and the exit status."""

import json

import nibabel as nib
import numpy as np
import pytest

from medseg.check.cases import CHECKS, CaseJob, check_case
from medseg.check.dataset import check
from medseg.check.findings import Finding, as_text
from medseg.check.options import CheckOptions
from medseg.cli import main
from medseg.core.errors import ManifestError, OptionError
from medseg.core.geometry import Grid
from medseg.core.manifest import load_manifest
from medseg.io import write_volume

GRID = Grid.from_spacing((6, 5, 4), (1, 1, 2))
LABELS = {"background": 0, "tumour": 7, "ignore": 255}


def image(folder, name, grid=GRID, array=None):
    values = np.arange(120).reshape(GRID.shape) if array is None else array
    write_volume(folder / f"images/{name}.nii.gz", np.asarray(values, dtype=np.float32), grid)


def label(folder, name, grid=GRID, array=None, dtype=np.uint8):
    values = np.resize([0, 7, 255], grid.shape) if array is None else array
    write_volume(folder / f"labels/{name}.nii.gz", np.asarray(values, dtype=dtype), grid)


@pytest.fixture
def case(tmp_path):
    """Return a function that checks the one case `a`, after its files were made."""
    image(tmp_path, "a")
    label(tmp_path, "a")

    def run(channels=("T1w",), images=("a",)):
        job = CaseJob(
            case_id="a",
            images=tuple(tmp_path / f"images/{name}.nii.gz" for name in images),
            label=tmp_path / "labels/a.nii.gz",
            channel_names=channels,
            label_values=(0, 7),
            ignore_value=255,
        )
        return list(check_case(job).findings)

    return run


def only(findings, severity, code):
    (finding,) = findings
    assert (finding.severity, finding.code, finding.case_id) == (severity, code, "a")
    return finding.message


class TestCase:
    """What is found in one case."""

    def test_a_good_case_has_no_finding(self, case):
        assert case() == []

    def test_a_truncated_image_is_refused_and_the_label_still_checked(self, case, tmp_path):
        path = tmp_path / "images/a.nii.gz"
        path.write_bytes(path.read_bytes()[:-20])
        label(tmp_path, "a", array=np.full(GRID.shape, 3))
        codes = [(found.severity, found.code) for found in case()]
        assert codes == [
            ("error", "truncated"),
            ("error", "unknown-label"),
            ("warning", "empty-label"),
        ]

    @pytest.mark.parametrize("channels", [2, 3])
    def test_an_image_has_as_many_channels_as_the_manifest_names(self, case, tmp_path, channels):
        four_d = np.arange(240).reshape(*GRID.shape, 2)
        image(tmp_path, "a", array=four_d)
        findings = case(channels=("T1w", "T2w", "PD")[:channels])
        if channels == 2:
            assert findings == []
        else:
            told = only(findings, "error", "wrong-channels")
            assert "where 3 channels were expected (list one file for each channel" in told

    def test_a_label_on_another_grid_is_an_error(self, case, tmp_path):
        label(tmp_path, "a", grid=Grid.from_spacing(GRID.shape, (1, 1, 2.2)))
        told = only(case(), "error", "label-grid-differs")
        assert "spacing (1.0, 1.0, 2.2) mm against (1.0, 1.0, 2.0) mm" in told

    def test_float_noise_of_a_grid_is_none(self, case, tmp_path):
        label(tmp_path, "a", grid=Grid.from_spacing(GRID.shape, (1, 1, 2.00001)))
        assert case() == []

    def test_unknown_label_values_are_listed(self, case, tmp_path):
        label(tmp_path, "a", array=np.resize([0, 7, 1, 42, 255], GRID.shape))
        told = only(case(), "error", "unknown-label")
        assert "values [1, 42] are not in the label table" in told

    def test_broken_label_values_are_an_error(self, case, tmp_path):
        label(tmp_path, "a", array=np.resize([0, 6.99], GRID.shape), dtype=np.float32)
        assert "not whole numbers" in only(case(), "error", "not-a-label")
        label(tmp_path, "a", array=np.resize([0, 6.9999], GRID.shape), dtype=np.float32)
        assert "up to 0.0001" in only(case(), "warning", "label-rounding")

    def test_labels_that_are_not_finite_are_an_error(self, case, tmp_path):
        label(tmp_path, "a", array=np.resize([0, np.nan, 7], GRID.shape), dtype=np.float32)
        assert "40 values are NaN or infinite" in only(case(), "error", "non-finite")

    def test_an_empty_label_is_a_warning(self, case, tmp_path):
        label(tmp_path, "a", array=np.resize([0, 255], GRID.shape))
        assert "no voxel of any class" in only(case(), "warning", "empty-label")

    def test_an_image_that_is_not_finite_is_a_warning(self, case, tmp_path):
        values = np.arange(120.0).reshape(GRID.shape)
        values[0, 0, :2] = np.nan
        image(tmp_path, "a", array=values)
        assert "2 NaN or infinite values are set to 0" in only(case(), "warning", "non-finite")

    def test_a_constant_image_is_an_error(self, case, tmp_path):
        image(tmp_path, "a", array=np.full(GRID.shape, 3))
        assert "every voxel of channel 0 is 3.0" in only(case(), "error", "constant-image")

    def test_a_constant_channel_beside_another_is_a_warning(self, case, tmp_path):
        image(tmp_path, "b", array=np.zeros(GRID.shape))
        told = only(case(("T1w", "T2w"), ("a", "b")), "warning", "constant-image")
        assert "b.nii.gz: every voxel of channel 0 is 0.0" in told

    def test_channels_on_another_grid_are_worth_knowing(self, case, tmp_path):
        values = np.arange(120).reshape(GRID.shape) ** 2
        image(tmp_path, "b", grid=Grid.from_spacing(GRID.shape, (2, 2, 2)), array=values)
        told = only(case(("PET", "CT"), ("a", "b")), "info", "channel-grids-differ")
        assert "will be resampled onto the first channel's grid: spacing (2.0, 2.0, 2.0) mm" in told

    def test_a_header_that_contradicts_itself_is_a_warning(self, case, tmp_path):
        path = tmp_path / "images/a.nii.gz"
        stored = nib.load(path)
        affine = stored.affine.copy()
        affine[0, 3] += 50
        stored.header.set_sform(affine, code=1)
        nib.save(nib.Nifti1Image(np.asarray(stored.dataobj), None, stored.header), path)
        label(tmp_path, "a", grid=Grid(GRID.shape, affine))
        assert "the sform is used" in only(case(), "warning", "form-conflict")

    def test_a_check_is_a_row_of_the_table(self):
        assert len({check.__name__ for check in CHECKS}) == len(CHECKS) >= 5


@pytest.fixture
def data_set(tmp_path):
    """Return the manifest of six good cases in three folds."""
    training = []
    random = np.random.default_rng(0)
    for number, name in enumerate("abcdef"):
        image(tmp_path, name, array=random.normal(size=GRID.shape))
        label(tmp_path, name, array=random.choice([0, 7, 255], GRID.shape))
        training.append(
            {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", "fold": number % 3}
        )
    content = {
        "channel_names": {"0": "T1w"},
        "labels": LABELS,
        "training": training,
        "source": "Ask.",
    }
    (tmp_path / "m.json").write_text(json.dumps(content))
    return tmp_path / "m.json"


def remove(manifest, *names, kinds=("images", "labels")):
    for name in names:
        for kind in kinds:
            (manifest.parent / kind / f"{name}.nii.gz").unlink()


def report(manifest, tmp_path, **options):
    """Return the exit status and the findings as programs read them."""
    output = tmp_path / "out" / "findings.json"
    options = {"workers": 1, **options}
    status = check(CheckOptions(manifest, json=True, output=output, **options))
    return status, json.loads(output.read_text(encoding="utf-8"))


class TestDataSet:
    """What is found in a whole data set, and how it is told."""

    def test_a_good_set_ends_with_status_0(self, data_set, tmp_path):
        status, found = report(data_set, tmp_path)
        assert status == 0
        assert found == {
            "manifest": "m",
            "data_digest": load_manifest(data_set).digest,
            "cases_checked": 6,
            "counts": {"error": 0, "warning": 0, "info": 0},
            "findings": [],
        }

    def test_an_absent_fold_is_one_warning(self, data_set, tmp_path):
        remove(data_set, "a", "d")
        status, found = report(data_set, tmp_path)
        assert status == 0
        assert found["cases_checked"] == 4
        assert found["findings"] == [
            {
                "severity": "warning",
                "code": "absent-cases",
                "case_id": "",
                "message": "2 cases have no file here (fold 0: 2 of 2). Ask.",
                "files": [],
            }
        ]

    def test_absent_files_of_the_chosen_fold_are_errors(self, data_set, tmp_path):
        remove(data_set, "a")
        status, found = report(data_set, tmp_path, fold=0)
        assert status == 3
        assert [(f["code"], f["case_id"]) for f in found["findings"]] == [("missing-file", "a")]
        assert report(data_set, tmp_path, fold=1)[0] == 0

    def test_half_a_case_is_an_error_in_any_fold(self, data_set, tmp_path):
        remove(data_set, "b", kinds=["labels"])
        status, found = report(data_set, tmp_path)
        assert status == 3
        (finding,) = found["findings"]
        assert (finding["code"], finding["case_id"]) == ("incomplete-case", "b")
        assert "labels/b.nii.gz; the rest is there" in finding["message"]

    def test_a_wrong_root_is_a_wrong_request(self, data_set, tmp_path):
        with pytest.raises(ManifestError, match=r"Is --root right \(now .*elsewhere\)\? Ask\."):
            check(CheckOptions(data_set, root=tmp_path / "elsewhere", workers=1))

    def test_an_unknown_fold_is_refused(self, data_set):
        with pytest.raises(ManifestError, match="has no fold 9"):
            check(CheckOptions(data_set, fold=9))

    def test_every_bad_case_is_named_in_order_by_workers_too(self, data_set, tmp_path):
        for name in "fb":
            label(data_set.parent, name, array=np.full(GRID.shape, 9))
        (data_set.parent / "images/d.nii.gz").write_bytes(b"")
        findings = [report(data_set, tmp_path, workers=n)[1]["findings"] for n in (1, 2)]
        assert findings[0] == findings[1]
        errors = [(f["case_id"], f["code"]) for f in findings[0] if f["severity"] == "error"]
        assert errors == [("b", "unknown-label"), ("d", "empty"), ("f", "unknown-label")]

    def test_a_person_reads_the_errors_first(self, data_set, capsys):
        label(data_set.parent, "c", array=np.full(GRID.shape, 9))
        assert main(["check", "--manifest", str(data_set), "--workers", "1"]) == 3
        said = capsys.readouterr().out
        assert f"{data_set}: 6 cases checked; error: 1, warning: 1, info: 0\n" in said
        assert "  error   unknown-label: c: " in said
        assert said.index("unknown-label") < said.index("empty-label")

    def test_text_can_be_kept_in_a_file(self, data_set, tmp_path):
        check(CheckOptions(data_set, output=tmp_path / "findings.txt", workers=1))
        assert (tmp_path / "findings.txt").read_text().startswith(f"{data_set}: 6 cases checked")

    def test_a_negative_number_of_workers_is_refused(self, data_set):
        with pytest.raises(OptionError, match="--workers must be 0 or more"):
            check(CheckOptions(data_set, workers=-1))

    def test_many_findings_of_a_kind_are_one_line(self, data_set):
        found = [Finding("info", "x", f"c{n}", f"message {n}") for n in range(8)]
        text = as_text(load_manifest(data_set), 8, found)
        assert text.splitlines()[1:] == [
            "  info    x: c0, c1, c2, c3, c4 and 3 more, the first: message 0"
        ]
