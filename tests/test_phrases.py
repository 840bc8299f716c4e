"""The words of self-reflection are found where they stand, and nowhere else."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerolab.phrases import PHRASES, SCOPES, Hit, _compiled, find_phrases, pieces

FORMS = [(phrase, form) for phrase in PHRASES for form in phrase.forms]


@pytest.mark.parametrize(("phrase", "form"), FORMS, ids=[form for _, form in FORMS])
def test_every_form_is_found_in_its_scope_in_any_case(phrase, form) -> None:
    word = form.rstrip("!")
    for written in (word, word.upper(), word.replace(" ", "\n "), word.replace("'", "’"), word.replace("-", "‐")):
        text = f"So {written}, then."
        (hit, *more) = find_phrases(text, "wide")
        assert (text[hit.start : hit.end], more) == (written, [])
        assert bool(find_phrases(text, "paper")) == (phrase.scope == "paper")


def test_every_keyword_of_the_paper_is_found() -> None:
    keywords = "recheck rethink reassess reevaluate re-evaluate reevaluation re-examine reexamine reconsider reanalyze"
    for word in [*keywords.split(), "double-check", "check again", "think again", "verify again", "go over the steps"]:
        assert find_phrases(f"I will {word} now"), word


@pytest.mark.parametrize(
    "text",
    [
        "a precheck of rethinkers",
        r"\recheck{x} and \reconsider",
        "re_check recheck_1 recheck2",
        "check\n\n\n\n\n\n\nagain",
        "think against it; check against the rule",
        "He waits. Wait 5 minutes at the stop. They await, wait for it",
        "hold on to the rope",
        "we're thinking; they’re checking, and re: check",
        "",
    ],
)
def test_what_only_looks_like_one_is_not(text: str) -> None:
    assert find_phrases(text, "wide") == ()


def test_a_pause_tells_the_interjection_from_the_verb() -> None:
    assert [h.phrase for h in find_phrases("Wait, I see. wait\nWait for me. Wait", "wide")] == ["wait"] * 3


@given(st.lists(st.sampled_from(["recheck", "Wait,", " ", "\n", "<b>", "&", "x", "double–check", "’"]), max_size=30))
def test_pieces_put_the_text_together_again_and_mark_the_hits(words: list[str]) -> None:
    text = "".join(words)
    hits = find_phrases(text, "wide")
    parts = list(pieces(text, hits))
    assert "".join(part for part, _ in parts) == text
    assert [part for part, marked in parts if marked] == [text[h.start : h.end] for h in hits]
    shown = "".join(f"<mark>{html.escape(p)}</mark>" if m else html.escape(p) for p, m in parts)
    assert "<b>" not in shown


def test_a_hostile_text_costs_no_more_than_its_length() -> None:
    """Would not end before the suite's patience if a pattern backtracked."""
    for bad in ("check " + " " * 300_000, "re-" * 200_000, "go over " * 100_000, "wait" + " " * 300_000 + "x"):
        assert find_phrases(bad, "wide") == ()


def test_spans_do_not_move_with_letters_that_change_length_in_lower_case() -> None:
    text = "İİİ recheck"
    assert find_phrases(text) == (Hit(4, 11, "re-check"),)


@given(
    st.lists(
        st.sampled_from(
            [
                *(form.rstrip("!") for _, form in FORMS),
                "-",
                "‐",
                " ",
                "\n",
                "'",
                "’",
                "!",
                ",",
                "a",
                "İ",
                "\\",
                "RE",
                "x",
            ]
        ),
        max_size=12,
    )
)
def test_the_quick_look_before_the_pattern_changes_nothing(words: list[str]) -> None:
    text = "".join(words)
    for scope in SCOPES:
        pattern, _ = _compiled(scope)
        assert [(h.start, h.end) for h in find_phrases(text, scope)] == [m.span() for m in pattern.finditer(text)]
