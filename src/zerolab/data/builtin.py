"""Question sets known by name: the paper's training sets and its five benchmarks.

A name is first looked for as NAME.jsonl (.json, .csv, .parquet) in `questions.data_dir`, and such a file is taken as it
is. The hub ids below were seen in public code or on hub pages; where `about` says unverified, id or columns rest on a
single source. Columns are detected, so a wrong guess stops with an error and never trains on something else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BuiltIn:
    hub_id: str
    split: str
    about: str
    subset: str | None = None
    problem_key: str | None = None
    answer_key: str | None = None
    levels: tuple[int, int] | None = None
    convert: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


def _asdiv(row: Mapping[str, Any]) -> dict[str, Any]:
    """The story and its question stand in two columns, the unit in parentheses behind the answer: "9 (apples)"."""
    return {"problem": f"{row['body']} {row['question']}", "answer": str(row["answer"]).split(" (")[0]}


_PAPER_BENCHMARKS = "lkevinzc/math-eval"

BUILT_IN: dict[str, BuiltIn] = {
    # Training
    "math12k": BuiltIn("nlile/hendrycks-MATH-benchmark", "train", "MATH without MATH500, 12,000 questions"),
    "math-lvl3to5": BuiltIn(
        "nlile/hendrycks-MATH-benchmark",
        "train",
        "MATH levels 3 to 5 (the paper: about 8,500 questions; its own selection is not known)",
        levels=(3, 5),
    ),
    "gsm_8k": BuiltIn(
        "openai/gsm8k",
        "train",
        "GSM8K training split, 7,473 questions; the paper's file has 8,792, which include the test split",
        subset="main",
    ),
    "asdiv_2k": BuiltIn(
        "EleutherAI/asdiv",
        "validation",
        "ASDiv, basic word problems (unverified; the paper's file has 1,788)",
        convert=_asdiv,
    ),
    "orz_57k": BuiltIn(
        "Open-Reasoner-Zero/orz_math_57k_collection",
        "train",
        "ORZ, 57,000 questions from AIME, Numina-Math, Tulu3 MATH and others (unverified)",
        problem_key="0.value",
        answer_key="1.ground_truth.value",
    ),
    # Evaluation
    "aime24": BuiltIn(_PAPER_BENCHMARKS, "aime", "AIME 2024, 30 questions"),
    "amc": BuiltIn(_PAPER_BENCHMARKS, "amc", "AMC, 83 questions"),
    "math500": BuiltIn(_PAPER_BENCHMARKS, "math", "MATH500, 500 questions"),
    "minerva": BuiltIn(_PAPER_BENCHMARKS, "minerva", "Minerva Math, 272 questions"),
    "olympiadbench": BuiltIn(_PAPER_BENCHMARKS, "olympiad_bench", "OlympiadBench, 675 text-only English questions"),
    "gsm8k_test": BuiltIn("openai/gsm8k", "test", "GSM8K test split, 1,319 questions", subset="main"),
}
