"""zerolab: the laboratory for R1-Zero-like training.

`zerolab.train(config)` runs a recipe; docs/api.md has the rest. Heavy modules are imported only when they are used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zerolab.train import train

__version__ = "0.1.0"
__all__ = ["__version__", "train"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# `zerolab.train` is a callable module. A function of that name would be replaced by the module as soon as train.py is
# imported, and an import here would load torch for everyone who imports zerolab. So the module is loaded at its first
# use, and its class (at the end of train.py) makes `zerolab.train(config)` run a recipe.
def __getattr__(name: str) -> Any:
    if name != "train":
        raise AttributeError(f"module 'zerolab' has no attribute {name!r}")
    import zerolab.train

    return zerolab.train
