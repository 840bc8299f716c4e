"""Right answers in every spelling are right, and none of them is right any more after one change by rule."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_answers import MAKERS
from mutations import mutate

from zerolab.grading import equal, sandbox

BENCHMARKS = ("aime24", "amc", "math500", "minerva", "olympiadbench")
MUTATIONS = int(os.environ.get("ZEROLAB_MUTATIONS", "100000"))


@pytest.mark.parametrize("kind", MAKERS)
def test_an_answer_and_its_other_spellings_agree(kind: str) -> None:
    rng = random.Random(kind)
    for _ in range(60):
        case = MAKERS[kind](rng)
        assert equal(case.answer, case.gold), case
        assert equal(case.gold, case.gold), case


@pytest.mark.parametrize("kind", MAKERS)
def test_a_changed_answer_is_never_right(kind: str) -> None:
    rng = random.Random(kind)
    for _ in range(150):
        case = MAKERS[kind](rng)
        wrong = mutate(rng, case)
        assert not equal(wrong, case.gold), (wrong, case.gold)


@pytest.mark.slow
def test_no_mutation_of_many_is_called_correct(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(20)
    start = time.perf_counter()
    accepted = []
    for _ in range(MUTATIONS):
        case = MAKERS[rng.choice(list(MAKERS))](rng)
        wrong = mutate(rng, case)
        if equal(wrong, case.gold):
            accepted.append((case.kind, wrong, case.gold))
    with capsys.disabled():
        rate = MUTATIONS / (time.perf_counter() - start)
        print(f"\n{MUTATIONS:,} mutated answers, {rate:,.0f} per second, {len(accepted)} accepted")
    assert accepted == []


@pytest.mark.slow
def test_no_gold_is_right_after_a_change_of_its_text(shared: Path) -> None:
    """All golds of the benchmarks with another digit, another letter, a denial, an addition."""
    rng = random.Random(21)
    accepted = []
    for name in BENCHMARKS:
        for line in (shared / "eval" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            answer = json.loads(line)["answer"]
            for gold in map(str, answer if isinstance(answer, list) else [answer]):
                changed = [
                    rf"\text{{not }}{gold}",
                    rf"{gold}, 77",
                    rf"{gold} \text{{ or }} 77",
                    rf"m+n = 10^7+1 = {gold}",
                ]
                digits = [k for k, c in enumerate(gold) if c.isdigit()]
                for k in rng.sample(digits, min(3, len(digits))):
                    other = str((int(gold[k]) + rng.randint(1, 9)) % 10)
                    changed.append(gold[:k] + other + gold[k + 1 :])
                accepted += [(text, gold) for text in changed if equal(text, gold)]
    assert accepted == []


def test_the_grader_needs_no_torch(tmp_path: Path) -> None:
    """It imports and decides, in this process and in its worker, where importing torch fails."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    code = (
        "from zerolab.grading import equal, grade\n"
        "assert equal('x^2-1', '(x-1)(x+1)')\n"
        "assert not equal('x^2-1', '(x-1)(x+2)')\n"
        r"assert grade(r'so \boxed{1/2}', '0.5').correct" + "\n"
        r"assert equal(r'\cos 36^\circ', r'\frac{1+\sqrt5}{4}')" + "\n"
        "try:\n    import torch\nexcept ImportError:\n    print('done')\n"
    )
    source = Path(sandbox.__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{source}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout == "done\n", done.stderr
