"""What recorded responses say: rates by question, pass@k, grids, lengths, reflection, and what is written of it."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from stored import RIGHT, WRONG, response

from zerolab.analysis.answering import answering
from zerolab.analysis.exploration import exploration, exploration_table, grid, lengths, powers
from zerolab.analysis.judge import Judge, Verdict
from zerolab.analysis.rates import any_rate, cells, rate
from zerolab.analysis.reflection import examples, page, reflection, rich_examples
from zerolab.analysis.result_table import Table, shown
from zerolab.analysis.study import study, write
from zerolab.evaluation.intervals import Interval, clopper_pearson

THINKS = "It is 2. Let me double-check: no, 1."


def test_a_rate_counts_questions_alike_and_one_sample_each_is_clopper_pearson() -> None:
    found = rate(np.array([1, 1, 1, 0, 0], bool), np.array([0, 0, 0, 1, 1]))
    assert found.value == 0.5
    single = rate(np.array([1] * 13 + [0] * 17, bool), np.arange(30))
    assert single.interval == pytest.approx(clopper_pearson(13, 30))
    assert any_rate(np.array([0, 1, 0, 0], bool), np.array([0, 0, 1, 1])).value == 0.5
    assert rate(np.array([], bool), np.array([], int)).value is None


def test_pass_at_k_is_the_mean_over_subsets_up_to_the_fewest_samples() -> None:
    rows = [response(0, s, s == 0) for s in range(4)] + [response(1, s, s < 3) for s in range(3)]
    found = {p.k: p.value for p in exploration(rows)}
    assert found == {
        1: pytest.approx((1 / 4 + 1) / 2),
        2: pytest.approx((2 / 4 + 1) / 2),
        3: pytest.approx((3 / 4 + 1) / 2),
    }
    assert [p.k for p in exploration(rows, ks=[2, 8])] == [2]
    assert [powers(n) for n in (1, 2, 3, 8, 10)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 10]]


def test_a_truncated_response_with_the_answer_is_right_and_a_length_of_its_own() -> None:
    cut = response(finish_reason="length")
    assert exploration([cut])[0].value == grid([cut])[0].strict.value == grid([cut])[0].truncated.value == 1
    assert {part.kind for part in lengths([cut])} == {"all", "truncated"}
    assert grid([response(finish_reason=None)])[0].truncated.value is None


def test_the_grid_averages_benchmarks_alike_and_names_the_best_template() -> None:
    rows = [response(q, correct=q < 3, benchmark="a", template="r1") for q in range(4)]
    rows += [response(q, correct=False, benchmark="b", template="r1") for q in range(2)]
    rows += [response(q, correct=q < 2, benchmark="a", template="none") for q in range(4)]
    rows += [replace(response(0, benchmark="a", template="none", model="other"), grade=WRONG, lenient=RIGHT)]
    found = {(row.setting.model, row.setting.template): row for row in grid(rows)}
    assert found["m", "r1"].strict.value == pytest.approx((0.75 + 0) / 2)  # not 3 of 6
    assert [key for key, row in found.items() if row.best] == [("m", "none")]  # a single row is no choice
    assert found["other", "none"].gap == 1.0


def test_no_row_is_best_where_nothing_is_right() -> None:
    assert not any(row.best for row in grid([response(correct=False, template=t) for t in ("r1", "none")]))


def test_five_benchmarks_get_a_table_of_their_own() -> None:
    found = study(
        [response(q, correct=q % 2 == 0, benchmark=b) for b in ("a", "b") for q in range(4 if b == "a" else 1)]
    )
    (table,) = [t for t in found.tables() if t.name == "benchmarks"]
    assert table.records() == [{"model": "m", "template": "t", "temperature": 1.0, "a": 0.5, "b": 1.0, "average": 0.75}]
    assert "benchmarks" not in {t.name for t in study([response()]).tables()}


def test_lengths_are_tokens_where_they_are_counted_and_words_elsewhere() -> None:
    (part, *_) = lengths([response(text="a b c", tokens=7)])
    assert (part.unit, part.lengths_N.tolist()) == ("tokens", [7])
    (part, *_) = lengths([response(text="a b c", tokens=7), response(1, text="a b", tokens=None)])
    assert (part.unit, part.lengths_N.tolist()) == ("words", [3, 2])


def test_reflection_counts_where_both_detectors_agree_and_leaves_out_what_no_judge_said() -> None:
    rows = [response(0, 0, text=THINKS), response(0, 1), response(1, 0, text=THINKS), response(1, 1, text=THINKS)]
    said = [Verdict("reflection"), Verdict("reflection"), Verdict("quoted"), None]
    found = {r.detector: r for r in reflection(rows, said)}
    assert [len(found[d].marked) for d in ("keywords", "judge", "both")] == [3, 2, 1]
    assert found["both"].agreement.observed == pytest.approx(1 / 3)
    assert [found[d].per_response.responses for d in ("keywords", "judge", "both")] == [4, 3, 3]
    assert found["keywords"].per_question.value == 1
    assert found["both"].per_question.value == 0.5
    assert found["both"].per_response.value == pytest.approx((0.5 + 0) / 2)
    assert [r.detector for r in reflection(rows)] == ["keywords"]


def test_reflection_goes_by_setting_and_its_accuracy_stays_inside_questions() -> None:
    """At T = 1 hard questions draw reflection and nothing else differs; at T = 2 reflection costs half the accuracy."""
    rng, rows = np.random.default_rng(0), []
    for q in range(80):
        ease = rng.uniform(0.1, 0.9)
        for s in range(12):
            for temperature, cost in ((1.0, 1.0), (2.0, 0.5)):
                thinks = rng.random() < 1 - ease
                solved = rng.random() < ease * (cost if thinks else 1)
                rows.append(response(q, s, solved, THINKS if thinks else "So 1.", temperature=temperature))
    one, two = reflection(rows)
    assert (one.setting.temperature, two.setting.temperature) == (1.0, 2.0)
    assert one.accuracy.interval.low < 0 < one.accuracy.interval.high
    assert one.accuracy.pooled_difference < -0.1
    assert two.accuracy.interval.high < -0.1


def test_answering_compares_rules_and_judge() -> None:
    rows = [response(q, text="The answer is 1.") for q in range(6)]
    rows += [response(q, 1, text="What is 2?") for q in range(6)]
    said = [Verdict("answers")] * 5 + [Verdict("continues")] * 6 + [None]
    (row,) = answering(rows, said)
    assert (row.rules.value, row.judge.value) == (0.5, pytest.approx((5 * 1 / 2 + 0) / 6))
    assert (row.agreement.items, row.agreement.observed) == (11, pytest.approx(10 / 11))
    assert row.by_rule == {"final answer": 6, "sets a task": 6}


class Reader(HTMLParser):
    """Tags and the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.text, self.marked = [], "", ""

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)

    def handle_data(self, data) -> None:
        self.text += data
        if self.tags and self.tags[-1] == "mark":
            self.marked += data
            self.tags.append("")


