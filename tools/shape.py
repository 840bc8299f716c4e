"""Print the shape of the package: modules, sizes, names, imports, cycles. Exit 1 if a rule of the code base is broken.

Run: python tools/shape.py [--json]
"""

import ast
import json
import re
import statistics
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "zerolab"
MOST_MODULES = 234
MAY_REPEAT = {"__init__", "__main__", "command"}
# Words that only this project would know. Each has a standard word: see CONTRIBUTING.md.
PRIVATE_WORDS = re.compile(
    r"\b(Seat|Parcel|Inbox|Outbox|Verbs|heeding|heeded|hires?|hired|enters_G|battery|firewall|own_rows|Gone|Ahead)\b"
)


def module_name(path: Path) -> str:
    """The dotted name of a source file, packages by their own name."""
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(tree: ast.AST, known: set[str]) -> set[str]:
    """The modules of this package that a file imports, wherever the import stands."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known) or ({node.module} & known)
    return found


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (strongly connected components), by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while True:
                member = stack.pop()
                group.append(member)
                if member == node:
                    break
            if len(group) > 1:
                groups.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for node in sorted(edges):
        if node not in index:
            visit(node)
    return groups


def function_imports(tree: ast.AST) -> int:
    """How many import statements stand inside functions."""
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(n): n for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)}
    return len(inside)


def measure() -> dict[str, object]:
    """Every number and every broken rule, as one record."""
    paths = sorted(SOURCE.rglob("*.py"))
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    known = {module_name(path) for path in paths}
    edges = {module_name(path): imported_modules(tree, known) - {module_name(path)} for path, tree in trees.items()}
    packages: dict[str, set[str]] = defaultdict(set)
    for module, others in edges.items():
        here = ".".join(module.split(".")[:2])
        packages[here] |= {".".join(other.split(".")[:2]) for other in others} - {here, "zerolab"}
    packages.pop("zerolab", None)
    lines = {path: text.count("\n") for path, text in texts.items()}
    functions = [
        ((node.end_lineno or 0) - node.lineno + 1, f"{module_name(path)}.{node.name}")
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]
    names = Counter(path.stem for path in paths)
    return {
        "modules": len(paths),
        "median lines": statistics.median(lines.values()),
        "largest file": max((n, str(path.relative_to(ROOT))) for path, n in lines.items()),
        "largest function": max(functions),
        "imports inside functions": sum(map(function_imports, trees.values())),
        "duplicate basenames": sorted(name for name, n in names.items() if n > 1 and name not in MAY_REPEAT),
        "named like the standard library": sorted(set(names) & set(sys.stdlib_module_names) - {"__main__"}),
        "cycles between modules": cycles(edges),
        "cycles between packages": cycles(dict(packages)),
        "private words": [
            f"{path.relative_to(ROOT)}:{number}: {match.group()}"
            for path, text in texts.items()
            for number, line in enumerate(text.splitlines(), 1)
            if (match := PRIVATE_WORDS.search(line))
        ],
    }


MUST_BE_EMPTY = (
    "duplicate basenames",
    "named like the standard library",
    "cycles between modules",
    "cycles between packages",
    "private words",
)


def broken_rules(record: dict[str, object]) -> list[str]:
    """The rules that this record breaks, as lines."""
    broken = [f"{name}: {record[name]}" for name in MUST_BE_EMPTY if record[name]]
    if int(str(record["modules"])) > MOST_MODULES:
        broken.append(f"modules: {record['modules']}, at most {MOST_MODULES}")
    return broken


def main() -> int:
    record = measure()
    if "--json" in sys.argv:
        print(json.dumps(record, indent=2))
    else:
        for name, value in record.items():
            print(f"{name}: {len(value) if isinstance(value, list) else value}")
            for entry in value[:40] if isinstance(value, list) else []:
                print(f"    {entry}")
    return 1 if broken_rules(record) else 0


if __name__ == "__main__":
    raise SystemExit(main())
