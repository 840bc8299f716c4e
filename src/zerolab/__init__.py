"""zerolab: the laboratory for R1-Zero-like training.

`zerolab.train(config)` runs a recipe; docs/api.md has the rest. Nothing heavy is imported before it is needed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zerolab.train import train

__version__ = "0.1.0"
__all__ = ["__version__", "train"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# `zerolab.train` is a module that can be called. A function of that name would lose against the file train.py once
# anything imports that file, and an import at this place would load torch for everybody who imports zerolab. So the
# module is loaded at its first use, and its class (at the end of train.py) makes `zerolab.train(config)` run a recipe.
def __getattr__(name: str) -> Any:
    if name != "train":
        raise AttributeError(f"module 'zerolab' has no attribute {name!r}")
    import zerolab.train

    return zerolab.train  # the module of the loop, which can be called
