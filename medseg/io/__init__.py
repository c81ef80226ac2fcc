"""Volumes in and out: strict reading, safe writing. Imports neither torch nor MONAI."""

from medseg.io.read import Volume, read_grid, read_volume, volume_files
from medseg.io.write import write_label_map, write_volume

__all__ = ["Volume", "read_grid", "read_volume", "volume_files", "write_label_map", "write_volume"]
