"""The run directory: resolved config, manifest, metrics, transcripts, checkpoints.

On resume, lines that are newer than the checkpoint are deleted, so that all files belong to one run.
"""

import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from zerolab.config import RunConfig, TextRunConfig
from zerolab.datatypes import Completion, Group
from zerolab.errors import UserError
from zerolab.files import check_can_write, shorten
from zerolab.inputs import Input, changed_inputs
from zerolab.learner.checkpoint_files import NAME, PARTIAL, checkpoints, newest_whole
from zerolab.run_lock import LOCK, RunLock, check_free
from zerolab.terminal import echo
from zerolab.toml import on_resume
from zerolab.track import ID_FILE, Trackers, check_installed

METRICS, TRANSCRIPTS, CONSUMED = "metrics.jsonl", "transcripts.jsonl", "consumed.jsonl"
HEALTH = "health.jsonl"
CONFIG, MANIFEST = "run.json", "manifest.json"
OTHER_OUT = "free space, or choose another --out"  # what to do if a result cannot be written
TEST_LOOKS = "test_looks.jsonl"  # checkpoints that were evaluated on a test benchmark
NO_INPUTS: Mapping[str, Input] = {}
START_ANEW = "start anew with --overwrite, or in another `out`"
PACKAGES = ("zerolab", "torch", "transformers", "tokenizers", "safetensors", "numpy", "reasoning-gym")


