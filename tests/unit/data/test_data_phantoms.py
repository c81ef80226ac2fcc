"""Phantoms: the truth is exact, the task is neither trivial nor impossible, bytes repeat."""

import hashlib

import numpy as np
import pytest

from medseg.core.errors import OptionError
from medseg.core.geometry import Grid
from medseg.core.manifest import load_manifest
from medseg.data.anatomy import AIR, CORE, LABELS, NODULE, SHELL, draw_anatomy, world_points
from medseg.data.options import PhantomOptions
from medseg.data.phantoms import SCANNERS, make_phantom, phantom_manifest, write_phantoms
from medseg.io import read_volume

MODALITIES = ["mr", "ct"]
REACH = 22.0


def anatomy_of(seed, reach=REACH):
    return draw_anatomy(np.random.default_rng(seed), reach, np.array([5.0, -10.0, 30.0]))


def grid_around(anatomy, spacing, angle=0.0):
    """Return a grid that holds the whole subject, turned about the first axis."""
    count = int(2 * REACH / spacing) + 1
    affine = np.diag([spacing, spacing, spacing, 1.0])
    cosine, sine = np.cos(angle), np.sin(angle)
    affine[:3, :3] = [[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]] @ affine[:3, :3]
    affine[:3, 3] = anatomy.body.centre - affine[:3, :3] @ np.full(3, (count - 1) / 2)
    return Grid((count,) * 3, affine)


class TestAnatomy:
    """Shapes in the world."""

    @pytest.mark.parametrize("angle", [0.0, 0.4])
    def test_label_volumes_are_those_of_the_shapes(self, angle):
        anatomy = anatomy_of(1)
        grid = grid_around(anatomy, 0.4, angle)
        got = np.bincount(anatomy.label(grid).ravel(), minlength=4) * grid.voxel_volume_ml
        core = anatomy.organ.volume_ml * anatomy.core_scale**3
        expected = [anatomy.organ.volume_ml - core, core, anatomy.nodule.volume_ml]
        np.testing.assert_allclose(got[1:], expected, rtol=0.01)

    def test_a_label_depends_on_the_place_and_not_on_the_grid(self):
        anatomy = anatomy_of(2)
        grid = grid_around(anatomy, 1.0)
        flip = np.diag([-1.0, 1.0, 1.0, 1.0])
        flip[0, 3] = grid.shape[0] - 1
        flipped = anatomy.label(Grid(grid.shape, grid.affine @ flip))
        np.testing.assert_array_equal(flipped[::-1], anatomy.label(grid))
        turned = anatomy.label(Grid(grid.shape, grid.affine[:, [2, 0, 1, 3]]))
        np.testing.assert_array_equal(turned.transpose(1, 2, 0), anatomy.label(grid))

    @pytest.mark.parametrize("seed", range(40))
    def test_structures_are_whole_and_apart(self, seed):
        """The core lies in the shell; nothing that looks like the nodule touches it."""
        anatomy = anatomy_of(seed)
        assert np.linalg.norm(anatomy.core_offset) + anatomy.core_scale < 1.0
        points = world_points(grid_around(anatomy, 1.0))
        tissue = anatomy.tissue(points)
        inside = anatomy.nodule.holds(points)
        others = [anatomy.organ, *(blob for blob, _ in anatomy.around)]
        assert anatomy.body.holds(points[inside]).all()
        assert not any(other.holds(points[inside]).any() for other in others)
        for kind in (SHELL, CORE, NODULE):
            assert (tissue == kind).sum() > 100

    def test_nothing_but_air_lies_outside_of_the_body_and_the_organ(self):
        for seed in range(5):
            anatomy = anatomy_of(seed)
            points = world_points(grid_around(anatomy, 1.5))
            outside = ~(anatomy.body.holds(points) | anatomy.organ.holds(points))
            assert outside.sum() > 1000
            assert (anatomy.tissue(points)[outside] == AIR).all()

    def test_the_voxel_centre_is_what_counts(self):
        anatomy = anatomy_of(3)
        grid = grid_around(anatomy, 2.0)
        label = anatomy.label(grid)
        for index in np.argwhere(label == LABELS["nodule"]):
            place = grid.affine[:3, :3] @ index + grid.affine[:3, 3]
            assert anatomy.nodule.holds(place)


class TestOneCase:
    """Images of an anatomy."""

    @pytest.mark.parametrize("modality", MODALITIES)
    def test_equal_arguments_give_equal_voxels_and_others_do_not(self, modality):
        first, again = make_phantom(3, 1, modality), make_phantom(3, 1, modality)
        np.testing.assert_array_equal(first.image, again.image)
        np.testing.assert_array_equal(first.label, again.label)
        np.testing.assert_array_equal(first.grid.affine, again.grid.affine)
        for other in (make_phantom(4, 1, modality), make_phantom(3, 5, modality)):
            assert not np.array_equal(first.label, other.label)

    @pytest.mark.parametrize("modality", MODALITIES)
    def test_scanners_differ_in_grid(self, modality):
        cases = [make_phantom(0, index, modality) for index in range(4)]
        for case, scanner in zip(cases, SCANNERS[modality].values(), strict=True):
            assert case.image.shape == case.label.shape == case.grid.shape == scanner.shape
            assert case.grid.orientation == scanner.orientation
            np.testing.assert_allclose(case.grid.spacing, scanner.spacing, rtol=1e-6)
            aligned = np.abs(case.grid.affine[:3, :3]).max(axis=0) / scanner.spacing
            assert bool(aligned.min() < np.cos(np.deg2rad(1))) is (scanner.tilt_deg > 0)
        assert len({case.grid.orientation for case in cases}) >= 3
        assert max(max(c.grid.spacing) / min(c.grid.spacing) for c in cases) >= 1.5

    def test_mr_scales_are_arbitrary(self):
        largest = [int(make_phantom(0, index, "mr").image.max()) for index in range(12)]
        assert max(largest) > 20 * min(largest)
        assert max(largest) < 65535

    def test_ct_is_in_hounsfield_units(self):
        case = make_phantom(0, 0, "ct")
        assert case.image.dtype == np.int16
        assert case.image[0, 0].mean() == pytest.approx(-1000, abs=15)
        assert 500 < case.image.max() < 900
        organ = case.image[(case.label == 1) | (case.label == 2)]
        assert 30 < organ.mean() < 120

    @pytest.mark.parametrize("modality", MODALITIES)
    def test_no_threshold_finds_a_structure(self, modality):
        """Even the best window, chosen with the truth of the very case, stays far below a network."""
        best = {}
        for index in range(8):
            case = make_phantom(0, index, modality)
            for name, value in list(LABELS.items())[1:]:
                dice = best_window_dice(case.image, case.label == value)
                best.setdefault(name, []).append(dice)
        means = {name: np.mean(dice) for name, dice in best.items()}
        assert max(means.values()) < 0.65, means


