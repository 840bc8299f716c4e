"""The backstop: workers that are killed and replaced, from threads, from asyncio and from other processes."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from zerolab.grading import grade, grade_batch, is_correct
from zerolab.grading.sandbox import Pool, Worker, WorkerDied, WorkerTimeout, pool

BOMBS = [
    "9^{9^{9}}", "9^{9^{9^{9^9}}}", "10^{10^{10^{10}}}", "9**9**9**9", "2^{2^{2^{2^{2^{2}}}}}", "(((9!)!)!)!",
    "100000!", "(10^9)!", r"\binom{10^9}{5 \cdot 10^8}", "1e999999999", "10^{-10^{10}}", "(x+y+z+w)^{500}",
    "(x+1)^{10^9}", r"\sqrt[10^{100}]{2}", r"(\sqrt2+\sqrt3+\sqrt5+\sqrt7+\sqrt{11}+\sqrt{13})^{50}",
    "(a+b+c+d+e+f+g+h)^{40}", r"\cos(10^{10^{10}})", r"\lfloor 10^{10^{10}} \rfloor", "x^{x^{x^{x^x}}}",
    "e^{e^{e^{e^{10}}}}", r"\sqrt{10^{4000}+1}", "(" * 500 + "1" + ")" * 500, r"\frac{" * 300 + "1" + "}{2}" * 300,
    "{" * 900 + "1" + "}" * 900, r"\sqrt{1+" * 38 + "1" + "}" * 38, "1+" * 1900 + "1", "-" * 3000 + "1", "9" * 3900,
    "1," * 1900, "|" * 900, r"\pm 1" * 60, "x=" * 500 + "1", r"\frac{1}{2}" * 150, "2^{1/997}" * 30,
    r"\sin(" * 39 + "x" + ")" * 39, "7!" * 200, "(1+\\sqrt2)^{199}(1-\\sqrt2)^{199}",
]  # fmt: skip
PAYLOADS = [
    "__import__('os').system('touch {0}')", "exec(\"open('{0}','w')\")", "eval(\"open('{0}','w')\")",
    "open('{0}','w').close()", "().__class__.__bases__[0].__subclasses__()[0]('{0}')",
    r"\text{{__import__('os').system('touch {0}')}}", r"\input{{{0}}}", r"\write18{{touch {0}}}", "$(touch {0})",
    "`touch {0}`", "; touch {0}", "lambda: open('{0}','w')", r"\operatorname{{open}}('{0}','w')",
    "S(\"open('{0}','w')\")", "Symbol('x').func(open('{0}','w'))", "\n\"load\"\n[\"{0}\"]",
]  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_a_bomb_is_wrong_at_once_and_by_its_caps(bomb: str) -> None:
    for gold in ("7", r"\sqrt{2}", "x+1"):
        start = time.monotonic()
        verdict = grade(rf"\boxed{{{bomb}}}", gold)
        assert verdict.reason in ("wrong", "unformatted"), verdict  # never timeout: the caps decide before the clock
        assert time.monotonic() - start < 3.0
    assert grade(r"\boxed{7}", bomb).correct is False


def test_no_payload_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for payload in PAYLOADS:
        text = payload.format(marker)
        for gold in ("1", text + " ", r"\sqrt{2}", "x"):
            grade(rf"\boxed{{{text}}}", gold)
            is_correct(text, gold)
            grade(r"\boxed{1}", text)
    assert not marker.exists()


def test_a_worker_that_hangs_is_killed_and_replaced() -> None:
    workers = Pool(1)
    assert workers.ask("x+x", "2x", False, 5.0)[0] == "same"
    worker = workers.idle.get()
    assert worker is not None
    os.kill(worker.process.pid, signal.SIGSTOP)  # as if it computed forever
    workers.idle.put(worker)
    start = time.monotonic()
    with pytest.raises(WorkerTimeout):
        workers.ask("x+x", "2x", False, 0.3)
    assert 0.25 < time.monotonic() - start < 2.0
    assert worker.process.poll() is not None
    assert workers.ask("x+x", "2x", False, 5.0)[0] == "same"
    workers.close()


def test_an_overrun_leaves_the_other_verdicts_alone() -> None:
    assert grade(r"\boxed{x+x}", "2x").correct
    worker = pool().idle.get()
    assert worker is not None
    os.kill(worker.process.pid, signal.SIGSTOP)
    pool().idle.put(worker)
    grades = [grade(rf"\boxed{{x+x+{k}}}", f"2x+{k}") for k in range(12)]
    assert [g.reason for g in grades] == ["timeout"] + ["correct"] * 11
    assert max(g.milliseconds for g in grades) < 3000
    assert grade(r"\boxed{x+x+0}", "2x+0").correct  # the overrun was not kept


def test_a_worker_that_dies_is_an_error_and_replaced() -> None:
    workers = Pool(1)
    workers.ask("x+x", "2x", False, 5.0)
    worker = workers.idle.get()
    assert worker is not None
    worker.process.kill()
    workers.idle.put(worker)
    with pytest.raises(WorkerDied):
        workers.ask("x+x", "2x", False, 5.0)
    assert workers.ask("x+x", "2x", False, 5.0)[0] == "same"
    workers.close()


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="reads the limits of a process from /proc")
def test_a_worker_has_limits_on_memory_and_cpu_time() -> None:
    worker = Worker()
    worker.ask("x+x", "2x", False, False, 1.0)
    limits = Path(f"/proc/{worker.process.pid}/limits").read_text().splitlines()
    soft = {line[:25].strip(): line[26:46].strip() for line in limits}
    worker.kill()
    assert int(soft["Max address space"]) <= 2 << 30
    assert int(soft["Max cpu time"]) <= 10


def test_verdicts_do_not_depend_on_the_number_of_workers() -> None:
    pairs = [
        ("x+x", "2x"),
        ("x", "y"),
        (r"\sqrt8", r"2\sqrt2"),
        ("(1,2)", "(2,1)"),
        ("9^{9^9}", "1"),
        (r"\sin x", r"\cos x"),
    ]
    answers = []
    for size in (1, 3):
        workers = Pool(size)
        with ThreadPoolExecutor(6) as threads:
            answers.append(list(threads.map(lambda p, w=workers: w.ask(*p, False, 5.0), pairs * 3)))
        workers.close()
    assert answers[0] == answers[1]


def test_in_threads_and_in_asyncio() -> None:
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda k=k: results.append(is_correct(rf"\boxed{{x+{k}}}", f"{k}+x"))) for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8

    async def all_at_once() -> list:
        jobs = [asyncio.to_thread(grade, rf"\boxed{{y+{k}}}", f"{k}+y") for k in range(8)]
        return [grade(r"\boxed{z+1}", "1+z"), *await asyncio.gather(*jobs)]

    assert all(g.correct for g in asyncio.run(all_at_once()))


def _in_a_child(k: int) -> bool:
    return is_correct(rf"\boxed{{x+{k}}}", f"{k}+x") and not is_correct(r"\boxed{x}", "y")


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_in_child_processes(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no start method {method} here")
    assert _in_a_child(0)  # a pool exists in the parent
    context = multiprocessing.get_context(method)
    with context.Pool(1) as children:
        assert children.map(_in_a_child, [1, 2]) == [True, True]
    assert _in_a_child(3)


def test_workers_end_with_their_parent() -> None:
    code = (
        "from zerolab.grading.sandbox import pool; from zerolab.grading import grade;"
        "grade(r'\\boxed{x+x}', '2x'); w = pool().idle.get(); print(w.process.pid, flush=True);"
        "import os; os._exit(1)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().split()[2] == "Z":
            return  # dead, and only not yet collected by init
        time.sleep(0.05)
    pytest.fail("the worker outlived its parent")


def test_importing_the_grader_is_light() -> None:
    code = "import sys, zerolab.grading; print([m for m in ('torch', 'sympy', 'mpmath') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "[]"


def test_a_batch_with_bombs_takes_no_longer_than_its_deadlines() -> None:
    responses = [rf"\boxed{{{b}}}" for b in BOMBS] + [rf"\boxed{{{k}/2}}" for k in range(50)]
    golds = ["1/2"] * len(BOMBS) + [rf"\frac{{{k}}}{{2}}" for k in range(50)]
    start = time.monotonic()
    grades = grade_batch(responses, golds)
    assert [g.correct for g in grades] == [False] * len(BOMBS) + [True] * 50
    assert time.monotonic() - start < 20


def test_a_warm_pool_has_a_worker_with_sympy_before_the_first_question() -> None:
    workers = Pool(2)
    workers.warm().join(60)
    worker = workers.idle.queue[-1]  # the one that the next question takes
    assert worker is not None
    assert worker.loaded == {"confirm"}
    assert workers.ask("x+1", "1+x", False, 5.0)[0] == "same"
    assert workers.idle.queue[-1] is worker
    assert workers.idle.queue[0] is None  # no other one was started
    workers.close()
