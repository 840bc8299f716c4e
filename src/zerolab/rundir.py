"""The run directory: resolved config, manifest, metrics, transcripts, checkpoints. What is in it can be trusted to
belong together: on resume, lines newer than the checkpoint are cut."""

import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from zerolab.config import RunConfig, TextRunConfig
from zerolab.errors import UserError
from zerolab.track.trackers import Trackers, check_installed
from zerolab.types import Completion, Group

METRICS, TRANSCRIPTS, CONSUMED = "metrics.jsonl", "transcripts.jsonl", "consumed.jsonl"
CONFIG, MANIFEST = "config.json", "manifest.json"
FREE_TO_CHANGE = {"out", "steps", "checkpoint", "transcripts_per_step", "threads", "track", "cluster"}
PACKAGES = ("zerolab", "torch", "transformers", "tokenizers", "safetensors", "numpy", "reasoning-gym")


class RunDirectory:
    """The folder of a run. Raises UserError where it holds another run; nothing is written before `open`."""

    def __init__(self, config: RunConfig | TextRunConfig, resume: bool = False, overwrite: bool = False):
        self.overwrite = overwrite
        self.config = config
        self.path = config.folder
        self.checkpoints = self.path / "checkpoints"
        check_installed(config.track.to)
        resolved = config.model_dump(mode="json")
        name = f"{config.name}-seed{config.seed}"
        self.trackers = Trackers(config.track.to, self.path, config.track.project, name, resolved)
        if (self.path / CONFIG).exists():
            if resume:
                self._check_same()
            elif not overwrite:
                raise UserError(f"{self.path} already holds a run: use --resume, --overwrite or another `out`")
        elif resume:
            raise UserError(f"{self.path} holds no run to resume: leave --resume out, or set `out`")

    def open(self) -> None:
        """Writes the resolved config and this session's entry of the manifest."""
        with clear_errors(self.path):
            if self.overwrite and (self.path / CONFIG).exists():
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / CONFIG, self.config.model_dump_json(indent=2) + "\n")
            file = self.path / MANIFEST
            sessions = json.loads(file.read_text())["sessions"] if file.exists() else []
            session = describe_session(self.config.seed)
            write_atomically(file, json.dumps({"sessions": [*sessions, session]}, indent=2) + "\n")

    def _check_same(self) -> None:
        old = json.loads((self.path / CONFIG).read_text())
        changed = differing_keys(old, json.loads(self.config.model_dump_json()))
        if fixed := [key for key in changed if key.split(".")[0] not in FREE_TO_CHANGE]:
            raise UserError(f"{self.path} was started with another {', '.join(fixed)}: resume with the same values")

    def close(self) -> None:
        """Leaves nothing behind where the run ended before its first line was logged, so that it can start again."""
        self.trackers.close()
        if (self.path / METRICS).exists() or self.checkpoints.exists():
            return
        with suppress(OSError):
            for name in (CONFIG, MANIFEST, TRANSCRIPTS, CONSUMED):
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()

    def cut_after(self, step: int | None) -> None:
        """Forgets the lines of steps later than the checkpoint (all of them where there is none)."""
        for name in (METRICS, TRANSCRIPTS, CONSUMED):
            file = self.path / name
            if file.exists():
                kept = [line for line in file.read_text().splitlines() if step is not None and _step_of(line) <= step]
                write_atomically(file, "".join(line + "\n" for line in kept))

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl and tells the trackers; a number that is not finite becomes null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self._append(METRICS, [clean])
        self.trackers.log(int(record["step"]), clean)

    def log_transcripts(self, step: int, groups: Sequence[Group]) -> None:
        """Appends the responses of these groups, one line each."""
        self._append(TRANSCRIPTS, list(transcript_rows(step, groups)))

    def log_consumed(self, step: int, draws: Sequence[int], groups: Sequence[Group]) -> None:
        """Appends which draws the step learns from, and the oldest and newest weight version of their tokens."""
        newest = [max(int(v) for c in g.completions for v in (c.version, *_versions(c))) for g in groups]
        oldest = [min(c.version for c in g.completions) for g in groups]
        samples = len(groups[0].completions) if groups else 0
        row = {"step": step, "samples": samples, "draws": list(draws), "oldest": oldest, "newest": newest}
        self._append(CONSUMED, [row])

    def _append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        with clear_errors(self.path), (self.path / name).open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))


def _versions(completion: Completion) -> list[int]:
    return [] if completion.versions_L is None else completion.versions_L.tolist()


def transcript_rows(step: int, groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """One row per response; `group` numbers the groups of a step, since a small set may draw a question twice."""
    for number, group in enumerate(groups):
        question = group.prompt.question
        for i, (completion, grade) in enumerate(zip(group.completions, group.grades, strict=True)):
            yield {
                "step": step,
                "group": number,
                "question_id": question.id,
                "question": question.text,
                "answers": list(question.answers),
                "prompt": group.prompt.text,
                "sample": i,
                "response": completion.text,
                "tokens": len(completion),
                "finish_reason": completion.finish_reason,
                "correct": grade.correct,
                "formatted": grade.formatted,
                "reason": grade.reason,
                "extracted": grade.extracted,
                "reward": float(group.rewards_G[i]),
                "parts": {name: float(part_G[i]) for name, part_G in group.parts_G.items()},
                "enters": group.enters_G is None or bool(group.enters_G[i]),
                "version": completion.version,
            }


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, oldest first. Raises UserError where there are none."""
    file = folder / METRICS
    if not file.is_file():
        raise UserError(f"{folder} holds no {METRICS}: is it the folder of a run?")
    return [json.loads(line) for line in file.read_text().splitlines() if _step_of(line) < math.inf]


def _step_of(line: str) -> float:
    """Step of a line; a line that a kill cut short counts as later than every checkpoint."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf


def differing_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys whose values differ between two resolved configs."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [prefix.rstrip(".")]
    keys = sorted({*old, *new})
    return [d for key in keys for d in differing_keys(old.get(key), new.get(key), f"{prefix}{key}.")]


def write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or an unwritable folder into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; free space or set `out`, then use --resume") from error


def describe_session(seed: int) -> dict[str, Any]:
    """Versions, revision and hardware of this process."""
    import torch

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "seed": seed,
        "python": platform.python_version(),
        "versions": versions(),
        "git_revision": git_revision(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def versions() -> dict[str, str]:
    """Of the packages on which a run depends, those that are installed."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def git_revision() -> str | None:
    """Commit of the checkout this package runs from, with a + where files were changed; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
