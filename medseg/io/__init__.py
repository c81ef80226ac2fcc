"""Volumes in and out: strict reading, safe writing. Imports neither torch nor MONAI."""
