"""What every table of a recipe has in common: frozen, and refusing what it does not know."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from zerolab.errors import UserError
from zerolab.toml import table_class

LARGEST = 2**63 - 1  # TOML allows more, tensors and files do not
LONGEST_NAME = 200  # bytes; a folder's name has at most 255, and the seed follows

# Marks of fields that a resumed run may change, and what becomes of its numbers then.
SAME: dict[str, Any] = {"resume": "same"}  # they stay what they are
ROUNDED: dict[str, Any] = {"resume": "rounded"}  # memory, speed or place: equal up to rounding, not to the bit


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _fits_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError("a whole number must be less than 2^63")
        return value


def on_resume(model: type[BaseModel], key: str) -> Literal["same", "rounded"] | None:
    """The mark of a dotted key or of a table around it; None for a key that a resumed run may not change."""
    here: type[BaseModel] | None = model
    for part in key.split("."):
        info = here.model_fields.get(part) if here else None
        if info is None:
            return None
        if isinstance(info.json_schema_extra, dict) and (mark := info.json_schema_extra.get("resume")):
            return "same" if mark == "same" else "rounded"
        here = table_class(info.annotation)
    return None


def as_value_error(check: Callable[..., Any], *arguments: Any) -> None:
    """Runs a check that raises UserError inside a validator, which has to raise ValueError."""
    try:
        check(*arguments)
    except UserError as error:
        raise ValueError(str(error)) from None


def _check_name(name: str) -> str:
    """A name becomes part of a folder's name."""
    if not name.strip() or set(name) & set("/\\") or not name.isprintable() or name.strip(".") == "":
        raise ValueError(
            f"{name!r} is no name: write letters, digits and signs that a folder's name may have, without / and \\ "
            "(the key `out` takes a path)"
        )
    if len(name.encode(errors="replace")) > LONGEST_NAME:
        raise ValueError(f"a name of {len(name.encode(errors='replace'))} bytes is too long: {LONGEST_NAME} at most")
    return name


Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Name = Annotated[str, AfterValidator(_check_name)]
