"""Data shared by the tests: tiny phantoms, and the folder of real data."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def pytest_runtest_setup(item):
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def repository():
    """Return the folder that holds pipelines/ and data_manifests/."""
    return REPOSITORY


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Return the manifest of eight small MR phantoms in four folds."""
    return _phantoms(tmp_path_factory, "mr")


@pytest.fixture(scope="session")
def ct_phantoms(tmp_path_factory):
    """Return the manifest of eight small CT phantoms in four folds."""
    return _phantoms(tmp_path_factory, "ct")


def _phantoms(tmp_path_factory, modality):
    from medseg.data.options import PhantomOptions
    from medseg.data.phantoms import write_phantoms

    folder = tmp_path_factory.mktemp(f"phantoms_{modality}") / "set"
    write_phantoms(PhantomOptions(output=folder, cases=8, modality=modality))
    return folder / "manifest.json"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Keep preprocessed cases out of the user's cache folder."""
    base = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))


@pytest.fixture(scope="session", autouse=True)
def _threads_at_first():
    """Return the number of torch's threads before any test or fixture."""
    import torch

    return torch.get_num_threads()


@pytest.fixture(autouse=True)
def _own_threads(_threads_at_first):
    """Give each test that number: a verb called in this process, by a fixture too, may set it."""
    import torch

    torch.set_num_threads(_threads_at_first)
    yield
    torch.set_num_threads(_threads_at_first)


@pytest.fixture(scope="session")
def medseg_data():
    """Return the folder of real data, or skip."""
    folder = os.environ.get("MEDSEG_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MEDSEG_DATA does not name the folder of real data")
    return Path(folder)