def test_an_example_shows_the_passage_and_runs_nothing() -> None:
    attack = '<script>alert(1)</script> I recheck. "><img src=x onerror=alert(1)> & <b>'
    shown_ = examples([response(text=attack, model="<i>", problem="</pre><script>")], [Verdict("reflection", "<b>")])
    reader = Reader()
    reader.feed(page(shown_))
    assert not {"script", "img", "b", "i"} & set(reader.tags)
    assert attack in reader.text
    assert reader.marked == "recheck<b>"
    console = Console(record=True, width=200, force_terminal=True)
    console.print(rich_examples([*shown_, *examples([response(text="\x1b]0;owned\x07 [red]I recheck[/red] \x1b[2J")])]))
    text = console.export_text(styles=False)
    assert "[red]I recheck[/red]" in text
    assert not re.search(r"[\x1b\x07]", text)


def test_examples_take_right_and_wrong_in_turn_and_agreed_ones_first() -> None:
    rows = [response(q, correct=q % 3 == 0, text=THINKS) for q in range(12)]
    said = [Verdict("reflection" if q > 5 else "none") for q in range(12)]
    found = examples(rows, said, count=4)
    assert [e.response.question_id for e in found] == ["q6", "q7", "q9", "q8"]
    assert examples([response()]) == []


def judged(texts, attempt):
    for i, text in enumerate(texts):
        about = "reflection" if "reflection" in text.split("Question and response")[0] else "answering"
        label = ("reflection" if "double-check" in text else "none") if about == "reflection" else "answers"
        yield i, json.dumps({"category": label, "evidence": ""}) if attempt or i % 5 else "?"


