"""Every kind of fault, planted into a good set, is found under its name and at its case."""

import re
import shutil

import nibabel as nib
import numpy as np
import pytest

from medseg.check.codes import CODES
from medseg.core.geometry import Grid
from medseg.io import read_volume, write_label_map, write_volume


def image(change, name="case_c"):
    def plant(data):
        volume = read_volume(data.image(name))
        write_volume(data.image(name), np.ascontiguousarray(change(volume.array)), volume.grid)

    return plant


def label(change, name="case_c", dtype=None):
    def plant(data):
        volume = read_volume(data.label(name))
        array = np.ascontiguousarray(change(volume.array.astype(dtype or volume.array.dtype)))
        write_volume(data.label(name), array, volume.grid)

    return plant


def moved(which, change, name="case_c"):
    def plant(data):
        for kind in which:
            path = getattr(data, kind)(name)
            volume = read_volume(path)
            write_volume(path, volume.array, Grid(volume.grid.shape, change @ volume.grid.affine))

    return plant


def shift(x):
    affine = np.eye(4)
    affine[0, 3] = x
    return affine


def copied(source, target, kinds=("image", "label")):
    def plant(data):
        for kind in kinds:
            shutil.copyfile(getattr(data, kind)(source), getattr(data, kind)(target))

    return plant


def reoriented(data):
    for kind in ("image", "label"):
        source, target = getattr(data, kind)("case_a"), getattr(data, kind)("case_c")
        turned = nib.load(source).as_reoriented([[1, -1], [0, 1], [2, -1]])
        array = np.asarray(turned.dataobj).astype(np.float64 if kind == "image" else np.uint8)
        write_volume(target, array, Grid(array.shape, turned.affine))


def other_orientation(data):
    for kind in ("image", "label"):
        path = getattr(data, kind)("case_c")
        turned = nib.load(path).as_reoriented([[0, -1], [1, 1], [2, 1]])
        write_volume(path, np.asarray(turned.dataobj).copy(), Grid(turned.shape, turned.affine))


def swapped(data):
    a, c = read_volume(data.label("case_c")), read_volume(data.label("case_d"))
    far = np.roll(c.array, (6, 5, 5), (0, 1, 2))
    volume = read_volume(data.image("case_d"))
    write_volume(data.image("case_d"), np.roll(volume.array, (6, 5, 5), (0, 1, 2)), volume.grid)
    write_label_map(data.label("case_c"), far, a.grid)
    write_label_map(data.label("case_d"), a.array, c.grid)


def other_grid(data):
    grid = Grid.from_spacing((26, 24, 22), (1, 1, 1.5))
    for name in ("case_d",):
        for kind in ("image", "label"):
            path = getattr(data, kind)(name)
            write_volume(path, read_volume(path).array, grid)
    write_volume(data.label("case_c"), read_volume(data.label("case_c")).array, grid)


def blob(array):
    out = array.copy()
    out[-2:, -2:, -2:] = 1
    return out


def entry(**keys):
    return lambda data: data.entry("case_c").update(keys)


def groups(data):
    for name in ("case_b", "case_c"):
        data.entry(name)["group"] = "p1"


def bids(data):
    for name, session in (("case_b", "ses-1"), ("case_c", "ses-2")):
        target = data.folder / f"sub-07_{session}.nii.gz"
        shutil.copyfile(data.image(name), target)
        data.entry(name).update(image=target.name, case_id=name)
        data.image(name).unlink()


def unlisted(data):
    shutil.copyfile(data.image("case_a"), data.image("case_zz"))


def in_test_too(data):
    shutil.copyfile(data.image("case_c"), data.folder / "t.nii.gz")
    data.test.append({"image": "t.nii.gz"})


def two_forms(data):
    path = data.image("case_c")
    stored = nib.load(path)
    stored.header.set_qform(shift(5) @ stored.affine, code=1)
    stored.header.set_sform(stored.affine, code=1)
    nib.save(nib.Nifti1Image(np.asarray(stored.dataobj), None, stored.header), path)


