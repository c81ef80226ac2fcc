"""A small data set in which nothing is wrong, to plant faults into."""

import json

import numpy as np
import pytest
from scipy import ndimage

from medseg.check.dataset import check
from medseg.check.options import CheckOptions
from medseg.core.geometry import Grid
from medseg.io import write_label_map, write_volume

SHAPE = (26, 24, 22)
GRID = Grid.from_spacing(SHAPE, (1, 1, 2))
NAMES = [f"case_{letter}" for letter in "abcdefgh"]


def body(seed):
    """Return an image with two bright structures off its middle, and their labels."""
    random = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    centre = np.array([9, 9, 8]) + random.uniform(-0.7, 0.7, 3)
    radius = np.array([5, 4.2, 3.5]) * random.uniform(0.9, 1.1, 3)
    outer = (((place - centre) / radius) ** 2).sum(axis=-1) < 1
    inner = (((place - centre - [1.5, 1, 0]) / (radius * 0.6)) ** 2).sum(axis=-1) < 1
    label = outer.astype(np.uint8) + inner * (2 - outer)
    noise = ndimage.gaussian_filter(random.normal(size=SHAPE), 1) * 60
    image = 100 + noise + 80 * (label == 1) + 200 * (label == 2) + random.normal(size=SHAPE) * 5
    return image.astype(np.float32), label.astype(np.uint8)


class DataSet:
    """Files and manifest of a small set; `change` and `listed` plant faults."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "m.json"
        self.labels = {"background": 0, "shell": 1, "core": 2}
        self.cases = [
            {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", "fold": n % 4}
            for n, name in enumerate(NAMES)
        ]
        self.test = []
        for seed, name in enumerate(NAMES):
            image, label = body(seed)
            write_volume(self.image(name), image, GRID)
            write_label_map(self.label(name), label, GRID)

    def image(self, name):
        return self.folder / f"images/{name}.nii.gz"

    def label(self, name):
        return self.folder / f"labels/{name}.nii.gz"

    def entry(self, name):
        return self.cases[NAMES.index(name)]

    def save(self):
        content = {
            "channel_names": {"0": "T1w"},
            "labels": self.labels,
            "training": self.cases,
            "test": self.test,
        }
        self.path.write_text(json.dumps(content))
        return self.path

    def check(self, **options):
        """Return exit status and findings."""
        output = self.folder.parent / "out" / "check.json"
        status = check(CheckOptions(self.save(), output=output, workers=1, **options))
        return status, json.loads(output.read_text(encoding="utf-8"))


@pytest.fixture
def small_set(tmp_path):
    return DataSet(tmp_path / "set")
