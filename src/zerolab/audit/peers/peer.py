"""A peer (a training library whose loss is measured) and the questions that it is asked.

A question is one optimizer step over responses whose lengths, rewards and groups we chose. The peer's file in peers/
answers in this process, or in an interpreter of its own.
"""

import dataclasses
import importlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zerolab.audit.peers.worker import answer
from zerolab.errors import UserError

Coefficients = list[np.ndarray]  # by response: -dLoss/dlogprob of each of its tokens, summed over the whole step


@dataclass(frozen=True)
class Case:
    """N responses in groups of `group_size` neighbours, one question each; everything on-policy."""

    lengths: tuple[int, ...]  # N, in tokens
    rewards: tuple[float, ...]  # N
    truncated: tuple[bool, ...]  # N; the others end with EOS
    group_size: int
    budget: int  # the longest response that could have been sampled
    micro_batches: int = 1  # equal parts whose gradients are accumulated
    order: int = 0  # 0: as listed; otherwise the seed of a shuffle before cutting
    ranks: int = 1  # data-parallel processes, with micro_batches each
    mismatch: tuple[tuple[float, ...], ...] | None = None  # N x L: log pi_old - log sampler
    logprobs: tuple[tuple[float, ...], ...] | None = None  # N x L: log pi for a function that looks; None: log 1/2

    def __post_init__(self) -> None:
        assert len(self.lengths) == len(self.rewards) == len(self.truncated)
        assert len(self.lengths) % (self.group_size * self.ranks) == 0
        assert len(self.lengths) % (self.micro_batches * self.ranks) == 0
        assert max(self.lengths) <= self.budget

    def replace(self, **changes: Any) -> "Case":
        return dataclasses.replace(self, **changes)

    def record(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def groups(self) -> np.ndarray:
        return np.arange(len(self.lengths)) // self.group_size


def size(coefficients: Coefficients) -> np.ndarray:
    """Mean absolute coefficient of a token, by response."""
    return np.array([np.abs(c).mean() for c in coefficients])


def change(found: Coefficients, expected: Coefficients) -> float:
    """Relative distance of two answers to the same question."""
    a, b = np.concatenate(found), np.concatenate(expected)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def balanced(lengths: Sequence[Sequence[int]], budget: int) -> Case:
    """Groups in which every length listed is right once and wrong once, so that all advantages have one size."""
    return Case(
        lengths=tuple(length for group in lengths for length in (*group, *group)),
        rewards=tuple(reward for group in lengths for reward in (1.0, 0.0) for _ in group),
        truncated=(False,) * (2 * sum(map(len, lengths))),
        group_size=2 * len(lengths[0]),
        budget=budget,
    )


HERE = Path(__file__).parent
# Not `python FILE`: that would put peers/ on the path, where trl.py hides the package it wants to import.
BOOT = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
TIMEOUT = 1800.0  # seconds for all cases of one peer


@dataclass(frozen=True)
class Peer:
    """name           how reports call it
    module         file in peers/ with `version(options)` and `measure(options, case)`; it imports nothing of zerolab
    options        what that file needs to know; JSON values only
    about          the settings in a few words
    unable         rows it cannot be asked for, and why
    python         interpreter to ask it in; None: this process
    micro_batches  into which the step of all other rows is cut
    group_size     of the rows on pass rate
    smallest       responses that a micro-batch has to hold together
    """

    name: str
    module: str
    options: Mapping[str, Any]
    about: str = ""
    unable: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None
    micro_batches: int = 1
    group_size: int = 8
    smallest: int = 1


def measure(jobs: Sequence[tuple[Peer, Mapping[str, Case]]]) -> list[tuple[str, dict[str, Coefficients]]]:
    """For every (peer, cases): the peer's version, and its coefficients for every case.

    Peers of one file and interpreter share a process. Raises UserError when interpreter or peer are missing, when it
    refuses, and when its code fails.
    """
    answers: list[dict[str, Any]] = [{"cases": {}} for _ in jobs]
    for (module, python, ranks), numbers in _batches(jobs).items():
        asked = [
            {"options": dict(peer.options), "cases": {n: c.record() for n, c in cases.items() if c.ranks == ranks}}
            for peer, cases in (jobs[i] for i in numbers)
        ]
        name = jobs[numbers[0]][0].name if len(numbers) == 1 else module
        found = _elsewhere(name, module, asked, python, ranks) if python else _here(module, asked)
        for i, one in zip(numbers, found, strict=True):
            if "refused" in one:
                raise UserError(f"{jobs[i][0].name}: {one['refused']}")
            answers[i] = {"version": one["version"], "cases": answers[i]["cases"] | one["cases"]}
    return [
        (one["version"], {name: [np.array(row) for row in rows] for name, rows in one["cases"].items()})
        for one in answers
    ]


def _batches(jobs: Sequence[tuple[Peer, Mapping[str, Case]]]) -> dict[tuple[str, str | None, int], list[int]]:
    """Numbers of the jobs that share a process (or, with several ranks, a set of them)."""
    found: dict[tuple[str, str | None, int], list[int]] = {}
    for i, (peer, cases) in enumerate(jobs):
        for ranks in sorted({case.ranks for case in cases.values()}):
            found.setdefault((peer.module, peer.python, ranks), []).append(i)
    return found


def _here(module: str, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    peer = importlib.import_module(f"zerolab.audit.peers.{module}")
    return [answer(peer, **job) for job in jobs]


def _elsewhere(
    name: str, module: str, jobs: Sequence[Mapping[str, Any]], python: str, ranks: int
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as place:
        folder, port = Path(place), _free_port()
        job = {"module": str(HERE / f"{module}.py"), "jobs": jobs}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        processes = [_start(python, folder, _environment(rank, ranks, port)) for rank in range(ranks)]
        try:
            for process in processes:
                process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise UserError(f"{name}: no answer within {TIMEOUT:.0f} s") from None
        finally:
            for process in processes:
                process.kill()
                process.wait()
        if not (folder / "answer.json").is_file():
            lines = (folder / "stderr").read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "it ended without a word")
            raise UserError(f"{name}: its code failed under {python}: {last[:300]}")
        return list(json.loads((folder / "answer.json").read_text(encoding="utf-8")))


def _start(python: str, folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        with (folder / "stderr").open("ab") as errors:
            return subprocess.Popen(
                [python, "-c", BOOT, str(HERE / "worker.py"), str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
            )
    except OSError as error:
        raise UserError(f"--python {python}: {error.strerror}; give the path of a Python") from None


def _environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """CPU, one thread, no network; the usual variables of a process group when there is one."""
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if ranks > 1:
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
        environment |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_PORT": str(port)}
        if any(name == "lo" for _, name in socket.if_nameindex()):  # a host name that resolves nowhere stops gloo
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return environment


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
