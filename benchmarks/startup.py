"""How long the verbs that need no model take: user seconds of the second run in a row, each in a process of its own.

python benchmarks/startup.py [--json FILE]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import record

ROOT = Path(__file__).resolve().parent.parent
MOST = 3.0  # user seconds that a verb may take
ROW = {"problem": "1 + 1 = ?", "answer": "1/2", "response": r"It is \boxed{\frac{1}{2}}."}
VERBS = (
    ("--help",),
    ("recipe", "list"),
    ("claims", "list"),
    ("grade", "FILE"),
    ("train", "laptop/grpo", "--dry-run"),
    ("train", "paper/qwen2.5-math-7b", "--dry-run"),
    ("plan", "laptop/grpo", "--gpus", "1xH100"),
    ("plan", "paper/qwen2.5-math-7b", "--gpus", "8xA100-80"),
)


def user_seconds(words: list[str], environment: dict[str, str]) -> float:
    """CPU time outside the kernel of one call of zerolab."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-m", "zerolab", *words]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def measure() -> list[dict[str, object]]:
    """One row per verb."""
    environment = {**os.environ, **record.environment(1)}
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "responses.jsonl"
        file.write_text((json.dumps(ROW) + "\n") * 20, encoding="utf-8")
        for verb in VERBS:
            words = [str(file) if word == "FILE" else word for word in verb]
            first, second = (user_seconds(words, environment) for _ in range(2))
            rows.append({"verb": " ".join(verb), "first": first, "second": second})
            print(f"{rows[-1]['verb']:50} {first:6.2f} {second:6.2f} user seconds")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here, not into benchmarks/results")
    options = parser.parse_args()
    rows = measure()
    record.write("startup", {"most": MOST, "verbs": rows}, options.json)
    if slow := [str(row["verb"]) for row in rows if float(str(row["second"])) > MOST]:
        sys.exit(f"above {MOST:g} user seconds: {'; '.join(slow)}")


if __name__ == "__main__":
    main()
