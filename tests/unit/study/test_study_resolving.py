"""Configurations put together from values that were parsed once are those parsed as a whole."""

import pytest

from medseg.core.errors import OptionError
from medseg.study import resolving
from medseg.study.grid import Run
from medseg.study.resolving import Resolver, resolved


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "fit.yaml"
    path.write_text("data: {manifest: set.json}\nmodel: {network: {channels: [8, 16]}}\n")
    return (path,)


CELLS = [
    {"model.norm": "group", "data.batch_size": 3, "seed_everything": 5},
    {"model.network.dropout": 0.2, "trainer.max_time": "00:00:00:40", "data.train_folds": [1]},
    {"data.augmentation": None},
    {"data.augmentation": None, "data.augmentation.flip": 0.5},
    {"model.optimization.learning_rate": "1e-3", "probes": True},
]


@pytest.mark.parametrize("cell", CELLS)
def test_nothing_differs_from_parsing_all_flags_together(cell, config):
    run = Run(cell, config, {"data.fold": 2})
    assert Resolver().resolve(run) == resolved(run)


def test_a_part_of_what_a_file_leaves_out_is_parsed_with_all_flags(tmp_path):
    path = tmp_path / "fit.yaml"
    path.write_text("data: {manifest: set.json, augmentation: null}\n")
    run = Run({"data.augmentation.flip": 0.25}, (path,))
    assert Resolver().resolve(run) == resolved(run)


def test_every_value_is_parsed_once(config, monkeypatch):
    asked = []
    monkeypatch.setattr(resolving, "resolved", lambda run: asked.append(run) or resolved(run))
    resolver = Resolver()
    runs = [
        Run({"model.norm": n, "data.fold": f}, config) for n in ("batch", "group") for f in (0, 1)
    ]
    for run in runs:
        settings = resolver.resolve(run)
        assert (settings["model"]["norm"], settings["data"]["fold"]) == tuple(run.cell.values())
    assert len(asked) == 5  # the file, two norms, two folds


def test_a_value_that_fit_refuses_is_named(config):
    run = Run({"data.batch_size": "many"}, config)
    with pytest.raises(OptionError, match="batch_size=many"):
        Resolver().resolve(run)
