"""Volumes in and out: strict reading, safe writing. Imports neither torch nor MONAI."""

from medseg.io.read import Extent, Volume, read_extent, read_grid, read_volume, volume_files
from medseg.io.write import write_label_map, write_volume

__all__ = [
    "Extent",
    "Volume",
    "read_extent",
    "read_grid",
    "read_volume",
    "volume_files",
    "write_label_map",
    "write_volume",
]
