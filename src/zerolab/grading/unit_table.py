"""The units that the grader knows, each with its factor to SI and its dimensions, and the nouns that answers count.

Nouns, and the words before or behind them, are in the singular and in lower case.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

Dimensions = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """`value` of this unit is `value * factor + offset` in the base units of its dimensions."""

    factor: Fraction
    dimensions: Dimensions
    offset: Fraction = Fraction(0)


NONE = Unit(Fraction(1), ())


def _table(text: str) -> dict[str, Unit]:
    """Rows `names = factor dimension^power ...`."""
    made = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        names, _, definition = line.partition(" = ")
        factor, *powers = definition.split()
        dimensions = tuple(sorted((d, int(p or 1)) for d, _, p in (power.partition("^") for power in powers)))
        for name in names.split():
            made[name] = Unit(Fraction(factor), dimensions)
    return made


PREFIXES = {
    "f": -15, "p": -12, "n": -9, "u": -6, "μ": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15,
}  # fmt: skip
PREFIX_WORDS = {
    "femto": -15, "pico": -12, "nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "kilo": 3, "mega": 6,
    "giga": 9, "tera": 12,
}  # fmt: skip

# Symbols and words that take a prefix. Dimensions: m kg s A K mol, then what has no exact factor to these.
PREFIXED_SYMBOLS = _table(
    """
    m = 1 m
    g = 1/1000 kg
    s = 1 s
    A = 1 A
    K = 1 K
    mol = 1 mol
    Hz = 1 s^-1
    N = 1 kg m s^-2
    Pa = 1 kg m^-1 s^-2
    J = 1 kg m^2 s^-2
    W = 1 kg m^2 s^-3
    V = 1 kg m^2 s^-3 A^-1
    C = 1 A s
    F = 1 A^2 s^4 kg^-1 m^-2
    H = 1 kg m^2 s^-2 A^-2
    T = 1 kg s^-2 A^-1
    Wb = 1 kg m^2 s^-2 A^-1
    Ω = 1 kg m^2 s^-3 A^-2
    S = 1 A^2 s^3 kg^-1 m^-2
    Wh = 3600 kg m^2 s^-2
    eV = 1602176634/10000000000000000000000000000 kg m^2 s^-2
    cal = 4184/1000 kg m^2 s^-2
    bar = 100000 kg m^-1 s^-2
    l L = 1/1000 m^3
    pc = 1 parsec
    yr = 1 year
    rad = 1 radian
    Jy = 1/100000000000000000000000000 kg s^-2
    """
)
SYMBOLS = _table(
    """
    min mins = 60 s
    h hr hrs = 3600 s
    sec secs = 1 s
    in = 254/10000 m
    ft = 3048/10000 m
    yd = 9144/10000 m
    mi = 1609344/1000 m
    Å = 1/10000000000 m
    AU au = 149597870700 m
    ly = 9460730472580800 m
    lb lbs = 45359237/100000000 kg
    oz = 45359237/1600000000 kg
    cc = 1/1000000 m^3
    mph = 1609344/3600000 m s^-1
    kph kmph = 1000/3600 m s^-1
    erg ergs = 1/10000000 kg m^2 s^-2
    dyn dyne dynes = 1/100000 kg m s^-2
    G gauss = 1/10000 kg s^-2 A^-1
    atm = 101325 kg m^-1 s^-2
    Torr torr mmHg = 101325/760 kg m^-1 s^-2
    sr = 1 steradian
    usd USD = 1 dollar
    eur EUR = 1 euro
    rads = 1 radian
    deg = 1 degree
    arcmin = 1/60 degree
    arcsec as = 1/3600 degree
    mas = 1/3600000 degree
    rpm = 6 degree s^-1
    u amu Da = 1 dalton
    dB = 1 decibel
    mag mags = 1 magnitude
    dex = 1 dex
    M_sun = 1 solar-mass
    L_sun = 1 solar-luminosity
    R_sun = 1 solar-radius
    yrs = 1 year
    """
)
PREFIXED_WORDS = _table(
    """
    meter metre = 1 m
    gram = 1/1000 kg
    second = 1 s
    ampere amp = 1 A
    hertz = 1 s^-1
    newton = 1 kg m s^-2
    pascal = 1 kg m^-1 s^-2
    joule = 1 kg m^2 s^-2
    watt = 1 kg m^2 s^-3
    volt = 1 kg m^2 s^-3 A^-1
    coulomb = 1 A s
    farad = 1 A^2 s^4 kg^-1 m^-2
    henry = 1 kg m^2 s^-2 A^-2
    tesla = 1 kg s^-2 A^-1
    ohm = 1 kg m^2 s^-3 A^-2
    liter litre = 1/1000 m^3
    calorie = 4184/1000 kg m^2 s^-2
    parsec = 1 parsec
    mole = 1 mol
    """
)
WORDS = _table(
    """
    inch = 254/10000 m
    foot = 3048/10000 m
    yard = 9144/10000 m
    mile = 1609344/1000 m
    angstrom = 1/10000000000 m
    light-year lightyear = 9460730472580800 m
    pound = 45359237/100000000 kg
    ounce = 45359237/1600000000 kg
    tonne = 1000 kg
    ton = 1 ton
    minute = 60 s
    hour = 3600 s
    day = 86400 s
    week = 604800 s
    month = 1/12 year
    year = 1 year
    gallon = 473176473/125000000000 m^3
    quart = 473176473/500000000000 m^3
    pint = 473176473/1000000000000 m^3
    kelvin = 1 K
    dollar buck = 1 dollar
    cent penny = 1/100 dollar
    euro = 1 euro
    rupee = 1 rupee
    sterling = 1 sterling
    yen = 1 yen
    yuan = 1 yuan
    radian = 1 radian
    degree = 1 degree
    arcminute = 1/60 degree
    arcsecond = 1/3600 degree
    revolution = 360 degree
    steradian = 1 steradian
    electronvolt = 1602176634/10000000000000000000000000000 kg m^2 s^-2
    unit = 1 length
    acre = 316160658/78125 m^2
    hectare = 10000 m^2
    celsius = 1 celsius
    fahrenheit = 1 fahrenheit
    byte = 8 bit
    bit = 1 bit
    """
)
CELSIUS = Unit(Fraction(1), (("K", 1),), Fraction(27315, 100))
FAHRENHEIT = Unit(Fraction(5, 9), (("K", 1),), Fraction(45967, 100) * Fraction(5, 9))
CHINESE = {
    "个": Unit(Fraction(1), (("#piece", 1),)), "种": Unit(Fraction(1), (("#way", 1),)),
    "人": Unit(Fraction(1), (("#person", 1),)), "元": Unit(Fraction(1), (("yuan", 1),)),
    "米": Unit(Fraction(1), (("m", 1),)), "厘米": Unit(Fraction(1, 100), (("m", 1),)),
    "千米": Unit(Fraction(1000), (("m", 1),)), "千克": Unit(Fraction(1), (("kg", 1),)),
    "克": Unit(Fraction(1, 1000), (("kg", 1),)), "秒": Unit(Fraction(1), (("s", 1),)),
    "分钟": Unit(Fraction(60), (("s", 1),)), "小时": Unit(Fraction(3600), (("s", 1),)),
    "天": Unit(Fraction(86400), (("s", 1),)), "岁": Unit(Fraction(1), (("year", 1),)),
    "平方厘米": Unit(Fraction(1, 10000), (("m", 2),)), "平方米": Unit(Fraction(1), (("m", 2),)),
}  # fmt: skip
DEGREE = Unit(Fraction(1), (("degree", 1),))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NOUNS = _words(
    """
    person student child kid boy girl man woman adult teacher player friend worker passenger customer guest member
    voter soldier employee baby family couple player team class school company house home room floor building city
    game match point way time side solution pair triple number integer digit term value root zero element factor
    divisor multiple subset set function permutation combination arrangement possibility outcome case choice option
    path route word letter sentence page book chapter paper pen pencil notebook magazine newspaper photo picture
    apple orange banana pear peach plum grape cherry lemon lime melon watermelon strawberry blueberry mango pineapple
    egg cookie cake pie pizza candy chocolate cupcake muffin sandwich burger donut doughnut bread loaf slice piece
    tomato potato carrot onion bean nut seed flower rose tulip plant tree bush leaf branch fruit vegetable
    ball card coin marble bead button block tile brick toy doll puzzle ticket stamp sticker token chip die dice
    car bus truck train bicycle bike plane boat ship wheel tire seat chair table desk bed lamp window door shelf
    step edge vertex face corner diagonal triangle rectangle square circle cube polygon line segment region
    bag box bottle can jar basket bucket bowl plate cup glass spoon fork knife tablespoon teaspoon pack packet carton
    crate case container tank barrel roll sheet stick stone rock shell item thing object product package
    dog cat fish bird cow horse pig sheep chicken duck rabbit mouse goat lion tiger bear elephant monkey frog turtle
    animal pet ant bee spider bug insect butterfly shirt shoe sock hat dress coat pant jacket glove skirt sweater
    photon electron proton neutron atom molecule ion particle cell star planet galaxy wave cycle turn lap trip
    visit call message email question problem answer test exam mark grade vote goal run score hit inning minute-mile
    lesson song video movie show episode night shift round row column group trial toss roll attempt order
    gift present balloon ribbon flag candle crayon marker brush rope fence pole post nail screw gem jewel ring
    necklace bracelet stripe spot color colour shade inch-pound foot-pound people
    """
)
ADJECTIVES = _words(
    """
    different distinct possible total positive the of all such ordered real whole long tall wide high deep old
    away apart red blue green yellow white black big small new sold
    """
)
PLURALS = {
    "people": "person", "persons": "person", "children": "child", "men": "man", "women": "woman", "feet": "foot",
    "mice": "mouse", "geese": "goose", "dice": "die", "vertices": "vertex", "leaves": "leaf", "loaves": "loaf",
    "knives": "knife", "shelves": "shelf", "pennies": "penny", "boxes": "box", "buses": "bus", "potatoes": "potato",
    "tomatoes": "tomato", "inches": "inch", "lenses": "lens", "axes": "axis", "radii": "radius", "dress": "dress",
    "cookies": "cookie", "movies": "movie", "pies": "pie", "yen": "yen", "times": "time", "zeroes": "zero",
    "heroes": "hero", "mangoes": "mango", "hertz": "hertz", "henries": "henry", "celsius": "celsius",
    "calories": "calorie", "kilocalories": "kilocalorie", "cases": "case", "houses": "house", "horses": "horse",
    "roses": "rose", "classes": "class", "glasses": "glass", "matches": "match", "dishes": "dish", "glass": "glass",
    "class": "class", "plus": "plus", "series": "series", "species": "species", "halves": "half",
}  # fmt: skip
# Words behind the letter of a choice that deny it, doubt it or join it to another one.
DENIALS = _words(
    """
    and or nor not isn aren wasn doesn don didn can cannot couldn won wouldn no none never neither either both also but
    wrong incorrect false untrue invalid impossible excluded eliminated rejected ruled out maybe perhaps possibly
    probably unsure uncertain guess likely unlikely if unless except though although however rather instead otherwise
    is are was were be been being seems looks appears might may could would should must does do did has have had
    all any every each through to is't then so because since only unknown undetermined nope nah hmm wait actually
    """
)
# Words behind a number that make another value of it, deny it or join it to something: never a unit, never a thing.
VALUE_CHANGERS = _words(
    """
    hundred thousand million billion trillion dozen score half halve third quarter fourth fifth sixth seventh eighth
    ninth tenth hundredth thousandth millionth twelfth squared cubed factorial double doubled triple tripled twice
    thrice halved negative minus plus time times over divided root base mod modulo power percent pi tau infinity
    infinite zero below above under wrong incorrect false untrue maybe perhaps possibly probably unsure guess and or
    not if where for all when is are was be to than least most more less fewer but with which any except other
    otherwise no none never between only approximately about around roughly nearly almost nor either neither without
    off each every true yes correct right unknown undefined invalid impossible unless until before after ago
    reciprocal inverse opposite cosine sine tangent log exp sqrt radical imaginary complex complement exponent
    """
)
DECORATED = r"(?:angle|overline|overrightarrow|overleftrightarrow|vec|bar|hat|widehat) .*"  # names with a sign above


def takes_back(name: str) -> bool:
    """Whether the words of a name deny the value behind it or make another one of it ("not", "half of")."""
    if re.fullmatch(DECORATED, name):
        return False
    words = [word for word in re.findall("[A-Za-z]+", name.partition("_")[0]) if len(word) > 1 and not word.isupper()]
    return any(word.lower() in DENIALS or word.lower() in VALUE_CHANGERS for word in words)