class RunDirectory:
    """The folder of a run. Raises UserError if another run is in it. Nothing is written before `open`."""

    def __init__(self, config: RunConfig | TextRunConfig, resume: bool = False, overwrite: bool = False):
        self.resume, self.overwrite = resume, overwrite
        self.config = config
        self.path = config.folder
        self.checkpoints = self.path / "checkpoints"
        self.lock = RunLock(self.path)
        check_installed(config.track.to)
        resolved = config.model_dump(mode="json")
        name = f"{config.name}-seed{config.seed}"
        self.session: list[Mapping[str, Any]] = []  # the rows that this process logged
        self.trackers = Trackers(config.track.to, self.path, config.track.project, name, resolved)
        check_free(self.path)
        self._check()
        check_can_write(self.path / METRICS, "`out`")

    def open(self, inputs: Mapping[str, Input] = NO_INPUTS) -> None:
        """Lock the folder, and write the resolved config and this session's entry of the manifest.

        Raises UserError if another process works in the folder, or if an input that a resumed run needs has changed.
        """
        with clear_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire()
            try:
                self._check()  # again, because another process may have written before the lock was taken
                if self.overwrite:
                    delete_run(self.path)
                manifest = self._manifest(inputs)
                if self.resume:
                    for note in rounding_notes(self._stored_config(), self.config):
                        self.say(note)
                write_atomically(self.path / CONFIG, self.config.model_dump_json(indent=2) + "\n")
                write_atomically(self.path / MANIFEST, json.dumps(manifest, indent=2) + "\n")
            except BaseException:
                self.lock.release()
                raise

    def say(self, text: str) -> None:
        """Print one line about the run to stderr."""
        echo(f"{self.config.name}: {text}", error=True)

    def _check(self) -> None:
        if self.resume:
            if not (self.path / CONFIG).exists():
                raise UserError(f"{self.path} holds no run to resume: leave --resume out, or set `out`")
            self._check_same()
            if not checkpoints(self.checkpoints):
                raise UserError(f"{self.path} has no checkpoint to go on from: {START_ANEW}")
        elif self.overwrite:
            check_deletable(self.path, self.config)
        elif any((self.path / name).exists() for name in (CONFIG, MANIFEST, METRICS)):
            raise UserError(f"{self.path} already holds a run: use --resume, --overwrite or another `out`")
        elif (self.path / "config.json").exists():
            raise UserError(f"{self.path} holds a config.json and may be the folder of a model: set another `out`")

    def _stored_config(self) -> dict[str, Any]:
        found = read_object(self.path / CONFIG)
        if found is None:
            raise UserError(
                f"{self.path / CONFIG} is damaged, so this recipe cannot be compared with that run: put the file back, "
                f"or {START_ANEW}"
            )
        return found

    def _check_same(self) -> None:
        changed = differing_keys(self._stored_config(), json.loads(self.config.model_dump_json()))
        if fixed := [key for key in changed if on_resume(type(self.config), key) is None]:
            raise UserError(f"{self.path} was started with another {', '.join(fixed)}: resume with the same values")

    def _manifest(self, inputs: Mapping[str, Input]) -> dict[str, Any]:
        """The manifest with this session added. A damaged manifest is kept under another name."""
        file = self.path / MANIFEST
        stored = read_object(file) if file.exists() else {}
        if stored is None or not isinstance(stored.get("sessions", []), list):
            file.replace(file.with_name(MANIFEST + ".damaged"))
            self.say(f"{MANIFEST} is damaged: it is kept as {MANIFEST}.damaged, and no input can be compared with it")
            stored = {}
        refused, harmless = changed_inputs(stored.get("inputs"), inputs)
        if refused:
            raise UserError(f"{self.path} was started with other {'; '.join(refused)}: put them back, or {START_ANEW}")
        for change in harmless:
            self.say(f"the {change} changed since this run began; the run resumes from its checkpoint, without them")
        recorded = stored.get("inputs") or {name: entry.record() for name, entry in inputs.items()}
        session = describe_session(self.config.seed)
        return {"inputs": recorded, "sessions": [*stored.get("sessions", []), session]}

    def newest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint, or None. Prints which damaged ones are skipped.

        Raises UserError if a resumed run has none.
        """
        folder, skipped = newest_whole(self.checkpoints)
        if folder is None and self.resume:
            raise UserError(f"{self.path} has no whole checkpoint to go on from: {'; '.join(skipped)}; {START_ANEW}")
        for reason in skipped:
            self.say(f"checkpoint {reason}: skipped")
        return folder

    def close(self) -> None:
        """Release the lock. If the run ended before its first logged line, delete its files, so that it can restart."""
        self.trackers.close()
        if not self.lock.held:
            return
        unused = not (self.path / METRICS).exists() and not self.checkpoints.exists()
        with suppress(OSError):
            for name in (CONFIG, MANIFEST, TRANSCRIPTS, CONSUMED, HEALTH) if unused else ():
                (self.path / name).unlink(missing_ok=True)
        self.lock.release(remove=unused)
        if unused:
            with suppress(OSError):
                self.path.rmdir()

    def cut_after(self, step: int | None) -> None:
        """Delete damaged lines, and lines of steps after `step`, the checkpoint (None: all lines)."""
        for name in (METRICS, TRANSCRIPTS, CONSUMED, HEALTH):
            file = self.path / name
            if file.exists():
                kept = [line for line in _lines(file) if step is not None and _step_of(line) <= step]
                write_atomically(file, b"".join(line + b"\n" for line in kept))

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and send it to the trackers. A number that is not finite becomes null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self._append(METRICS, [clean])
        self.session.append(clean)
        self.trackers.log(int(record["step"]), clean)

    def log_warning(self, warning: Mapping[str, Any]) -> None:
        """Append one line to health.jsonl: step, name, message and remedy."""
        self._append(HEALTH, [warning])

    def history(self) -> tuple[list[dict[str, Any]], set[str]]:
        """(rows logged so far, names of the warnings given so far)."""
        rows = read_rows(self.path / METRICS)
        return rows, {row["name"] for row in read_rows(self.path / HEALTH)}

    def log_transcripts(self, step: int, groups: Sequence[Group]) -> None:
        """Append the responses of these groups to transcripts.jsonl, one line each."""
        self._append(TRANSCRIPTS, list(transcript_rows(step, groups)))

    def log_consumed(self, step: int, draws: Sequence[int], groups: Sequence[Group]) -> None:
        """Append the draws of the step, with the oldest and newest weight version of their tokens."""
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
    """One row per response. `group` is the number of the group, because a step may have a question twice."""
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
                "enters": group.loss_mask_G is None or bool(group.loss_mask_G[i]),
                "version": completion.version,
            }


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl, oldest first. Raises UserError if the folder has no such file."""
    file = Path(folder) / METRICS
    if not file.is_file():
        raise UserError(f"{folder} holds no {METRICS}: is it the folder of a run?")
    return read_rows(file)


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the undamaged rows of a log, oldest first; empty if there is no such file."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in _lines(file) if _step_of(line) < math.inf]


