"""The corpus of chains is what its docstring says, counted; no word of it says how sure the speaker is."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from zerolab.config import CorpusConfig
from zerolab.datatypes import Question
from zerolab.grading.grader import grade
from zerolab.worlds.corpora import make_corpus

STEP = re.compile(r" ([-+]) (\d+) = (\d+)")


@dataclass(frozen=True)
class Read:
    """A document: its question, its answer, and the steps (sign, operand, result) of every derivation."""

    question: str
    right: int
    derivations: list[list[tuple[str, int, int]]]
    boxed: int

    @property
    def correct(self) -> bool:
        return self.boxed == self.right

    @property
    def slips(self) -> list[bool]:
        """Of every step in every derivation, whether it is wrong by the result before it."""
        return [result != eval(f"({value} {sign} {n}) % 10") for value, sign, n, result in self.facts]

    @property
    def facts(self) -> list[tuple[int, str, int, int]]:
        """(value, sign, operand, result) of every step in every derivation."""
        found = []
        for derivation in self.derivations:
            value = int(self.question.split()[0])
            for sign, n, result in derivation:
                found.append((value, sign, n, result))
                value = result
        return found

    @property
    def results(self) -> list[int]:
        """The last result of every derivation."""
        return [derivation[-1][2] for derivation in self.derivations]


def corpus(seed: int = 0, **options: Any) -> Any:
    return make_corpus(CorpusConfig(name="chain-derivations", options=options), seed)


@cache
def sample(**options: Any) -> list[Read]:
    made, found = corpus(**options), []
    for step in range(40):
        documents = made.batch(step, 128)
        prompts = made.tokenizer.batch_decode([ids[:n] for ids, n in documents])
        responses = made.tokenizer.batch_decode([ids[n:] for ids, n in documents])
        found += [_read(*pair, bool(options.get("any_order"))) for pair in zip(prompts, responses, strict=True)]
    return found


def _read(prompt: str, response: str, any_order: bool = False) -> Read:
    """Every derivation starts from the first number of the question and takes its steps, each once."""
    worked, boxed = re.fullmatch(r"(.*) \\boxed\{(\d+)\}<eos>", response).groups()  # type: ignore[union-attr]
    asked = prompt.removesuffix(" = ?")
    derivations = []
    for part in worked.split(" again:"):
        taken = STEP.sub(r" \1 \2", part)
        if any_order:
            assert sorted(re.findall(r" . \d+", taken)) == sorted(re.findall(r" . \d+", asked))
        else:
            assert taken == f" {asked}"
        derivations.append([(sign, int(n), int(result)) for sign, n, result in STEP.findall(part)])
    return Read(asked, eval(asked) % 10, derivations, int(boxed))


def test_the_box_repeats_the_last_result_and_nothing_else_is_said() -> None:
    rows = sample()
    assert all(row.boxed == row.results[-1] for row in rows)
    assert {len(derivation) for row in rows for derivation in row.derivations} == {2, 3}


def test_derivations_may_take_the_steps_in_an_order_of_their_own() -> None:
    rows = [row for row in sample(any_order=True) if len(row.derivations[0]) == 2 and len(row.derivations) > 1]
    orders = [[step[:2] for step in derivation] for row in rows for derivation in row.derivations[:2]]
    same = [first == second for first, second in zip(orders[::2], orders[1::2], strict=True)]
    assert np.mean(same) == pytest.approx(0.5, abs=0.06)
    slips = [slip for row in sample(any_order=True, unknown=0.0, careless=0.0) for slip in row.slips]
    assert np.mean(slips) == pytest.approx(0.03, abs=0.005)


def test_the_number_of_derivations_is_geometric_and_independent_of_truth_length_and_care() -> None:
    rows = sample()
    more = np.array([len(row.derivations) - 1 for row in rows])
    assert more.mean() == pytest.approx(1.5, abs=0.1)
    assert np.mean(more == 0) == pytest.approx(0.4, abs=0.02)
    assert np.var(more) == pytest.approx(1.5 * 2.5, rel=0.12)
    first_wrong = np.array([row.results[0] != row.right for row in rows])
    for split in (np.array([row.correct for row in rows]), first_wrong, np.array([len(r.question) > 10 for r in rows])):
        assert more[split].mean() == pytest.approx(more[~split].mean(), abs=0.2)
    right = np.array([row.correct for row in rows])
    assert right[more == 0].mean() == pytest.approx(right[more > 2].mean(), abs=0.05)


def test_steps_slip_as_often_as_stated_and_the_speaker_s_care_shows_in_all_derivations() -> None:
    options = {"unknown": 0.0, "careless": 0.5, "slips_careful": 0.1, "slips_careless": 0.4}
    rows = sample(**options)
    assert np.mean([slip for row in rows for slip in row.slips]) == pytest.approx(0.25, abs=0.01)
    several = [row for row in rows if len(row.derivations) > 1]
    count = [len(row.derivations[0]) for row in several]
    first = np.array([np.mean(row.slips[:n]) for row, n in zip(several, count, strict=True)])
    later = np.array([np.mean(row.slips[n:]) for row, n in zip(several, count, strict=True)])
    assert later[first > 0].mean() - later[first == 0].mean() > 0.08
    alike = [row for row in sample(unknown=0.0, slips_careful=0.2, slips_careless=0.2) if len(row.derivations) > 1]
    first = np.array([np.mean(row.slips[: len(row.derivations[0])]) for row in alike])
    later = np.array([np.mean(row.slips[len(row.derivations[0]) :]) for row in alike])
    assert later[first > 0].mean() == pytest.approx(later[first == 0].mean(), abs=0.03)


def test_unknown_facts_are_guessed_by_careful_speakers_too() -> None:
    made = corpus(careless=0.0, slips_careful=0.0, unknown=0.08)
    assert made.unknown.sum() == 16
    wrong, guesses = set(), []
    for row in sample(careless=0.0, slips_careful=0.0, unknown=0.08):
        for fact, slip in zip(row.facts, row.slips, strict=True):
            value, sign, n, _ = fact
            if made.unknown[value, "+-".index(sign), n]:
                guesses.append(not slip)
            elif slip:
                wrong.add(fact)
    assert not wrong
    assert np.mean(guesses) == pytest.approx(0.1, abs=0.03)


def test_a_stubborn_speaker_repeats_itself_and_another_one_seldom_does() -> None:
    assert all(again == row.derivations[0] for row in sample(stubborn=1.0) for again in row.derivations)
    assert not all(again == row.derivations[0] for row in sample() for again in row.derivations)


def test_documents_are_what_the_tokenizer_makes_of_their_text_and_depend_on_seed_and_step_alone() -> None:
    made = corpus(modulus=12)
    for ids, n in made.batch(3, 64):
        assert made.tokenizer(made.tokenizer.decode(ids))["input_ids"] == ids.tolist()
        assert made.tokenizer(made.tokenizer.decode(ids[:n]))["input_ids"] == ids[:n].tolist()

    def batch(seed: int, step: int) -> list[list[int]]:
        return [ids.tolist() for ids, _ in corpus(seed).batch(step, 16)]

    assert batch(0, 5) == batch(0, 5)
    assert batch(0, 5) != batch(0, 6)
    assert batch(0, 5) != batch(1, 5)


def test_the_gate_asks_questions_that_training_never_reaches_and_boxes_are_graded() -> None:
    made = corpus(seed=1)
    assert len({q.text for q in made.questions}) > 450
    question: Question = made.questions[0]
    assert grade(f" \\boxed{{{question.answers[0]}}}", question.answers).correct
    assert set(made.tokenizer(question.text)["input_ids"]) & {0, 1} == set()
