"""Shared n-grams are found, all of them, and nothing else."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerolab.analysis.contamination import lcs_length, ngrams, overlap, rouge_l, words

TEXTS = st.lists(st.text("abc ", max_size=24), max_size=5)


def problems(path: Path) -> list[str]:
    return [json.loads(line)["problem"] for line in path.read_bytes().splitlines()]


def test_the_public_training_file_of_gsm8k_holds_its_test_split(shared: Path) -> None:
    found = overlap(problems(shared / "eval/gsm8k_test.jsonl"), problems(shared / "train/gsm_8k.jsonl"))
    assert (found.questions, found.texts) == (1319, 8792)
    assert found.contained == found.touched == len(found.exact) == 1319
    clean = overlap(problems(shared / "eval/math500.jsonl"), problems(shared / "train/gsm_8k.jsonl"))
    assert (clean.touched, clean.exact) == (0, frozenset())


@given(TEXTS, TEXTS, st.integers(1, 4))
def test_coverage_is_the_share_of_the_sets_of_ngrams(benchmark: list[str], training: list[str], n: int) -> None:
    found = overlap(benchmark, training, n)
    for question, coverage in zip(benchmark, found.coverage, strict=True):
        tokens = words(question)
        length = min(n, len(tokens))
        there = {gram for text in training for _, gram in ngrams(words(text), length)} if length else set()
        grams = [gram for _, gram in ngrams(tokens, n)]
        assert coverage == pytest.approx(sum(g in there for g in grams) / max(1, len(grams)))
    for match in found.matches:
        there = " ".join(words(training[match.text]))
        assert all(gram in there for _, gram in ngrams(match.shared.split(), n))
        assert match.shared in " ".join(words(benchmark[match.question]))
        assert 0 < match.coverage <= found.coverage[match.question]
    assert {m.question for m in found.matches} == {q for q, c in enumerate(found.coverage) if c}


def test_spelling_of_marks_and_spaces_does_not_hide_a_copy() -> None:
    asked = "What is $\\frac{1}{2}$ of 30, in total?"
    found = overlap([asked], ["noise", "WHAT is \\frac 1 2 of 30 — in\ntotal"])
    assert found.exact == {0}
    assert (found.matches[0].text, found.matches[0].coverage) == (1, 1.0)


def test_a_part_that_is_copied_is_a_touch_and_no_containment() -> None:
    shared = " ".join(f"w{i}" for i in range(20))
    found = overlap([shared + " a b c d e f g h i j k l m n o p q r s t u v"], ["x y " + shared + " z"], n=13)
    assert (found.touched, found.contained, found.matches[0].shared) == (1, 0, shared)


def subsequence(a, b) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        new = [0]
        for j, y in enumerate(b):
            new.append(row[j] + 1 if x == y else max(row[j + 1], new[j]))
        row = new
    return row[-1]


@given(st.lists(st.integers(0, 3), max_size=80), st.lists(st.integers(0, 3), max_size=80))
def test_the_longest_common_subsequence_is_the_textbook_one(a: list[int], b: list[int]) -> None:
    assert lcs_length(a, b) == subsequence(a, b) == lcs_length(b, a)


def test_rouge_of_known_sentences() -> None:
    reference = "police killed the gunman"  # the example of Lin 2004, section 3.1
    assert rouge_l("police kill the gunman", reference) == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", reference) == pytest.approx(2 / 4)
    assert (rouge_l(reference, reference), rouge_l("", reference), rouge_l("...", "!")) == (1.0, 0.0, 0.0)