def _lines(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines()


def _step_of(line: bytes) -> float:
    """The step of a line. A damaged or incomplete line gets infinity, so that it counts as newer than all steps."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if isinstance(step, int) and not isinstance(step, bool) else math.inf


FIRST_STEPS = 10
WINDOWS = (
    f"start: the first {FIRST_STEPS} steps, or the first third of a run of fewer than {3 * FIRST_STEPS}; "
    "end: the last third"
)


def step_windows(steps: int) -> dict[str, tuple[int, int]]:
    """The windows "start" and "end" of a run with this many steps, each as (first step, last step); see WINDOWS.

    All tables, figures and claims use these windows. Step 0, the evaluation before the first update, is in the start.
    """
    third = max(1, round(steps / 3))
    return {"start": (0, min(FIRST_STEPS, third)), "end": (max(0, steps - third) + 1, steps)}


def window_mean(steps: Iterable[float], values: Iterable[float], window: tuple[int, int]) -> float:
    """Mean of the finite values whose steps lie in a window; NaN if there are none."""
    first, last = window
    inside = [v for step, v in zip(steps, values, strict=True) if first <= step <= last and math.isfinite(v)]
    return math.fsum(inside) / len(inside) if inside else math.nan


def read_object(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is none, or it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_run(folder: Path) -> bool:
    """Whether zerolab wrote this folder, by run.json or, if that is damaged, by the manifest."""
    config, manifest = read_object(folder / CONFIG) or {}, read_object(folder / MANIFEST) or {}
    return {"name", "seed", "steps"} <= config.keys() or isinstance(manifest.get("sessions"), list)


def can_resume(folder: Path) -> bool:
    """Whether the folder has a run with a whole checkpoint, from which --resume can go on."""
    return read_object(folder / CONFIG) is not None and newest_whole(folder / "checkpoints").folder is not None


def check_deletable(folder: Path, config: RunConfig | TextRunConfig) -> None:
    """Raise UserError if --overwrite must not delete this folder.

    This is the case if it is no run, or if the new run reads a file in it, such as its model.
    """
    if not folder.is_dir():
        return
    if any(path.name != LOCK for path in folder.iterdir()) and not is_run(folder):
        raise UserError(f"{folder} is not the folder of a run ({CONFIG} is missing): --overwrite leaves it; set `out`")
    for text in texts_of(config.model_dump(mode="json", exclude={"out", "name", "control"})):
        for candidate in {text, text.rpartition(":")[0]} - {""}:  # file.py:function
            with suppress(OSError, ValueError, RuntimeError):
                read = Path(candidate).expanduser()
                if read.exists() and read.resolve().is_relative_to(folder.resolve()):
                    raise UserError(f"--overwrite would delete {folder}, and this run reads {candidate}: set `out`")


def texts_of(value: Any) -> Iterator[str]:
    """Every string in the values of a config."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_of(inner)


def delete_run(folder: Path) -> None:
    """Delete the files that zerolab wrote to the folder of a run. Other files stay."""
    of_texts = "corpora" in (read_object(folder / CONFIG) or {})
    folders = ["model"] if of_texts else []
    if (folder / ID_FILE).exists():
        folders += ["tensorboard", "wandb", "trackio"]
    roots = [folder / name for name in folders]
    checkpoint_root = folder / "checkpoints"
    if checkpoint_root.is_dir():
        roots += [p for p in checkpoint_root.iterdir() if NAME.fullmatch(p.name.removesuffix(PARTIAL))]
    for root in roots:
        if root.is_dir() and not root.is_symlink():
            shutil.rmtree(root)
    with suppress(OSError):  # other files are in it
        checkpoint_root.rmdir()
    for name in (METRICS, TRANSCRIPTS, CONSUMED, HEALTH, TEST_LOOKS, ID_FILE, MANIFEST, CONFIG):
        (folder / name).unlink(missing_ok=True)


def rounding_notes(old: Mapping[str, Any], config: RunConfig | TextRunConfig) -> Iterator[str]:
    """Sentences for a resumed run whose numbers differ from those of an uninterrupted run."""
    changed = differing_keys(old, json.loads(config.model_dump_json()))
    if rounded := [key for key in changed if on_resume(type(config), key) == "rounded"]:
        yield f"with another {', '.join(rounded)} the run is equal only up to rounding, no longer to the bit"
    if "steps" in changed and config.learner.schedule != "constant":
        yield f"learner.schedule now ends with step {config.steps}: earlier steps followed another schedule"


def differing_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys whose values differ between two resolved configs."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [prefix.rstrip(".")]
    keys = sorted({*old, *new})
    return [d for key in keys for d in differing_keys(old.get(key), new.get(key), f"{prefix}{key}.")]


def make_parent(path: Path) -> None:
    """Make the folder of a file that will be written later. Raises UserError if it cannot be made."""
    with clear_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def clear_errors(path: Path, remedy: str = "free space or set `out`, then use --resume") -> Iterator[None]:
    """Turn an OSError, such as a full disk or an unwritable folder, into a UserError that ends with the remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {shorten(str(path))}: {error.strerror}; {remedy}") from error


def describe_session(seed: int) -> dict[str, Any]:
    """Versions, git revision and hardware of this process, for the manifest."""
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
    """The versions of the installed packages on which a run depends."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def git_revision(here: Path = Path(__file__).parent) -> str | None:
    """Commit of the checkout from which this package runs, with a + if files were changed; None outside a checkout.

    A package that is installed in an environment inside a repository is not a checkout, because git does not track it.
    """
    try:
        subprocess.run(["git", "ls-files", "--error-unmatch", "."], cwd=here, capture_output=True, check=True)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
