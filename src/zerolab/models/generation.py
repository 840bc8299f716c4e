"""The generation config of an exported model: what transformers agrees to write."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import GenerationConfig

# These fields decide which of the others are valid, so they are tried before them.
MODES = ("do_sample", "num_beams", "return_dict_in_generate")


def repair_generation_config(generation: GenerationConfig) -> None:
    """Unsets the fields, in place, because of which transformers refuses to write this config, and warns of them.

    `temperature` without `do_sample` is one: `generate` ignores it, vLLM does not, and `save_pretrained` raises.
    """
    if _is_valid(generation):
        return
    wanted: dict[str, Any] = generation.to_diff_dict()
    repaired = type(generation)()
    unset: list[str] = []
    for name in sorted(wanted, key=lambda name: name not in MODES):
        default = getattr(repaired, name, None)
        setattr(repaired, name, wanted[name])
        if not _is_valid(repaired):
            setattr(repaired, name, default)
            unset.append(name)
    generation.__dict__.update(repaired.__dict__)
    warnings.warn(
        f"generation_config.json of the model has {' and '.join(sorted(unset))}, which transformers refuses to write "
        "with its other fields: exported models leave that out",
        stacklevel=2,
    )


def _is_valid(generation: GenerationConfig) -> bool:
    try:
        generation.validate(strict=True)
    except Exception:  # a field of a wrong type raises whatever its comparison raises
        return False
    return True
