"""zerolab: the laboratory for R1-Zero-like training."""

__version__ = "0.1.0"