NOISE = np.random.default_rng(5)
FAULTS = {
    "truncated": lambda d: d.image("case_c").write_bytes(d.image("case_c").read_bytes()[:-40]),
    "not-a-volume": lambda d: d.image("case_c").write_text("no volume, only text " * 40),
    "non-finite": image(lambda a: np.where(a > np.sort(a.ravel())[-4], np.nan, a)),
    "form-conflict": two_forms,
    "constant-image": image(np.zeros_like),
    "nearly-constant-image": image(lambda a: np.where(a == a.max(), a, 0)),
    "image-is-label": lambda d: shutil.copyfile(d.label("case_c"), d.image("case_c")),
    "implausible-spacing": moved(("image", "label"), np.diag([1e-3, 1e-3, 1e-3, 1])),
    "clipped-image": image(lambda a: np.minimum(a, np.percentile(a, 90))),
    "intensity-outlier": image(lambda a: a.max() - a + 3000),
    "spacing-outlier": moved(("image", "label"), np.diag([2, 2, 2, 1])),
    "size-outlier": moved(("image", "label"), np.diag([2, 2, 2, 1])),
    "orientation-outlier": other_orientation,
    "label-grid-close": moved(("label",), shift(0.3)),
    "label-grid-differs": moved(("label",), shift(4)),
    "label-outside-image": moved(("label",), shift(40)),
    "label-of-another-case": other_grid,
    "not-a-label": label(lambda a: a * 0.7, dtype=np.float32),
    "label-rounding": label(lambda a: a * 1.0002, dtype=np.float32),
    "unknown-label": label(lambda a: np.where(a == 2, 9, a)),
    "empty-label": label(np.zeros_like),
    "full-label": label(lambda a: np.where(a == 0, 1, a)),
    "tiny-label": label(lambda a: np.where((a == 2) & (np.cumsum(a == 2).reshape(a.shape) > 3), 1, a)),
    "huge-label": label(lambda a: np.where(np.arange(24)[None, :, None] > 5, 1, a)),
    "missing-class": label(lambda a: np.minimum(a, 1)),
    "stray-component": label(blob),
    "duplicate-image": copied("case_a", "case_c"),
    "near-duplicate-image": lambda d: write_volume(
        d.image("case_c"),
        read_volume(d.image("case_a")).array * 3 + 100,
        read_volume(d.image("case_a")).grid,
    ),
    "duplicate-label": copied("case_a", "case_c", ("label",)),
    "mirrored-label": label(lambda a: a[::-1]),
    "shifted-label": label(lambda a: np.roll(a, 4, 1)),
    "swapped-labels": swapped,
    "incomplete-case": lambda d: d.label("case_c").unlink(),
    "case-id-twice": entry(case_id="case_a"),
    "group-in-two-folds": groups,
    "patient-in-two-folds": bids,
    "unlisted-file": unlisted,
    "image-in-two-parts": lambda d: d.test.append({"image": "images/case_c.nii.gz", "case_id": "t"}),
}  # fmt: skip
ERRORS = {
    "truncated", "not-a-volume", "constant-image", "image-is-label", "label-grid-close",
    "label-grid-differs", "label-outside-image", "label-of-another-case", "not-a-label",
    "unknown-label", "duplicate-image", "duplicate-label", "swapped-labels", "incomplete-case",
    "case-id-twice", "group-in-two-folds", "patient-in-two-folds", "image-in-two-parts",
}  # fmt: skip
OF_THE_SET = {"group-in-two-folds", "image-in-two-parts"}
ELSEWHERE = {
    "case-id-twice": "case_a",
    "unlisted-file": "case_zz",
    "patient-in-two-folds": "case_b",
}


def test_the_set_without_a_fault_is_clean(small_set):
    status, found = small_set.check()
    assert (status, found["findings"], found["cases_checked"]) == (0, [], 8)


