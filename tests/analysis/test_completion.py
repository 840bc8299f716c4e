"""The contamination probe: where a question is cut, what counts as writing the rest."""

from hypothesis import given
from hypothesis import strategies as st
from stored import RIGHT, WRONG, response

from zerolab.analysis.contamination import (
    SHARES,
    closeness,
    completion,
    cut,
    probes,
    reproduces,
    share_of,
    template_name,
)
from zerolab.analysis.study import study
from zerolab.datatypes import Question

ASKED = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"


@given(st.text("ab \n\u3000é", max_size=60), st.sampled_from(SHARES))
def test_prefix_and_rest_are_the_question_and_no_word_is_cut(text: str, share: float) -> None:
    prefix, rest = cut(text, share)
    assert prefix + rest == text
    if rest:
        assert prefix.split() + rest.split() == text.split()
        assert prefix.split()


def test_about_so_much_is_given() -> None:
    for share in SHARES:
        prefix, _ = cut(ASKED, share)
        assert abs(len(prefix) / len(ASKED) - share) < 0.05
    assert cut(ASKED, 0.6)[0].endswith("white")


def test_words_decide_and_what_follows_is_no_error() -> None:
    _, rest = cut(ASKED, 0.6)
    assert reproduces(" fiber.  How many bolts, in total, does it take? It takes 3.", rest)
    assert not reproduces(" fiber. How many bolts does it take in total?", rest)
    assert closeness(rest + " It takes 3 bolts. \\boxed{3}", rest) == 1
    assert 0.5 < closeness(" fiber. How many bolts does it take in total?", rest) < 1
    assert closeness("", rest) == 0
    assert not reproduces("", rest)


def test_names_of_templates_say_how_much_is_given() -> None:
    assert [share_of(template_name(share)) for share in SHARES] == list(SHARES)
    assert [share_of(name) for name in ("r1", "prefix-", "prefix-x", "prefix-100", "prefix-²")] == [None] * 5


def test_questions_with_hardly_a_rest_are_no_probe() -> None:
    questions = [Question("a", ASKED, ("3",)), Question("b", "What is 2 + 2?", ("4",))]
    assert {(share, q.id) for share, q, _ in probes(questions)} == {(s, "a") for s in SHARES}


def test_a_model_that_has_read_the_benchmark_stands_out() -> None:
    """It writes every rest; another writes something like it; a third nothing of the kind, but solves one by chance."""
    texts = [
        f"Tom has {n} red pens and {n + 3} blue pens. How many pens does Tom have in all after losing one?"
        for n in range(20)
    ]
    rows = []
    for n, text in enumerate(texts):
        _, rest = cut(text, 0.6)
        for model, said in (("read", rest), ("near", rest.replace("Tom", "he")), ("blind", "Solve for x.")):
            right = RIGHT if model == "read" or n == 0 else WRONG
            rows.append(response(n, text=said, problem=text, template="prefix-60", model=model, lenient=right))
    found = {c.model: c for c in completion([*rows, response(template="r1")])}
    assert [found[m].exact.value for m in ("read", "near", "blind")] == [1, 0, 0]
    assert found["read"].rouge == 1 > found["near"].rouge > 0.7 > 0.2 > found["blind"].rouge
    assert [found[m].answered.value for m in ("read", "blind")] == [1, 0.05]
    assert found["near"].rouge_interval.low <= found["near"].rouge <= found["near"].rouge_interval.high


def test_probes_are_no_part_of_accuracy_or_reflection() -> None:
    rows = [response(), response(1, correct=False, text="I recheck", problem=ASKED, template="prefix-40")]
    found = study(rows)
    assert [row.setting.template for row in found.grid] == ["t"]
    assert found.examples == []
    assert [table.name for table in found.tables()][-1] == "completion"
    only = study(rows[1:])
    assert [table.name for table in only.tables()] == ["completion"]
