"""The cache: never stale, never half-written."""

import json
import shutil

import numpy as np
import pytest

from medseg.core.errors import ManifestError
from medseg.core.geometry import Grid
from medseg.core.manifest import load_manifest
from medseg.data import cache as cache_module
from medseg.data.cache import Cache
from medseg.data.transforms import Preprocessing
from medseg.io import write_label_map, write_volume

GRID = Grid((6, 5, 4), np.eye(4))


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_volume(
            tmp_path / f"{name}.nii", rng.normal(9, 1, GRID.shape).astype(np.float32), GRID
        )
        write_label_map(tmp_path / f"{name}_label.nii", rng.integers(0, 3, GRID.shape), GRID)
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "one": 1, "two": 2},
        "training": [
            {"image": f"{n}.nii", "label": f"{n}_label.nii", "fold": i} for i, n in enumerate("ab")
        ],
    }
    (tmp_path / "m.json").write_text(json.dumps(content))
    return load_manifest(tmp_path / "m.json")


@pytest.fixture
def made(monkeypatch):
    """Count how often a case is really preprocessed."""
    calls = []
    original = cache_module.prepare_case

    def counted(*arguments):
        calls.append(arguments[0])
        return original(*arguments)

    monkeypatch.setattr(cache_module, "prepare_case", counted)
    return calls


def test_a_case_is_made_once_and_found_again(manifest, made, tmp_path):
    for _ in range(2):
        entries = Cache(tmp_path / "cache", manifest, Preprocessing()).prepare(manifest.training)
    assert len(made) == 2
    assert [entry.case_id for entry in entries] == ["a", "b"]
    rows = entries[0].foreground()
    label = entries[0].label()
    assert len(rows) == np.count_nonzero(label)
    assert all(label[i, j, k] == index for index, i, j, k in rows)


def test_a_changed_file_is_made_again(manifest, made, tmp_path):
    cache = Cache(tmp_path / "cache", manifest, Preprocessing(intensity=[[0.0, 20.0]]))
    old = cache.entry(manifest.training[0]).image().copy()
    source = manifest.root / "a.nii"
    times = source.stat()
    write_volume(source, np.full(GRID.shape, 5.0, np.float32), GRID)
    import os

    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))  # as rsync or a restore leaves it
    new = cache.entry(manifest.training[0]).image()
    assert len(made) == 2
    assert not np.array_equal(old, new)


def test_a_changed_preprocessing_is_made_again(manifest, made, tmp_path):
    for spacing in (None, [2.0, 2.0, 2.0]):
        entry = Cache(tmp_path / "cache", manifest, Preprocessing(spacing)).entry(
            manifest.training[0]
        )
    assert len(made) == 2
    assert entry.image().shape[1] < 6


@pytest.mark.parametrize("damage", ["truncate", "remove", "list"])
def test_a_damaged_entry_is_made_again(manifest, made, tmp_path, damage):
    cache = Cache(tmp_path / "cache", manifest, Preprocessing())
    entry = cache.entry(manifest.training[0])
    whole = entry.image().copy()
    if damage == "truncate":
        content = (entry.folder / "image.npy").read_bytes()
        (entry.folder / "image.npy").write_bytes(content[:200])
    elif damage == "remove":
        (entry.folder / "label.npy").unlink()
    else:
        (entry.folder / "sizes.json").write_text('{"image.npy":')
    np.testing.assert_array_equal(cache.entry(manifest.training[0]).image(), whole)
    assert len(made) == 2


def test_a_crash_while_writing_leaves_no_entry(manifest, tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache", manifest, Preprocessing())

    def crash(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module, "_foreground", crash)
    with pytest.raises(OSError, match="No space"):
        cache.entry(manifest.training[0])
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_removed_cache_is_no_loss(manifest, made, tmp_path):
    cache = Cache(tmp_path / "cache", manifest, Preprocessing())
    cache.entry(manifest.training[0])
    shutil.rmtree(tmp_path / "cache")
    cache.entry(manifest.training[0])
    assert len(made) == 2


def test_every_refused_case_is_named_at_once(manifest, tmp_path):
    (manifest.root / "a.nii").write_bytes(b"")
    moved = Grid(GRID.shape, np.diag([1.0, 1.0, 1.2, 1.0]))
    write_label_map(manifest.root / "b_label.nii", np.ones(GRID.shape, int), moved)
    with pytest.raises(ManifestError, match="has 2 problems") as caught:
        Cache(tmp_path / "cache", manifest, Preprocessing()).prepare(manifest.training)
    assert "case 'a': " in str(caught.value)
    assert "empty" in str(caught.value)
    assert "case 'b': " in str(caught.value)
    assert "label grid differs from image grid: spacing (1.0, 1.0, 1.2) mm" in str(caught.value)


def test_a_folder_in_place_of_an_image_is_named_not_opened(manifest, tmp_path):
    (manifest.root / "a.nii").unlink()
    (manifest.root / "a.nii").mkdir()
    with pytest.raises(ManifestError, match=r"case 'a': .*no-dicom"):
        Cache(tmp_path / "cache", manifest, Preprocessing()).prepare(manifest.training)


def test_a_whole_entry_is_never_replaced_under_another_run(manifest, tmp_path):
    cache = Cache(tmp_path / "cache", manifest, Preprocessing())
    entry = cache.entry(manifest.training[0])
    before = (entry.folder / "image.npy").stat().st_ino
    prepared = cache_module.prepare_case(
        [manifest.root / "a.nii"], manifest.root / "a_label.nii", 1, (0, 1, 2), Preprocessing()
    )
    cache_module._store(entry.folder, prepared)
    assert (entry.folder / "image.npy").stat().st_ino == before
    assert len(list((tmp_path / "cache").iterdir())) == 1
