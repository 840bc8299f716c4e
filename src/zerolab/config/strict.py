"""What every table of a recipe has in common: frozen, and refusing what it does not know."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from zerolab.errors import UserError

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def as_value_error(check: Callable[..., Any], *arguments: Any) -> None:
    """Runs a check that raises UserError inside a validator, which has to raise ValueError."""
    try:
        check(*arguments)
    except UserError as error:
        raise ValueError(str(error)) from None
