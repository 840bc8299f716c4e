"""The process behind sandbox.py: one JSON line in, one JSON line out, under limits on memory and CPU time.

A question is [answer, gold, ordered, confirm, seconds]; a reply [verdict, why]. An object is a request to
reasoning-gym, answered by ["ok", reply]. "confirm" and "gym" import what these need, so that its time counts in no
deadline. End of input ends the process.
"""

import json
import resource
import sys
from typing import Any

MEMORY = 2 << 30  # bytes of address space


def _limit(kind: int, soft: int) -> None:
    hard = resource.getrlimit(kind)[1]
    try:
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    except (ValueError, OSError):
        return  # a system without this limit still has the deadline of the parent


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _confirm() -> str:
    import zerolab.grading.confirm

    return zerolab.grading.confirm.__name__


def _gym() -> str:
    from zerolab.grading.gym_process import load

    return load()


LOADERS = {"confirm": _confirm, "gym": _gym}


def _reply(question: Any) -> list[Any]:
    if isinstance(question, dict):
        from zerolab.grading.gym_process import serve

        return ["ok", serve(question)]
    from zerolab.grading.comparison import judge

    answer, gold, ordered, confirm, _ = question
    return list(judge(answer, gold, ordered, confirm))


def main() -> None:
    """Serve questions until the input ends."""

    _limit(resource.RLIMIT_AS, MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    out = sys.stdout
    sys.stdout = sys.stderr  # nothing else may speak on the line of replies
    print(json.dumps(["ready", ""]), file=out, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if isinstance(question, str):
            reply = ["ready", LOADERS[question]()]
        else:
            seconds = question["seconds"] if isinstance(question, dict) else question[-1]
            _limit(resource.RLIMIT_CPU, int(_cpu_seconds() + seconds) + 2)
            try:
                reply = _reply(question)
            except Exception as error:  # the reply carries it to the parent, which counts it as an error
                reply = ["error", f"{type(error).__name__}: {error}"[:600]]
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