def best_window_dice(image, truth):
    """Return the Dice of the best intensity window [low, high]."""
    edges = np.unique(np.quantile(image[truth], np.linspace(0, 1, 21)))
    inside, size = truth.sum(), 0.0
    for low in edges:
        for high in edges[edges > low]:
            chosen = (image >= low) & (image <= high)
            size = max(size, 2 * (chosen & truth).sum() / (chosen.sum() + inside))
    return size


class TestDataSet:
    """What `medseg phantoms` writes."""

    def digests(self, folder):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
        }

    def test_the_same_request_gives_the_same_bytes(self, tmp_path):
        for name in ("one", "two"):
            write_phantoms(PhantomOptions(tmp_path / name, cases=2, modality="ct", seed=7))
        first = self.digests(tmp_path / "one")
        assert first == self.digests(tmp_path / "two")
        assert len(first) == 5
        write_phantoms(PhantomOptions(tmp_path / "three", cases=2, modality="ct", seed=8))
        other = self.digests(tmp_path / "three")
        assert not first.items() & other.items()

    def test_files_hold_what_was_made(self, tmp_path):
        write_phantoms(PhantomOptions(tmp_path / "set", cases=4, seed=1))
        manifest = load_manifest(tmp_path / "set" / "manifest.json")
        for index, case in enumerate(manifest.training):
            made = make_phantom(1, index, "mr")
            image, label = (read_volume(path) for path in manifest.files(case))
            np.testing.assert_array_equal(image.array, made.image)
            np.testing.assert_array_equal(label.array, made.label)
            np.testing.assert_array_equal(image.grid.affine, made.grid.affine)
            assert image.grid.displacement(label.grid) == 0.0
            assert image.warnings == label.warnings == []
            assert set(np.unique(label.array)) == set(LABELS.values())

    def test_the_filed_manifest_is_what_is_written_by_default(
        self, tmp_path, repository, monkeypatch
    ):
        monkeypatch.setattr(
            "medseg.data.phantoms.make_phantom", lambda *_: make_phantom(0, 0, "mr")
        )
        write_phantoms(PhantomOptions(tmp_path / "phantoms" / "mr"))
        written = (tmp_path / "phantoms" / "mr" / "manifest.json").read_bytes()
        assert written == (repository / "data_manifests" / "phantoms.json").read_bytes()

    @pytest.mark.parametrize("cases", [4, 8, 20, 40])
    def test_folds_are_equal_and_hold_each_scanner(self, cases, tmp_path):
        manifest = phantom_manifest(cases, "mr", 0, tmp_path / "manifest.json")
        for fold in range(4):
            ids = [case.case_id for case in manifest.training if case.fold == fold]
            assert len(ids) == cases // 4
            if cases >= 16:
                assert {case_id[len("phantom_")] for case_id in ids} == set("abcd")

    def test_an_interrupted_set_is_completed(self, tmp_path):
        options = PhantomOptions(tmp_path / "set", cases=2)
        write_phantoms(options)
        before = self.digests(options.output)
        (options.output / "labels" / "phantom_b00.nii.gz").unlink()
        write_phantoms(options)
        assert self.digests(options.output) == before

    def test_another_set_is_not_overwritten(self, tmp_path):
        write_phantoms(PhantomOptions(tmp_path / "set", cases=1))
        before = self.digests(tmp_path / "set")
        with pytest.raises(OptionError, match="was not made with these options"):
            write_phantoms(PhantomOptions(tmp_path / "set", cases=1, seed=1))
        assert self.digests(tmp_path / "set") == before

    def test_a_folder_of_other_things_is_not_used(self, tmp_path):
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "thesis.docx").touch()
        with pytest.raises(OptionError, match="is not empty"):
            write_phantoms(PhantomOptions(tmp_path / "set"))
        with pytest.raises(OptionError, match="is a file"):
            write_phantoms(PhantomOptions(tmp_path / "set" / "thesis.docx"))
        assert len(list((tmp_path / "set").iterdir())) == 1

    @pytest.mark.parametrize("wrong", [{"cases": 0}, {"seed": -1}])
    def test_impossible_numbers_are_refused(self, tmp_path, wrong):
        with pytest.raises(OptionError, match="--cases must be at least 1"):
            write_phantoms(PhantomOptions(tmp_path / "set", **wrong))
        assert not (tmp_path / "set").exists()
