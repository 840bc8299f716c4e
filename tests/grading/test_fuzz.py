"""Minutes of hostile text. Run by `make slow`; ZEROLAB_FUZZ_SECONDS sets how long."""

import os
import random
import time

import pytest

from zerolab.grading import grade, grade_batch, is_correct
from zerolab.grading.extract import MODES

SECONDS = float(os.environ.get("ZEROLAB_FUZZ_SECONDS", "180"))
PIECES = [
    r"\frac", r"\sqrt", r"\boxed{", r"\left(", r"\right)", r"\text{", r"\begin{pmatrix}", r"\end{pmatrix}", r"\\",
    "&", r"\cup", r"\pm", r"\log_", r"\sin^", r"\binom", r"\infty", r"\pi", r"\{", r"\}", "{", "}", "(", ")", "[",
    "]", "^", "_", "!", "|", ",", "+", "-", "*", "/", "=", "<", ">", "%", "°", "'", "$", "x", "y", "n", "e", "i",
    "1", "2", "9", "0.5", "10^{10}", "99999", "1e9", r"\overline{3}", " ", "\n", "\x00", "\ud800", "\u202e", "½",
    "²", "√", "∞", "<answer>", "</answer>", "</think> <answer>", r"\sum_{i=1}^n", r"\int_0^1", r"\mathbb{R}",
    r"\le", r"\in", r"\approx", r"\circ", "and", "or", "where", "cm", "percent", ":", r"\sqrt[3]{", r"\lfloor",
    r"\rceil", r"\frac{1}{2}", "x^2", "(1,2)", "52_8", "4:30", "A", "1,000", "....",
]  # fmt: skip
GOLDS = [
    "7",
    r"\frac{1}{2}",
    "x^2+1",
    "(1,2)",
    "[0,1)",
    "1, 2",
    r"\{1,2\}",
    r"\text{Evelyn}",
    "x=5",
    r"\sqrt{2}",
    "52_8",
    "4:30",
    "C",
]


def hostile(rng: random.Random) -> str:
    """Random bytes, random notation, truncated or repeated notation, deep nesting, very long text."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(400)).decode("utf-8", "surrogateescape")
    if kind == 1:
        return "".join(
            chr(rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000))))
            for _ in range(rng.randrange(80))
        )
    if kind == 2:
        return rng.choice(PIECES) * rng.randrange(1, 3000)
    if kind == 3:
        opener, closer = rng.choice(
            (("(", ")"), ("{", "}"), (r"\sqrt{", "}"), (r"\frac{1}{", "}"), ("-(", ")"), ("|", "|"), (r"\{", r"\}"))
        )
        depth = rng.randrange(1, 400)
        return opener * depth + rng.choice(PIECES) + closer * (depth - rng.randrange(2))
    if kind == 4:
        tower = "^{".join(str(rng.randrange(2, 10 ** rng.randrange(1, 6))) for _ in range(rng.randrange(2, 6)))
        return tower + "}" * tower.count("{")
    text = "".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 40)))
    if kind == 5:
        return text[: rng.randrange(len(text) + 1)]
    if kind == 6 and rng.random() < 0.05:
        return (text * (1_000_000 // len(text) + 1))[:1_000_000]
    return text


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_hostile_text_gets_a_verdict_in_time(seed: int) -> None:
    rng = random.Random(seed)
    end = time.monotonic() + SECONDS / 2
    graded = timeouts = 0
    while time.monotonic() < end:
        value, gold = hostile(rng), rng.choice(GOLDS)
        start = time.monotonic()
        verdict = grade(rf"\boxed{{{value}}}", gold)
        reasons = [verdict.reason] + [grade(value, gold, mode).reason for mode in MODES]
        is_correct(value, gold)
        grade(r"\boxed{7}", value or "0")
        assert set(reasons) <= {"correct", "wrong", "unformatted", "timeout"}, (reasons, value)
        assert time.monotonic() - start < 20, value[:200]
        timeouts += reasons.count("timeout")
        graded += 1
    assert graded > 100
    assert timeouts <= graded / 1000, f"{timeouts} of {graded}: the caps should decide before the clock"


@pytest.mark.slow
def test_hostile_text_changes_no_verdict_of_its_batch() -> None:
    rng = random.Random(7)
    for _ in range(20):
        bad = [(rf"\boxed{{{hostile(rng)}}}", rng.choice(GOLDS)) for _ in range(40)]
        good = [(rf"\boxed{{x+{k}}}", f"{k}+x") for k in range(40)] + [
            (rf"\boxed{{x+{k}}}", f"{k}-x") for k in range(40)
        ]
        rows = bad + good
        rng.shuffle(rows)
        grades = grade_batch([r for r, _ in rows], [g for _, g in rows])
        for (response, gold), verdict in zip(rows, grades, strict=True):
            if (response, gold) in good:
                assert verdict.correct is ("+x" in gold), (response, gold, verdict)
