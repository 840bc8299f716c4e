"""Units: their table against another one, and the law that another unit is another answer."""

import itertools
import random
from fractions import Fraction

import pytest

from zerolab.grading import equal, grade
from zerolab.grading.extract import last_number
from zerolab.grading.units import conversion, read_unit

# name here: name in pint
NAMES = {
    "km": "km", "cm": "cm", "inches": "inch", "ft": "foot", "yd": "yard", "miles": "mile", "Å": "angstrom",
    "light-years": "light_year", "AU": "astronomical_unit", "kg": "kg", "mg": "mg", "lb": "pound", "oz": "ounce",
    "tonnes": "tonne", "s": "s", "ms": "ms", "minutes": "minute", "h": "hour", "days": "day", "weeks": "week",
    "L": "liter", "ml": "milliliter", "gallons": "gallon", "quarts": "quart", "pints": "pint", "hectares": "hectare",
    "N": "newton", "dyn": "dyne", "J": "joule", "kJ": "kilojoule", "erg": "erg", "cal": "calorie", "eV": "eV",
    "kWh": "kilowatt_hour", "W": "watt", "Pa": "pascal", "bar": "bar", "atm": "atm", "Torr": "torr", "Hz": "hertz",
    "V": "volt", "C": "coulomb", "F": "farad", "H": "henry", "T": "tesla", "Wb": "weber", "\\Omega": "ohm",
    "S": "siemens", "mph": "mile/hour", "km/h": "km/hour", "m/s^2": "m/s**2", "mol": "mol", "mmol": "mmol",
    "kg m^2 s^{-2}": "kg*m**2/s**2", "\\mu m": "micrometer", "nm": "nm", "square inches": "inch**2",
    "meters per second squared": "m/s**2", "cubic feet": "foot**3", "J/mol": "J/mol", "W/m^2": "W/m**2",
}  # fmt: skip


def test_the_table_agrees_with_pint() -> None:
    pint = pytest.importorskip("pint")
    registry = pint.UnitRegistry()
    for (ours, theirs), (other, also) in itertools.combinations(NAMES.items(), 2):
        a, b = read_unit(ours), read_unit(other)
        assert a, ours
        assert b, other
        x, y = registry.Quantity(1.0, theirs), registry.Quantity(1.0, also)
        change = conversion(a, b)
        assert (change is not None) == (x.dimensionality == y.dimensionality), (ours, other)
        if change is not None:
            assert float(change[0]) == pytest.approx(float(x.to(also).magnitude), rel=1e-6), (ours, other)
            assert change[1] == 0


def test_temperatures_agree_with_pint() -> None:
    pint = pytest.importorskip("pint")
    registry = pint.UnitRegistry()
    scales = {r"^\circ C": "degC", r"^\circ F": "degF", r"\text{ K}": "kelvin"}
    for (ours, theirs), (other, also) in itertools.permutations(scales.items(), 2):
        for value in (-40, 0, 100, 451):
            there = registry.Quantity(value, theirs).to(also).magnitude
            exact = str(Fraction(there).limit_denominator(10_000))
            assert equal(rf"{value}{ours}", rf"{exact}{other}"), (value, ours, exact, other)
            assert equal(rf"{value}{ours}", rf"{value}{other}") == (Fraction(exact) == value)


@pytest.mark.parametrize("number", ["5", r"\frac{7}{2}", "3.25", r"6 \times 10^{3}"])
def test_another_unit_is_another_answer(number: str) -> None:
    """The same number in two units is one answer only if the two are the same unit by another name."""
    rng = random.Random(number)
    names = ["apples", "dollars", "cents", "radians", "pc", "M_\\odot", *NAMES]
    for _ in range(400):
        ours, other = rng.sample(names, 2)
        change = conversion(read_unit(ours), read_unit(other))
        same = change is not None and change == (1, 0)
        written = [rf"{number}\,\mathrm{{{name}}}" for name in (ours, other)]
        assert equal(*written) == same, (ours, other)
        assert equal(written[0], number), ours


@pytest.mark.parametrize(
    "words",
    ["halves", "thirds", "tenths", "hundredths", "doubled", "below zero", "pi", "false", "dozen", "or more", "squared",
     "wrong", "not", "is wrong", "at most", "percent of 20", "factorial", "base 3", "less than n", "negative"],
)  # fmt: skip
def test_words_that_change_a_value_are_no_units(words: str) -> None:
    for text in (rf"5 \text{{ {words}}}", f"5 {words}", rf"5\mathrm{{ {words}}}", rf"5 \text{{ ({words})}}"):
        assert not equal(text, "5"), text
        assert not equal(text, r"5 \text{ cm}"), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 3/4", "3/4"),
        ("#### 3/4", "3/4"),
        (r"so it is \frac{1}{2}.", r"\frac{1}{2}"),
        ("we get 1 1/2 cups", "1 1/2"),
        (r"that is 2^{10}", "2^{10}"),
        ("an area of 12 cm^2.", "12"),
        ("it is x_2", None),
        ("it is x^2", None),
        ("it is 52_8", "52_8"),
        ("10-7", "10-7"),
        ("at 10:09", "10:09"),
        ("about 3 million", "3 million"),
        ("9 * 2 = 18 dollars", "18"),
        ("#### $1,234.50.", "1,234.50"),
        ("3 5", "5"),
    ],
)
def test_the_last_number_is_a_whole_expression(text: str, expected: str | None) -> None:
    assert last_number(text) == expected


@pytest.mark.parametrize("piece", ["1/", "9", "1 ", r"\frac{", "-", "1^", "1,234", "1.", "1e", r"\sqrt{1}"])
def test_no_text_makes_the_last_number_slow(piece: str) -> None:
    assert grade(piece * 20_000, "7", "last-number").milliseconds < 2000
