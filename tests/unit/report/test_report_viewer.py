"""What the viewer gets: previews of bounded size in the right place, and its program."""

import base64
import gzip
import io

import nibabel as nib
import numpy as np
import pytest

from medseg.core.geometry import Grid
from medseg.io import Volume
from medseg.report import preview as preview_module
from medseg.report import viewer
from medseg.report.preview import preview

AFFINE = np.array([[0, -2.0, 0, 30], [1.0, 0, 0, -5], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def opened(packed):
    content = gzip.decompress(base64.b64decode(packed))
    return nib.Nifti1Image.from_stream(io.BytesIO(content))


@pytest.fixture
def case():
    """Return image, reference and prediction of noise, a structure in a corner."""
    grid = Grid((40, 30, 20), AFFINE)
    noise = np.random.default_rng(0).normal(100, 20, grid.shape).astype(np.float32)
    reference = np.zeros(grid.shape, np.uint16)
    reference[4:10, 5:9, 3:7] = 300
    prediction = np.roll(reference, 1, axis=0)
    return Volume(noise, grid), Volume(reference, grid), Volume(prediction, grid)


def test_a_small_case_is_sent_whole(case):
    sent = preview(*case, (6, 6, 5))
    assert sent.note == ""
    assert sent.centre == (30 - 12, 6 - 5, 15 + 7)
    image, reference = opened(sent.image), opened(sent.reference)
    assert image.shape == (40, 30, 20)
    assert np.array_equal(np.asarray(reference.dataobj) > 0, case[1].array > 0)
    assert np.asarray(reference.dataobj).max() == 1
    assert reference.header.get_intent()[0] == "label"
    assert np.allclose(reference.affine, AFFINE)


def test_a_large_case_is_cut_and_stays_where_it_was(case, monkeypatch):
    monkeypatch.setattr(preview_module, "MOST_VOXELS", 15_000)
    sent = preview(*case, (6, 6, 5))
    assert sent.note == "cut to the structures and their surroundings"
    assert world(opened(sent.reference)) == pytest.approx(world_of(case[1]))


def test_a_larger_case_is_thinned_along_its_fine_axes(case, monkeypatch):
    monkeypatch.setattr(preview_module, "MOST_BYTES", 1_500)
    sent = preview(*case, (6, 6, 5))
    total = sum(
        len(base64.b64decode(part)) for part in (sent.image, sent.reference, sent.prediction)
    )
    assert total <= 1_500
    assert "one voxel of" in sent.note
    assert world(opened(sent.reference)) == pytest.approx(world_of(case[1]), abs=3.5)


def test_a_case_that_cannot_be_made_small_is_not_sent(case, monkeypatch):
    monkeypatch.setattr(preview_module, "MOST_BYTES", 10)
    assert preview(*case, (6, 6, 5)) is None


def world(image):
    return centre_of(np.asarray(image.dataobj), image.affine)


def world_of(volume):
    return centre_of(volume.array, AFFINE)


def centre_of(labels, affine):
    return nib.affines.apply_affine(affine, np.argwhere(labels > 0).mean(axis=0))


def test_the_program_is_read_from_the_installed_package(tmp_path, monkeypatch):
    folder = tmp_path / "shipping" / "js"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / viewer.FILE).write_text("var niivue = {};\r\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(viewer, "PACKAGE", "shipping")
    monkeypatch.setattr(viewer.metadata, "version", lambda _: "1.2")
    found = viewer.find_viewer()
    assert gzip.decompress(base64.b64decode(found.packed)).decode() == found.script
    assert found.script == "var niivue = {};\n"
    assert found.origin == "shipping 1.2"


def test_without_the_package_the_page_says_how_to_get_it(make_run, page_of, monkeypatch):
    monkeypatch.setattr(viewer, "PACKAGE", "absent_package")
    page = page_of(make_run(volumes=True))
    assert "<code>pip install 'medseg[viewer]'</code>" in page.replace("&#39;", "'")
    assert page.count("<script") == 1
    assert page.count("data:image/png;base64,") == 3
    assert "<dialog" not in page


def test_viewer_cases_are_shared_by_the_runs_and_0_leaves_it_out(make_run, page_of, monkeypatch):
    found = viewer.Viewer("var niivue;", "", "shipping 1.2")
    monkeypatch.setattr("medseg.report.pages.find_viewer", lambda: found)
    runs = [make_run(name, volumes=True) for name in ("batch", "group", "layer")]
    page = page_of(*runs, viewer_cases=4)
    titles = [name.split("</h3>")[0] for name in page.split("<h3>")[1:]]
    counts = [part.count('class="open"') for part in page.split("<h3>")[1:]]
    assert dict(zip(titles, counts, strict=True)) == {"batch": 2, "group": 1, "layer": 1}
    assert "4 of these cases can be scrolled through here, with NiiVue (©" in page
    assert "BSD 2-Clause licence; from shipping 1.2)." in page
    bare = page_of(*runs, viewer_cases=0)
    assert "NiiVue" not in bare
    assert "medseg[viewer]" not in bare
