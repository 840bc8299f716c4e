"""What may differ between benchmarks and graders. The default is exact; every looseness is asked for by name."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """How a pair of answers is compared. Hashable: it is part of the key of the verdict cache."""

    ordered_lists: bool = False  # "1, 2" is not "2, 1"
    relative_tolerance: float = 0.0  # of two plain numbers
    percent_is_unit: bool = False  # 28% is 28 and never 0.28
    strict_form: bool = False  # a fraction must be in the gold's terms, an integer gold wants an integer


STANDARD = Rules()
REFERENCE = Rules(ordered_lists=True, percent_is_unit=True, strict_form=True)
RULES = {"standard": STANDARD, "reference": REFERENCE}
