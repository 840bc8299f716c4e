"""The built-in question sets and texts: those of the paper, and other public ones.

A name is first searched as NAME.jsonl (.json, .csv, .parquet) in `questions.data_dir`. Such a file is read unchanged.
`checked` says how an entry was verified: files (rows and columns agree with copies of the files), hub page (seen on the
page of the data set), or unverified (found once, in public code). Columns are looked up in the data, so a wrong column
name stops with an error and never trains on another column.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Use = Literal["training", "evaluation", "text"]
Checked = Literal["files", "hub page", "unverified"]


@dataclass(frozen=True)
class BuiltIn:
    use: Use
    hub_id: str
    split: str
    columns: str  # question and answer, as the hub names them
    rows: int | None
    licence: str  # as stated on the hub page, or "not known"
    checked: Checked
    about: str
    subset: str | None = None
    problem_key: str | None = None
    answer_key: str | None = None
    levels: tuple[int, int] | None = None
    convert: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    unique: bool = False  # the file repeats rows; keep each question once


def _asdiv(row: Mapping[str, Any]) -> dict[str, Any]:
    """Join the two columns of the question, and remove the unit of the answer: "9 (apples)" is 9."""
    return {**row, "problem": f"{row['body']} {row['question']}", "answer": str(row["answer"]).split(" (")[0]}


def _big_math(row: Mapping[str, Any]) -> dict[str, Any]:
    """Take the answer from the column `solution`, which has only the answer in this set."""
    return {**row, "problem": row["prompt"], "answer": row["solution"]}


_PAPER = "lkevinzc/math-eval"
_PAIR = "problem, answer"
_NONE, _UNKNOWN = "none stated", "not known"
_MATH = "none stated; MATH itself is MIT"

BUILT_IN: dict[str, BuiltIn] = {
    "math12k": BuiltIn(
        "training", "nlile/hendrycks-MATH-benchmark", "train", _PAIR, 12000, _MATH, "hub page", "MATH without MATH500"
    ),
    "math-lvl3to5": BuiltIn(
        "training", "nlile/hendrycks-MATH-benchmark", "train", f"{_PAIR}, level", None, _MATH, "unverified",
        "MATH levels 3 to 5 (the paper: about 8,500 questions; its own selection is not known)", levels=(3, 5),
    ),
    "math-lighteval": BuiltIn(
        "training", "DigitalLearningGmbH/MATH-lighteval", "train", "problem, solution, level", 7500, "MIT",
        "unverified", "MATH's own training split", subset="default",
    ),
    "hendrycks-math": BuiltIn(
        "training", "EleutherAI/hendrycks_math", "train", "problem, solution, level", None, "MIT", "unverified",
        "one subject of MATH; questions.subset names another (geometry, number_theory, ...)", subset="algebra",
    ),
    "gsm_8k": BuiltIn(
        "training", "openai/gsm8k", "train", "question, answer", 7473, "MIT", "files",
        "GSM8K's training split. The paper's file of this name has 8,792 rows: it holds GSM8K's test split too",
        subset="main",
    ),
    "asdiv_2k": BuiltIn(
        "training", "EleutherAI/asdiv", "validation", "body, question, answer", 2305, "CC BY-NC 4.0", "hub page",
        "ASDiv, basic word problems (the paper's file has 1,788)", subset="asdiv", convert=_asdiv,
    ),
    "orz_57k": BuiltIn(
        "training", "Open-Reasoner-Zero/orz_math_57k_collection", "train", "0.value, 1.ground_truth.value", None,
        "MIT (on the page of a copy)", "unverified", "ORZ: AIME, Numina-Math, Tulu3 MATH and others, about 57,000",
        problem_key="0.value", answer_key="1.ground_truth.value",
    ),
    "big-math": BuiltIn(
        "training", "open-r1/Big-Math-RL-Verified-Processed", "train", "prompt, solution", None,
        "none stated; Big-Math is Apache-2.0", "unverified", "Big-Math; questions.subset takes a part (level_3_4_5)",
        subset="all", convert=_big_math,
    ),
    "dapo-math": BuiltIn(
        "training", "BytedTsinghua-SIA/DAPO-Math-17k", "train", "prompt, reward_model.ground_truth", None,
        "Apache-2.0", "unverified", "17,000 questions, each many times in 1.8 million rows; kept once. Its prompts "
        "already have an instruction", problem_key="prompt", answer_key="reward_model.ground_truth", unique=True,
    ),
    "aime24": BuiltIn(
        "evaluation", _PAPER, "aime", _PAIR, 30, _UNKNOWN, "files", "AIME 2024 (this set also at axon-rl/math-eval)"
    ),
    "amc": BuiltIn("evaluation", _PAPER, "amc", _PAIR, 83, _UNKNOWN, "files", "AMC"),
    "math500": BuiltIn("evaluation", _PAPER, "math", _PAIR, 500, "not known; MATH itself is MIT", "files", "MATH500"),
    "minerva": BuiltIn("evaluation", _PAPER, "minerva", _PAIR, 272, _UNKNOWN, "files", "Minerva Math"),
    "olympiadbench": BuiltIn(
        "evaluation", _PAPER, "olympiad_bench", _PAIR, 675, "not known; OlympiadBench is Apache-2.0", "files",
        "OlympiadBench, English, text only",
    ),
    "gsm8k_test": BuiltIn(
        "evaluation", "openai/gsm8k", "test", "question, answer", 1319, "MIT", "files", "GSM8K's test split",
        subset="main",
    ),
    "math500-h4": BuiltIn(
        "evaluation", "HuggingFaceH4/MATH-500", "test", f"{_PAIR}, level", 500, _UNKNOWN, "unverified", "MATH500 again"
    ),
    "aime24-h4": BuiltIn(
        "evaluation", "HuggingFaceH4/aime_2024", "train", _PAIR, 30, _UNKNOWN, "hub page", "AIME 2024 again"
    ),
    "aime24-mj": BuiltIn(
        "evaluation", "Maxwell-Jia/AIME_2024", "train", "Problem, Answer", 30, "MIT", "hub page", "AIME 2024 again",
        problem_key="Problem", answer_key="Answer",
    ),
    "aime25": BuiltIn("evaluation", "yentinglin/aime_2025", "train", _PAIR, 30, _UNKNOWN, "unverified", "AIME 2025"),
    "amc23": BuiltIn(
        "evaluation", "math-ai/amc23", "test", "question, answer", 40, _NONE, "unverified",
        "AMC 2023, another set than `amc`",
    ),
    "minerva-math-ai": BuiltIn(
        "evaluation", "math-ai/minervamath", "test", "question, answer", 272, _NONE, "unverified", "Minerva Math again"
    ),
    "olympiadbench-hothan": BuiltIn(
        "evaluation", "Hothan/OlympiadBench", "train", "question, final_answer", None, "Apache-2.0", "hub page",
        "OlympiadBench's own release", subset="OE_TO_maths_en_COMP", answer_key="final_answer",
    ),
}  # fmt: skip

# Text for `zerolab pretrain`.
TEXTS: dict[str, BuiltIn] = {
    "finemath": BuiltIn(
        "text", "HuggingFaceTB/finemath", "train", "text", None, "ODC-By 1.0", "unverified",
        "mathematical web pages", subset="finemath-4plus",
    ),
    "numina-cot": BuiltIn(
        "text", "AI-MO/NuminaMath-CoT", "train", "problem, solution", None, "Apache-2.0", "unverified",
        "questions with worked solutions",
    ),
    "numina-1.5": BuiltIn(
        "text", "AI-MO/NuminaMath-1.5", "train", "problem, solution, answer", None, "Apache-2.0", "unverified",
        "the same, newer, with bare answers",
    ),
}  # fmt: skip

HEADS = ("name", "use", "hub id", "split", "columns", "rows", "licence", "checked against")


def listing() -> list[tuple[str, ...]]:
    """A row of texts for each set, in the order of HEADS."""
    return [
        (
            name, b.use, b.hub_id + (f" ({b.subset})" if b.subset else ""), b.split, b.columns,
            f"{b.rows:,}" if b.rows else "?", b.licence, b.checked,
        )
        for name, b in {**BUILT_IN, **TEXTS}.items()
    ]  # fmt: skip
