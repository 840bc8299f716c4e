"""Things that answers count, and words that stand before or behind them. In the singular, in lower case."""


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
