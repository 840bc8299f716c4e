"""Tables of the notation: Unicode signs, LaTeX commands, units and words that answers are written with."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What one sign outside ASCII means, written in LaTeX. Superscripts, subscripts and fractions come from Unicode itself.
SIGNS = {
    "√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "∞": r"\infty ", "−": "-", "–": "-", "—": "-", "‐": "-",
    "‑": "-", "﹣": "-", "－": "-", "×": r"\times ", "✕": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ",
    "∙": r"\cdot ", "•": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "°": "°", "º": "°", "˚": "°", "π": r"\pi ",
    "𝜋": r"\pi ", "≤": r"\le ", "≦": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "≧": r"\ge ", "⩾": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ", "∖": r"\setminus ", "ℝ": r"\R ", "∠": r"\angle ", "′": "'", "″": "''", "’": "'",
    "‘": "'", "“": '"', "”": '"', "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "…": "...", "α": r"\alpha ",
    "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ", "θ": r"\theta ", "λ": r"\lambda ",
    "μ": r"\mu ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\phi ", "ω": r"\omega ",
    "Δ": r"\Delta ", "ħ": r"\hbar ", "€": "", "£": "", "¥": "", "₹": "", "¢": "", "，": ",", "：": ":", "（": "(",
    "）": ")", "％": "%", "∨": r"\lor ", "∧": r"\land ", "∗": "*", "！": "!",
}  # fmt: skip

GREEK = _words(
    """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon phi
    chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega varepsilon vartheta varrho varphi
    varsigma
    """
)
ALIASES = {"varepsilon": "epsilon", "vartheta": "theta", "varrho": "rho", "varphi": "phi", "varsigma": "sigma"}
OTHER_SYMBOLS = _words(
    """
    hbar ell mho partial nabla odot oplus star ast aleph Re Im triangle square circ bullet
    """
)

FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "sinh": "sinh",
    "cosh": "cosh", "tanh": "tanh", "coth": "coth", "sech": "sech", "csch": "csch", "arcsin": "arcsin",
    "arccos": "arccos", "arctan": "arctan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "arccot": "arccot", "cosec": "csc", "tg": "tan", "ctg": "cot", "arctg": "arctan", "ln": "log", "log": "log",
    "lg": "lg", "exp": "exp", "arcsinh": "arsinh", "arccosh": "arcosh", "arctanh": "artanh",
}  # fmt: skip

RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", r"\le": "<=", r"\leq": "<=",
    r"\leqslant": "<=", r"\ge": ">=", r"\geq": ">=", r"\geqslant": ">=", r"\lt": "<", r"\gt": ">", r"\ne": "!=",
    r"\neq": "!=", r"\in": "in", r"\approx": "~", r"\simeq": "~", r"\cong": "~", r"\equiv": "=", "==": "=",
}  # fmt: skip

# Words that are units wherever they stand behind a number. A single letter is a unit only inside \text{}.
UNITS = _words(
    """
    cm mm km dm nm um kg mg lb lbs oz ft yd mi mph kph km/h m/s km/s hr hrs min mins sec secs ms ml dl Hz kHz
    MHz GHz kcal cal kW kWh eV keV MeV GeV erg ergs Pa kPa MPa atm mol kmol rad rads sr sq cu cc meter meters
    metre metres centimeter centimeters centimetre centimetres millimeter millimeters kilometer kilometers
    kilometre kilometres inch inches foot feet yard yards mile miles second seconds minute minutes hour hours
    day days week weeks month months year years yr yrs dollar dollars cent cents penny pennies euro euros pound
    pounds rupee rupees usd eur gram grams kilogram kilograms milligram milligrams ton tons tonne tonnes ounce
    ounces liter liters litre litres milliliter milliliters gallon gallons quart quarts pint pints cup cups unit
    units square cubic sq. degree degrees radian radians people person persons student students child children
    boy boys girl girls man men woman women player players team teams game games point points way ways time
    times side sides solution solutions pair pairs triple triples number numbers integer integers digit digits
    term terms value values root roots apple apples orange oranges egg eggs book books page pages ball balls
    card cards coin coins marble marbles car cars tree trees seat seats step steps edge edges vertex vertices
    face faces triangle triangles square squares circle circles cube cubes block blocks tile tiles bag bags box
    boxes piece pieces slice slices item items bottle bottles toy toys ticket tickets bus buses dog dogs cat
    cats fish per newton newtons joule joules watt watts volt volts ampere amperes ohm ohms kelvin celsius
    fahrenheit hertz pascal pascals angstrom angstroms light-years parsec parsecs pc kpc Mpc mole moles arcsec
    arcseconds positive total hours/day gallons/minute miles/hour
    """
)
LETTER_UNITS = _words(
    """
    m g s h l L N J W V A C F K T H Z
    """
)
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
CONNECTIVES = _words(
    """
    hundred thousand million billion trillion dozen half third quarter squared cubed factorial double negative times
    over divided root roots base mod wrong incorrect maybe
    and or not if where for all when is are to than least most more less fewer but with which any except other
    otherwise no none never between only approximately about nor either neither without minus plus
    """
)
# One name for each way to write a unit whose confusion would make a different answer.
UNIT_NAMES = {
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), "cm"),
    **dict.fromkeys(("mm", "millimeter", "millimeters"), "mm"),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), "km"),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), "m"),
    **dict.fromkeys(("inch", "inches"), "inch"),
    **dict.fromkeys(("ft", "foot", "feet"), "foot"),
    **dict.fromkeys(("yd", "yard", "yards"), "yard"),
    **dict.fromkeys(("mi", "mile", "miles"), "mile"),
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "second"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "minute"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), "hour"),
    **dict.fromkeys(("day", "days"), "day"),
    **dict.fromkeys(("week", "weeks"), "week"),
    **dict.fromkeys(("month", "months"), "month"),
    **dict.fromkeys(("yr", "yrs", "year", "years"), "year"),
    **dict.fromkeys(("dollar", "dollars", "usd"), "dollar"),
    **dict.fromkeys(("cent", "cents", "penny", "pennies"), "cent"),
    **dict.fromkeys(("mg", "milligram", "milligrams"), "mg"),
    **dict.fromkeys(("kg", "kilogram", "kilograms"), "kg"),
    **dict.fromkeys(("gram", "grams"), "gram"),
    **dict.fromkeys(("ml", "milliliter", "milliliters"), "ml"),
    **dict.fromkeys(("liter", "liters", "litre", "litres"), "liter"),
}