@pytest.mark.parametrize("code", FAULTS)
def test_a_planted_fault_is_found_at_its_case(small_set, code):
    FAULTS[code](small_set)
    status, found = small_set.check()
    where = "" if code in OF_THE_SET else ELSEWHERE.get(code, "case_c")
    severity = "error" if code in ERRORS else "warning"
    hits = [(f["severity"], f["code"], f["case_id"]) for f in found["findings"]]
    assert (severity, code, where) in hits
    assert status == (3 if any(hit[0] == "error" for hit in hits) else 0)
    for one in found["findings"]:
        assert one["message"]
        assert one["case_id"] in (where, "", "case_a", "case_b", "case_d", "t", "case_zz")


def test_a_re_oriented_copy_of_another_type_is_a_duplicate(small_set):
    reoriented(small_set)
    _, found = small_set.check()
    (told,) = [f for f in found["findings"] if f["code"] == "duplicate-image"]
    assert (told["severity"], told["case_id"]) == ("error", "case_c")
    assert "is equal to" in told["message"]


def test_a_mirrored_copy_without_a_changed_header_is_a_duplicate(small_set):
    volume = read_volume(small_set.image("case_a"))
    write_volume(small_set.image("case_c"), volume.array[::-1].copy(), volume.grid)
    _, found = small_set.check()
    (told,) = [f for f in found["findings"] if f["code"] == "duplicate-image"]
    assert "a turned or mirrored copy of" in told["message"]


def test_a_duplicate_within_a_fold_is_a_warning(small_set):
    copied("case_a", "case_e")(small_set)  # both in fold 0
    status, found = small_set.check()
    assert status == 0
    assert [(f["severity"], f["code"]) for f in found["findings"]] == [
        ("warning", "duplicate-image")
    ]


def test_a_training_image_among_the_test_cases_is_an_error(small_set):
    in_test_too(small_set)
    _, found = small_set.check()
    told = [f for f in found["findings"] if f["code"] == "duplicate-image"]
    assert [f["severity"] for f in told] == ["error"]


def test_a_class_that_no_label_holds_is_told_once(small_set):
    small_set.labels["nodule"] = 7
    _, found = small_set.check()
    assert [(f["code"], f["case_id"]) for f in found["findings"]] == [("class-never-occurs", "")]


def test_a_fold_without_a_class_is_told(small_set):
    for name in ("case_c", "case_g"):  # fold 2
        label(lambda a: np.minimum(a, 1), name)(small_set)
    _, found = small_set.check()
    assert "fold 2 has no case with class 'core'" in found["findings"][0]["message"]
    assert [f["code"] for f in found["findings"]] == ["fold-without-class"]


def test_a_folder_without_a_manifest_is_checked_by_its_names(small_set):
    from medseg.check.dataset import check
    from medseg.check.options import CheckOptions

    small_set.image("case_b").unlink()
    small_set.label("case_c").unlink()
    output = small_set.folder.parent / "out.txt"
    assert check(CheckOptions(small_set.folder, output=output, workers=1)) == 3
    text = output.read_text()
    assert "error   label-without-image: case_b: " in text
    assert "warning image-without-label: case_c: " in text
    assert "unlisted" not in text


def test_phantoms_are_clean(phantoms, ct_phantoms, tmp_path):
    from medseg.check.cases import check_case  # noqa: F401 - imported before it is timed
    from medseg.check.dataset import examine
    from medseg.check.sources import open_data_set

    for path in (phantoms, ct_phantoms):
        manifest, known = open_data_set(path, None)
        found = examine(manifest, known, None, 1).findings
        assert [(f.severity, f.code) for f in found] == [("info", "orientation-mix")]


def test_every_code_is_in_the_documentation(repository):
    text = (repository / "docs" / "check.md").read_text(encoding="utf-8")
    text = text[text.index("## Codes") : text.index("## Wrong pairs")]
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE))
    assert documented == set(CODES)
