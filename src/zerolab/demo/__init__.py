"""The main job on a laptop: arms that differ in one coordinate, side by side."""

from zerolab.demo.run import run

__all__ = ["run"]
