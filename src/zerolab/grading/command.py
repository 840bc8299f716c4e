"""`zerolab grade`: verdicts on recorded responses, a summary with reasons, a comparison with Math-Verify."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from zerolab.errors import UserError

NAMES = {"question": "problem", "answers": "answer"}


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
    text = _summary(grades, recorded if len(recorded) == len(grades) else [])
    if compare:
        text += "\n\n" + disagreements(responses, golds, grades)
    return text + f"\nverdicts: {out}"


def _summary(grades: list, recorded: list[bool]) -> str:
    from zerolab.grading import counts

    total = len(grades)
    reasons = Counter(g.reason for g in grades)
    lines = [f"{total} responses, {sum(g.formatted for g in grades)} in the format, {reasons['correct']} correct"]
    lines.append(f"accuracy {reasons['correct'] / total:.4f}")
    lines += [f"  {reason:<12} {reasons[reason]}" for reason in ("correct", "wrong", "unformatted", "timeout", "error")]
    lines.append("decided by: " + ", ".join(f"{why} {n}" for why, n in counts().most_common()))
    if reasons["timeout"]:
        lines.append(f"not reproducible: {reasons['timeout']} verdicts hit a deadline")
    if recorded:
        same = sum(g.correct == s for g, s in zip(grades, recorded, strict=True))
        lines.append(f"recorded verdicts: {same} of {total} agree")
        for g, s in zip(grades, recorded, strict=True):
            if g.correct != s:
                lines.append(f"  recorded {s}, here {g.correct} ({g.reason}): {g.extracted!r}"[:160])
    return "\n".join(lines)


def disagreements(responses: list[str], golds: list, grades: list) -> str:
    """Table of the responses on which Math-Verify (an optional extra) decides otherwise."""
    try:
        import math_verify
    except ImportError as error:
        raise UserError('math-verify is not installed; run pip install "zerolab[math-verify]"') from error
    lines = ["disagreements with math-verify:", f"  {'here':<8} {'there':<8} {'extracted':<36} gold"]
    different = 0
    for response, gold, mine in zip(responses, golds, grades, strict=True):
        alternatives = gold if isinstance(gold, list) else [gold]
        answer = math_verify.parse(response)
        boxes = [math_verify.parse(rf"\boxed{{{str(g).strip()}}}") for g in alternatives]
        theirs = any(math_verify.verify(box, answer) for box in boxes)
        if theirs != mine.correct:
            different += 1
            lines.append(f"  {mine.correct!s:<8} {theirs!s:<8} {str(mine.extracted)[:34]!r:<36} {str(gold)[:40]!r}")
    lines.append(f"  {different} of {len(grades)}")
    return "\n".join(lines)
