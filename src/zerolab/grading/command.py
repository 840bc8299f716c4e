"""`zerolab grade`: verdicts on recorded responses, a summary with reasons, a comparison with Math-Verify."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerolab.errors import UserError

if TYPE_CHECKING:
    from zerolab.grading.rules import Rules

NAMES = {"question": "problem", "answers": "answer"}
SHOWN_LINES, SHOWN_ROWS = 20, 5  # of a list of disagreements: lines, and row numbers in each
MODE_SAMPLE = 200  # responses on which other modes are tried
MODE_GAIN = 0.1  # a mode is suggested if it would call so large a share of all responses right as well


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows {problem, answer, response | responses [, scores]}. Raises UserError, naming the line, on anything else.

    `question` may stand for problem, `answers` for answer.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a JSON Lines file")
    rows = []
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # not JSON, a number of thousands of digits, endless nesting
                why = getattr(error, "msg", type(error).__name__)
                raise UserError(f"{path}:{number}: not JSON ({why}); every line must be one object") from error
            if isinstance(row, dict):
                row = {**{ours: row[theirs] for theirs, ours in NAMES.items() if theirs in row}, **row}
            if not isinstance(row, dict) or "answer" not in row or not ({"response", "responses"} & row.keys()):
                raise UserError(f"{path}:{number}: needs the keys answer and response (or responses)")
            responses = row["responses"] if "responses" in row else [row["response"]]
            if not isinstance(responses, list) or not all(isinstance(r, str) for r in responses):
                raise UserError(f"{path}:{number}: responses must be a list of texts")
            rows.append({**row, "responses": responses})
    if not rows:
        raise UserError(f"{path} is empty; nothing to grade")
    return rows


def run(
    path: Path,
    mode: str = "boxed",
    rules: str = "standard",
    verifier: str = "math",
    out: Path | None = None,
    compare: str | None = None,
) -> str:
    """Grade a file, write FILE.graded.jsonl (or `out`), return the summary. Raises UserError on bad input."""
    from zerolab.grading import grade_batch
    from zerolab.grading.rules import RULES

    if rules not in RULES:
        raise UserError(f"unknown rules {rules!r}; choose one of {', '.join(RULES)}")
    if compare not in (None, "math-verify"):
        raise UserError(f"cannot compare with {compare!r}; choose math-verify")
    rows = read_rows(path)
    out = out or path.with_name(path.stem + ".graded.jsonl")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"cannot write {out}: choose another file with --out")
    pairs = [(response, row["answer"]) for row in rows for response in row["responses"]]
    responses, golds = [r for r, _ in pairs], [g for _, g in pairs]
    grades = grade_batch(responses, golds, mode, verifier=verifier, rules=RULES[rules])
    left = iter(grades)
    with out.open("w", encoding="utf-8", errors="surrogateescape") as lines:
        for row in rows:
            verdicts = [next(left) for _ in row["responses"]]
            graded = {
                "problem": row.get("problem"),
                "answer": row["answer"],
                "correct": [g.correct for g in verdicts],
                "reason": [g.reason for g in verdicts],
                "extracted": [g.extracted for g in verdicts],
            }
            lines.write(json.dumps(graded) + "\n")
    recorded = [bool(s) for row in rows for s in row.get("scores", [])]
    numbers = [number for number, row in enumerate(rows, 1) for _ in row["responses"]]
    text = _summary(grades)
    if len(recorded) == len(grades):
        text += "\n" + recorded_verdicts(recorded, grades, golds, numbers)
    if hint := suggest_mode(responses, golds, grades, mode, verifier, RULES[rules]):
        text += "\n" + hint
    if compare:
        text += "\n\n" + disagreements(responses, golds, grades, numbers)
    return text + f"\nverdicts: {out}"


def _summary(grades: list) -> str:
    from zerolab.grading import counts

    total = len(grades)
    reasons = Counter(g.reason for g in grades)
    lines = [f"{total} responses, {sum(g.formatted for g in grades)} in the format, {reasons['correct']} correct"]
    lines.append(f"accuracy {reasons['correct'] / total:.4f}")
    lines += [f"  {reason:<12} {reasons[reason]}" for reason in ("correct", "wrong", "unformatted", "timeout", "error")]
    lines.append("decided by: " + ", ".join(f"{why} {n}" for why, n in counts().most_common()))
    if reasons["timeout"]:
        lines.append(f"not reproducible: {reasons['timeout']} verdicts hit a deadline")
    return "\n".join(lines)


def recorded_verdicts(recorded: list[bool], grades: list, golds: list, numbers: list[int]) -> str:
    """How many recorded verdicts agree, and the others: one line for those with the same answer and gold."""
    found = [
        (f"recorded {s}, here {g.correct} ({g.reason}): {_short(g.extracted)}, gold {_short(gold)}", number)
        for s, g, gold, number in zip(recorded, grades, golds, numbers, strict=True)
        if s != g.correct
    ]
    same = f"recorded verdicts: {len(grades) - len(found)} of {len(grades)} agree"
    return "\n".join([same, *group_lines(found)])


def group_lines(lines: Sequence[tuple[str, int]]) -> list[str]:
    """Equal lines become one, with the numbers of their rows; the most frequent come first."""
    rows: dict[str, list[int]] = {}
    for line, number in lines:
        rows.setdefault(line, []).append(number)
    ordered = sorted(rows.items(), key=lambda item: -len(item[1]))
    shown = [f"  {line} ({_rows(numbers)})" for line, numbers in ordered[:SHOWN_LINES]]
    left = sum(len(numbers) for _, numbers in ordered[SHOWN_LINES:])
    return shown + ([f"  and {left} more responses in {len(ordered) - SHOWN_LINES} more lines"] if left else [])


def _rows(numbers: list[int]) -> str:
    named = ", ".join(map(str, numbers[:SHOWN_ROWS]))
    more = f" and {len(numbers) - SHOWN_ROWS} more" if len(numbers) > SHOWN_ROWS else ""
    return f"row{'s' * (len(numbers) > 1)} {named}{more}"


def _short(value: Any) -> str:
    return "no answer" if value is None else f"{value!r:.40}"


def suggest_mode(responses: list[str], golds: list, grades: list, mode: str, verifier: str, rules: "Rules") -> str:
    """Return a line that names the mode under which many more responses would be right; empty if there is none.

    Other modes are tried on an evenly spaced sample of the responses that are not right.
    """
    from zerolab.grading import grade_batch
    from zerolab.grading.extract import MODES

    failed = [i for i, g in enumerate(grades) if not g.correct]
    if not failed or len(failed) < MODE_GAIN * len(grades):
        return ""
    size = min(MODE_SAMPLE, len(failed))
    sample = [failed[i * len(failed) // size] for i in range(size)]
    texts, answers = [responses[i] for i in sample], [golds[i] for i in sample]
    shares = {}
    for other in MODES:
        if other != mode:
            found = grade_batch(texts, answers, other, verifier=verifier, rules=rules)
            shares[other] = sum(g.correct for g in found) / size
    best = max(shares, key=lambda name: shares[name])  # of equal ones the first, which is the strictest
    if shares[best] * len(failed) < MODE_GAIN * len(grades):
        return ""
    return (
        f"warning: {len(failed)} of {len(grades)} responses are not right under --mode {mode}; about "
        f"{shares[best]:.0%} of these are right under --mode {best}: choose the mode that the prompts asked for"
    )


def disagreements(responses: list[str], golds: list, grades: list, numbers: list[int]) -> str:
    """Table of the responses on which Math-Verify (an optional extra) decides otherwise."""
    try:
        import math_verify
    except ImportError as error:
        raise UserError('math-verify is not installed; run pip install "zerolab[math-verify]"') from error
    lines = ["disagreements with math-verify:", f"  {'here':<8} {'there':<8} {'extracted':<36} gold"]
    found = []
    for response, gold, mine, number in zip(responses, golds, grades, numbers, strict=True):
        alternatives = gold if isinstance(gold, list) else [gold]
        answer = math_verify.parse(response)
        boxes = [math_verify.parse(rf"\boxed{{{str(g).strip()}}}") for g in alternatives]
        theirs = any(math_verify.verify(box, answer) for box in boxes)
        if theirs != mine.correct:
            line = f"{mine.correct!s:<8} {theirs!s:<8} {str(mine.extracted)[:34]!r:<36} {str(gold)[:40]!r}"
            found.append((line, number))
    return "\n".join([*lines, *group_lines(found), f"  {len(found)} of {len(grades)}"])
