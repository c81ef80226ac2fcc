"""The strict door as a MONAI reader, for transforms of one's own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from medseg.core.errors import GeometryError
from medseg.io import Volume, read_volume
from medseg.io.read import Conflicts, NonFinite

log = logging.getLogger("medseg")


class VolumeReader(ImageReader):  # type: ignore[misc]
    """Read what `medseg.io.read_volume` reads, and refuse what it refuses.

    Register it: `loader = LoadImaged("image"); loader.register(VolumeReader())`. Given as
    `LoadImaged("image", reader=VolumeReader())` it would be only the first of many, since MONAI
    tries every other reader on a file that one of them refuses.

    Args:
        on_conflict: What a header that contradicts itself does: a warning, or an error.
        channels: Channels each file must hold; None for any.
        non_finite: What NaN and infinite values do: stay, become 0 with a warning, or an error.
    """

    def __init__(
        self,
        on_conflict: Conflicts = "warn",
        channels: int | None = None,
        non_finite: NonFinite = "keep",
    ) -> None:
        super().__init__()
        self.on_conflict: Conflicts = on_conflict
        self.channels = channels
        self.non_finite: NonFinite = non_finite

    def verify_suffix(self, filename: Sequence[Path | str] | Path | str) -> bool:  # noqa: ARG002
        """Return true: files are known by their content."""
        return True

    def read(self, data: Sequence[Path | str] | Path | str, **kwargs: Any) -> list[Volume]:
        """Read one file, or one file for each channel.

        Raises:
            VolumeError: If a file is refused.
        """
        if kwargs:
            raise TypeError(f"unknown arguments: {', '.join(kwargs)}")
        paths = [data] if isinstance(data, str | Path) else list(data)
        volumes = []
        for path in paths:
            volume = read_volume(path, self.on_conflict, self.channels, self.non_finite)
            for warning in volume.warnings:
                log.warning("%s: %s", path, warning)
            volumes.append(volume)
        return volumes

    def get_data(self, img: list[Volume]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Return the array and its metadata; several files become channels, the first axis.

        Raises:
            GeometryError: If several files lie on different grids.
        """
        first = img[0]
        if len(img) == 1:
            array = first.array
            channel_dim = float("nan") if array.ndim <= 3 else -1
        else:
            for volume in img:
                if not volume.grid.is_same(first.grid):
                    raise GeometryError(
                        "the files of an image lie on different grids: "
                        f"{volume.grid.difference(first.grid)}. Resample them first."
                    )
            array = np.stack([volume.array for volume in img])
            channel_dim = 0
        return array, {
            MetaKeys.AFFINE: first.grid.affine,
            MetaKeys.ORIGINAL_AFFINE: first.grid.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(first.grid.shape[: min(first.array.ndim, 3)]),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: channel_dim,
        }
