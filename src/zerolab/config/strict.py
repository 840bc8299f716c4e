"""What every table of a recipe has in common: frozen, and refusing what it does not know."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from zerolab.errors import UserError

LARGEST = 2**63 - 1  # TOML allows more, tensors and files do not
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _fits_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError("a whole number must be less than 2^63")
        return value


def as_value_error(check: Callable[..., Any], *arguments: Any) -> None:
    """Runs a check that raises UserError inside a validator, which has to raise ValueError."""
    try:
        check(*arguments)
    except UserError as error:
        raise ValueError(str(error)) from None
