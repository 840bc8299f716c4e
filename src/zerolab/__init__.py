"""zerolab: the laboratory for R1-Zero-like training.

`zerolab.train(config)` runs a recipe; docs/api.md has the rest. Nothing heavy is imported before it is needed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zerolab.train import train

__version__ = "0.1.0"
__all__ = ["__version__", "train"]


def __getattr__(name: str) -> Any:
    if name != "train":
        raise AttributeError(f"module 'zerolab' has no attribute {name!r}")
    import zerolab.train

    return zerolab.train  # the module of the loop, which can be called
