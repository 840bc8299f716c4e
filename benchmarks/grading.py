"""How fast the grader is, and how much faster than Math-Verify on the same rows in the same run.

    python benchmarks/grading.py [--data ../shared/data/eval] [--rows 400]

Prints, and writes as JSON, answers per second on numeric and on text answers, the latency of the five benchmarks'
golds against perturbed copies, and both graders' throughput (by the wall) on one sample. The first two count processor
time, all of it in this process: such answers need no worker. Start-up (the worker, sympy) is excluded by a warm-up;
nothing is cached between the timed parts.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import record
from zerolab.grading import grade
from zerolab.grading.equal import _known, verdict
from zerolab.grading.normalize import exact, normalize
from zerolab.grading.units import split_measure

Figures = dict[str, float]
BENCHMARKS = ("aime24", "amc", "math500", "minerva", "olympiadbench")


def forget() -> None:
    """Drop every cache, so that each timed row is decided anew."""
    _known.clear()
    for cached in (normalize, split_measure, exact):
        cached.cache_clear()


def golds(folder: Path) -> list[str]:
    found = []
    for name in BENCHMARKS:
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            answer = json.loads(line)["answer"]
            found += [str(a) for a in (answer if isinstance(answer, list) else [answer])]
    return found


def perturbed(gold: str, rng: random.Random) -> str:
    """The same gold in another spelling, or with one digit changed."""
    text = gold.strip()
    change = rng.randrange(5)
    if change == 0:
        return text.replace(r"\frac", r"\dfrac").replace(" ", "")
    if change == 1:
        return rf"\left({text}\right)" if "," not in text and "=" not in text else f" {text} "
    if change == 2:
        return f"0+{text}" if text[:1].isalnum() and "," not in text and "=" not in text else f"${text}$"
    if change == 3:
        return text + "."
    digits = [k for k, c in enumerate(text) if c.isdigit()]
    if not digits:
        return text + "+1"
    k = rng.choice(digits)
    return text[:k] + str((int(text[k]) + 1) % 10) + text[k + 1 :]


def rate(rows: list[tuple[str, str]], clock: Callable[[], float] = time.perf_counter) -> float:
    """Answers per second of one thread, by a clock. The processor's clock counts this process only."""
    forget()
    start = clock()
    for answer, gold in rows:
        grade(rf"The answer is \boxed{{{answer}}}.", gold)
    return len(rows) / (clock() - start)


def numeric_rows(n: int, rng: random.Random) -> list[tuple[str, str]]:
    rows = []
    for _ in range(n):
        k = rng.randrange(-(10**6), 10**6)
        spelled = rng.choice((str(k), f"{k:,}", f"{k}.0", rf"\frac{{{2 * k}}}{{2}}", f"{k / 100:.2f}"))
        rows.append((spelled, str(k + rng.randrange(2))))
    return rows


def text_rows(n: int, rng: random.Random) -> list[tuple[str, str]]:
    def word() -> str:
        return "".join(rng.choices("abcdefghijklmnoprstu", k=8))

    return [(rf"\text{{{(w := word())}}}", w if rng.randrange(2) else word()) for _ in range(n)]


def latencies(rows: list[tuple[str, str]]) -> list[float]:
    """Milliseconds for each row, sorted."""
    forget()
    times = []
    for answer, gold in rows:
        start = time.perf_counter()
        grade(rf"\boxed{{{answer}}}", gold)
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)


def math_verify_rate(rows: list[tuple[str, str]]) -> float:
    from math_verify import parse, verify

    start = time.perf_counter()
    for answer, gold in rows:
        verify(parse(rf"\boxed{{{gold.strip()}}}"), parse(rf"\boxed{{{answer}}}"))
    return len(rows) / (time.perf_counter() - start)


def golden_rows() -> list[tuple[str, str, bool]]:
    """(answer, gold, expected) of the project's own cases."""
    path = Path(__file__).resolve().parent.parent / "tests" / "golden" / "grading.txt"
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if line[:2] in ("+ ", "- ") and " :: " in line
    ]
    return [(*line[2:].split(" :: "), line[0] == "+") for line in lines]  # type: ignore[misc]


def golden() -> Figures:
    """Both graders on the project's own cases, whose conventions Math-Verify does not claim to share."""
    rows = golden_rows()
    graders = {"zerolab": lambda a, g: grade(rf"\boxed{{{a}}}", g).correct}
    try:
        from math_verify import parse, verify
    except ImportError:
        pass
    else:
        graders["math-verify"] = lambda a, g: verify(parse(rf"\boxed{{{g}}}"), parse(rf"\boxed{{{a}}}"))
    found: Figures = {"golden cases": len(rows)}
    for name, correct in graders.items():
        verdicts = [(correct(a, g), e) for a, g, e in rows]
        found[f"golden cases right, {name}"] = sum(v == e for v, e in verdicts)
        found[f"golden cases with a false positive, {name}"] = sum(v and not e for v, e in verdicts)
    return found


def on_benchmarks(folder: Path, count: int, rng: random.Random) -> Figures:
    """Latency of the five benchmarks' golds against perturbed copies, and both graders on one sample of them."""
    rows = [(perturbed(g, rng), g) for g in golds(folder)]
    times = latencies(rows)
    found: Figures = {
        "golds against copies, rows": len(rows),
        "golds against copies, p50 ms": times[len(times) // 2],
        "golds against copies, p99 ms": times[int(len(times) * 0.99)],
        "golds against copies, max ms": times[-1],
    }
    sample = rng.sample(rows, min(count, len(rows)))
    ours = found["same sample, answers/s, zerolab"] = rate(sample)
    try:
        found["same sample, answers/s, math-verify"] = math_verify_rate(sample)
    except ImportError:
        return found
    return found | {"times as fast as math-verify": ours / found["same sample, answers/s, math-verify"]}


def main() -> None:
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "eval"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=default, help="folder with the five benchmarks")
    parser.add_argument("--rows", type=int, default=400, help="rows of the comparison with Math-Verify")
    parser.add_argument("--json", type=Path, help="write the figures here, not into benchmarks/results")
    options = parser.parse_args()
    rng = random.Random(0)
    verdict(r"\arctan(2)", r"\frac{\pi}{2}-\arctan\frac12")  # starts the worker and loads sympy
    found: Figures = {
        "numeric answers/s and core": rate(numeric_rows(40_000, rng), time.process_time),
        "text answers/s and core": rate(text_rows(40_000, rng), time.process_time),
        **golden(),
    }
    if options.data.is_dir():
        found |= on_benchmarks(options.data, options.rows, rng)
    else:
        print(f"no benchmarks at {options.data}: latency and comparison left out")
    for name, value in found.items():
        print(f"{name:<50} {value:>12,.3f}" if value < 100 else f"{name:<50} {value:>12,.0f}")
    record.write("grading", found, options.json)


if __name__ == "__main__":
    main()
