"""Folder inference on Ray: the same files as from local workers."""

import json

import pytest

from medseg.cli import main
from medseg.core.manifest import load_manifest

pytest.importorskip("ray", reason="Ray is not installed (pip install 'medseg[ray]')")


@pytest.mark.slow
def test_ray_writes_what_local_workers_write(tiny_run, phantoms, tmp_path):
    images = load_manifest(phantoms).root / "images"
    source = tmp_path / "in"
    source.mkdir()
    for path in sorted(images.glob("*.nii.gz"))[:3]:
        (source / path.name).write_bytes(path.read_bytes())
    (source / "bad.nii.gz").write_bytes(b"no volume")
    flags = ["predict", "--run", str(tiny_run), "--input", str(source)]
    assert main([*flags, "--output", str(tmp_path / "local"), "--workers", "0"]) == 3
    assert main([*flags, "--output", str(tmp_path / "ray"), "--engine", "ray"]) == 3
    written = sorted((tmp_path / "local").glob("*.nii.gz"))
    assert len(written) == 3
    for path in written:
        assert (tmp_path / "ray" / path.name).read_bytes() == path.read_bytes()
    lines = (tmp_path / "ray" / "predictions.jsonl").read_text().splitlines()
    assert {r["case_id"]: r["status"] for r in map(json.loads, lines)}["bad"] == "failed"
    assert len(lines) == 4