def test_a_study_writes_tables_figures_and_one_json_that_agree(tmp_path: Path) -> None:
    rows = [
        response(q, s, (q + s) % 3 > 0, THINKS if s % 2 else "So 1.", temperature=t, template=template)
        for q in range(6)
        for s in range(4)
        for t in (0.5, 1.0)
        for template in ("r1", "none")
    ]
    found = study(rows, Judge("j", judged))
    written = {path.name for path in write(found, tmp_path)}
    assert written == {path.name for path in tmp_path.iterdir()}
    content = json.loads((tmp_path / "analysis.json").read_text())
    for name, table in content["tables"].items():
        with (tmp_path / f"{name}.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in table["rows"]] == lines
    pictures = {name.removesuffix(".png") for name in written if name.endswith(".png")}
    assert pictures == {"grid", "answering", "exploration", "reflection", "reflection_accuracy", "lengths_histogram"}
    assert all(f"{name}.csv" in written for name in pictures)
    assert all((tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in pictures)
    counts = content["judge_counts"]["reflection"]
    assert (counts["missing"], counts["judged"] + counts["cached"]) == (0, len({(r.problem, r.response) for r in rows}))
    assert counts["garbage"] > 0
    rates = {
        (r["temperature"], r["template"], r["detector"]): r["of responses"]
        for r in content["tables"]["reflection"]["rows"]
    }
    assert set(rates.values()) == {0.5}
    assert len(rates) == 2 * 2 * 3


def test_text_that_is_no_unicode_and_names_that_are_no_names_harm_nothing(tmp_path: Path) -> None:
    rows = []
    for n, model in enumerate(["$\\frac{$", "a\x00b\x1b[2J", "../../up", "=1+1", "\udc80", "m" * 500, "[/bold]"]):
        text = "\udc80 \x00 recheck \x1b]0;x\x07" * (n + 1)
        rows += [response(q, 0, q % 2 == 0, text, model=model) for q in range(3)]
    found = study(rows, Judge("j", judged))
    write(found, tmp_path)
    assert "recheck" in (tmp_path / "examples.html").read_text(encoding="utf-8")
    assert len(json.loads((tmp_path / "analysis.json").read_text())["tables"]["grid"]["rows"]) == 7
    console = Console(record=True, width=120)
    for table in found.tables():
        console.print(table.rich())
    console.print(rich_examples(found.examples))
    assert not set("\x00\x1b\x07\udc80") & set(console.export_text())


def test_a_table_shows_numbers_short_and_text_as_it_is() -> None:
    cases = [
        (None, "-"),
        (float("nan"), "-"),
        (0.12345, "0.123"),
        (-0.0001, "-1.0e-04"),
        (0.0, "0.000"),
        (1234.5, "1234.5"),
    ]
    cases += [(3, "3"), (True, "yes"), (Interval(0.1, 0.25), "[0.100, 0.250]"), ("a\x1b[0m", "a\\x1b[0m")]
    assert [shown(cell) for cell, _ in cases] == [text for _, text in cases]
    pass_at = exploration_table(exploration([response(0, s, s == 0) for s in range(4)]))
    console = Console(record=True, width=120)
    console.print(pass_at.rich())
    exported = console.export_text()
    assert all(text in exported for text in ("pass@1", "pass@4", "0.250", "1.000"))
    table = Table("n", "t", ("model", "x", "y"), (("[bold]m[/bold]", Interval(0.1, 0.2), None),))
    assert table.records() == [{"model": "[bold]m[/bold]", "x_low": 0.1, "x_high": 0.2, "y": None}]
    console = Console(record=True, width=80)
    console.print(table.rich())
    assert "[bold]m[/bold]" in console.export_text()


def test_cells_are_settings_in_order() -> None:
    rows = [response(temperature=t, template=n) for t in (1.0, 0.2) for n in ("b", "a")] + [
        response(1, temperature=None)
    ]
    assert [c.setting.label for c in cells(rows)] == ["m a T=0.2", "m a T=1", "m b T=0.2", "m b T=1", "m t"]


@pytest.mark.parametrize("temperatures", [(None,), (0.0,), (None, 0.0), (None, 1.0), (0.0, 0.6, 1.0)])
def test_responses_are_drawn_whatever_they_say_of_their_temperature(
    temperatures: tuple[float | None, ...], tmp_path: Path
) -> None:
    """A file of somebody else names none; a model may be sampled greedily beside one that is not."""
    found = [
        response(q, s, model=f"m{i}", temperature=t)
        for i, t in enumerate(temperatures)
        for q in range(2)
        for s in range(2 if t else 1)
    ]
    written = write(study(found), tmp_path)
    assert tmp_path / "exploration.png" in written
