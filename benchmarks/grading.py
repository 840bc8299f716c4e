"""How fast the grader is, and how much faster than Math-Verify on the same rows in the same run.

    python benchmarks/grading.py [--data ../shared/data/eval] [--rows 400]

Prints answers per second on numeric and on text answers, the latency of the five benchmarks' golds against perturbed
copies, and both graders' throughput (by the wall) on one sample. The first two count processor time, all of it in this
process: such answers need no worker. Start-up (the worker, sympy) is excluded by a warm-up; nothing is
cached between the timed parts.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

from zerolab.grading import grade
from zerolab.grading.equal import _known, verdict
from zerolab.grading.normalize import normalize, split_unit
from zerolab.grading.number import exact

BENCHMARKS = ("aime24", "amc", "math500", "minerva", "olympiadbench")


def forget() -> None:
    """Drop every cache, so that each timed row is decided anew."""
    _known.clear()
    for cached in (normalize, split_unit, exact):
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


def score(name: str, verdicts: list[bool], expected: list[bool]) -> None:
    right = sum(v == e for v, e in zip(verdicts, expected, strict=True))
    false_positives = sum(v and not e for v, e in zip(verdicts, expected, strict=True))
    print(f"golden cases, {name:<12} {right} of {len(expected)} right, {false_positives} false positives")


def golden() -> None:
    """Both graders on the project's own cases, whose conventions Math-Verify does not claim to share."""
    rows = golden_rows()
    expected = [e for *_, e in rows]
    score("zerolab", [grade(rf"\boxed{{{a}}}", g).correct for a, g, _ in rows], expected)
    try:
        from math_verify import parse, verify
    except ImportError:
        return
    score("math-verify", [verify(parse(rf"\boxed{{{g}}}"), parse(rf"\boxed{{{a}}}")) for a, g, _ in rows], expected)


def main() -> None:
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "eval"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=default, help="folder with the five benchmarks")
    parser.add_argument("--rows", type=int, default=400, help="rows of the comparison with Math-Verify")
    options = parser.parse_args()
    rng = random.Random(0)
    verdict(r"\arctan(2)", r"\frac{\pi}{2}-\arctan\frac12")  # starts the worker and loads sympy
    print(f"numeric answers      {rate(numeric_rows(40_000, rng), time.process_time):>9,.0f} /s and core")
    print(f"text answers         {rate(text_rows(40_000, rng), time.process_time):>9,.0f} /s and core")
    golden()
    if not options.data.is_dir():
        print(f"no benchmarks at {options.data}: latency and comparison left out")
        return
    rows = [(perturbed(g, rng), g) for g in golds(options.data)]
    times = latencies(rows)
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    print(f"golds against copies p50 {p50:.3f} ms   p99 {p99:.3f} ms   max {times[-1]:.1f} ms   ({len(times)} rows)")
    sample = rng.sample(rows, min(options.rows, len(rows)))
    ours = rate(sample)
    try:
        theirs = math_verify_rate(sample)
    except ImportError:
        print("math-verify is not installed: comparison left out")
        return
    print(f"same {len(sample)} rows        {ours:>9,.0f} /s here   {theirs:,.0f} /s math-verify   {ours / theirs:.1f}x")


if __name__ == "__main__":
    main()
