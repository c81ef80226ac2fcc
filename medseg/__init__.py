"""Train, run and judge 3D U-Nets on MRI and CT volumes, and measure their normalization layers."""

__version__ = "0.1.0"
