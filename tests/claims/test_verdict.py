"""The rule that turns data into a verdict, on data whose answer is known."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tools.ledger_tables import claim_pages

from zerolab.claims.experiments import length_transformer, random_reward
from zerolab.claims.experiments.length_statements import GROWS, STAYS, UNTRAINED, main_statements
from zerolab.claims.protocol import INFINITY, Statement, chosen, number, paired, window
from zerolab.claims.report import page
from zerolab.claims.results import write_results
from zerolab.claims.verdict import Finding, control_state, findings, judge, overall


def draws(mean: float, spread: float, count: int, seed: int = 0) -> np.ndarray:
    """Values with exactly this mean and sample standard deviation."""
    values = np.random.default_rng(seed).normal(size=count)
    return mean + spread * (values - values.mean()) / values.std(ddof=1)


def found(values: np.ndarray, region: tuple[float, float], **more: object) -> Finding:
    return judge(Statement("", lambda _: [], region, **more), values)  # type: ignore[arg-type]


def test_an_effect_is_found_a_null_is_called_null_and_too_few_seeds_are_said_to_be() -> None:
    grows = (GROWS, INFINITY)
    assert found(draws(20, 3, 5), grows).verdict == "reproduced"
    assert found(draws(0, 3, 5), grows).verdict == "not reproduced"
    assert found(draws(8, 3, 5), grows).verdict == "underpowered"  # an effect, but perhaps too small a one
    assert found(draws(20, 3, 2), grows).verdict == "underpowered"
    assert found(np.array([20.0]), grows).verdict == "underpowered"
    assert found(np.array([]), grows).verdict == "underpowered"
    assert found(draws(8, 3, 40), grows).verdict == "reproduced"  # more seeds tell


def test_the_interval_is_that_of_student() -> None:
    """Mean 10, sd 2, n = 4: 10 +- 3.182 * 2 / 2."""
    f = found(draws(10, 2, 4), (0, 20))
    assert (f.low, f.high) == (pytest.approx(10 - 3.1824, abs=1e-3), pytest.approx(10 + 3.1824, abs=1e-3))
    assert (f.estimate, f.replicates) == (pytest.approx(10), 4)


def test_equivalence_is_two_one_sided_tests() -> None:
    alike = {"region": (-0.02, 0.02), "level": 0.90}
    assert found(draws(0.001, 0.004, 5), **alike).verdict == "reproduced"
    assert found(draws(0.05, 0.004, 5), **alike).verdict == "not reproduced"
    assert found(draws(0.001, 0.05, 5), **alike).verdict == "underpowered"


def test_at_its_level_an_interval_covers_the_truth_and_a_null_is_seldom_taken_for_an_effect() -> None:
    generator = np.random.default_rng(1)
    covered, false_positive = 0, 0
    for _ in range(2000):
        f = found(generator.normal(size=5), (0.0, INFINITY))
        covered += f.low <= 0 <= f.high
        false_positive += f.verdict == "reproduced"
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)
    assert false_positive / 2000 == pytest.approx(0.025, abs=0.012)


def test_values_that_agree_exactly_do_not_pass_for_certainty() -> None:
    same = np.full(4, 7.0)
    assert found(same, (5.0, INFINITY)).verdict == "underpowered"
    assert found(np.full(6, 7.0), (5.0, INFINITY)).verdict == "reproduced"  # the sign test's six coins
    assert found(same, (5.0, INFINITY), exact=True).verdict == "reproduced"
    assert found(np.array([7.0, 4.0]), (5.0, INFINITY), exact=True).verdict == "metric cannot tell"


def test_missing_numbers_are_missing_replicates() -> None:
    f = found(np.array([20.0, np.nan, 21.0, np.inf, 22.0]), (5.0, INFINITY))
    assert (f.replicates, f.estimate) == (3, pytest.approx(21))


def parts_of(*parts: tuple[str, str]) -> list[Finding]:
    return [Finding("", role, 0, 0, 0, 5, (0, 1), "", v) for role, v in parts]  # type: ignore[arg-type]


def verdict_of(*parts: tuple[str, str]) -> str:
    return overall(parts_of(*parts))


def test_a_claim_is_as_good_as_its_weakest_statement() -> None:
    assert verdict_of(("claim", "reproduced"), ("control", "passed")) == "reproduced"
    assert verdict_of(("claim", "reproduced"), ("claim", "not reproduced"), ("control", "passed")) == "not reproduced"
    assert verdict_of(("claim", "reproduced"), ("claim", "underpowered")) == "underpowered"
    assert verdict_of(("claim", "reproduced"), ("claim", "metric cannot tell")) == "metric cannot tell"
    assert verdict_of(("claim", "reproduced"), ("shown", "")) == "reproduced"
    assert verdict_of(("shown", "")) == "underpowered"


def test_a_failed_control_makes_an_experiment_inconclusive_and_never_refutes_the_claim() -> None:
    for claim in ("reproduced", "not reproduced", "underpowered"):
        assert verdict_of(("claim", claim), ("control", "failed")) == "control failed (inconclusive)"
        assert verdict_of(("claim", claim), ("control", "passed"), ("check", "failed")) == "check failed"
    assert verdict_of(("claim", "not reproduced"), ("control", "underpowered")) == "underpowered"
    f = found(draws(-0.175, 0.025, 5), (-0.1, 0.1), role="control", level=0.90)  # that of D2's first version
    assert f.verdict == "failed"
    assert verdict_of(("claim", "not reproduced"), (f.role, f.verdict)) == "control failed (inconclusive)"


def test_the_state_of_the_controls_is_said_apart_from_the_claim() -> None:
    assert control_state(parts_of(("claim", "not reproduced"), ("control", "passed"))) == "passed"
    assert control_state(parts_of(("control", "passed"), ("control", "underpowered"))) == "undecided"
    assert control_state(parts_of(("control", "underpowered"), ("check", "failed"))) == "failed"
    assert control_state(parts_of(("claim", "reproduced"), ("shown", ""))) == ""


def test_an_identity_checks_the_code_and_reproduces_nothing() -> None:
    assert verdict_of(("check", "passed"), ("check", "passed")) == "check passed"
    assert verdict_of(("check", "passed"), ("check", "failed")) == "check failed"
    assert found(np.array([1.41]), (1.2, INFINITY), role="check", exact=True).verdict == "passed"


def test_a_share_has_an_interval_of_shares_and_what_is_only_shown_has_no_verdict() -> None:
    wide = np.array([0.01, 0.02, 0.05, 0.9, 0.12])  # a t interval reaches below 0
    plain, share = (found(wide, (0.0, 1.0), role="shown", share=s) for s in (False, True))
    assert plain.low < 0 < share.low < share.estimate < share.high < 1
    assert plain.verdict == share.verdict == ""
    near = draws(0.5, 0.01, 8)
    assert found(near, (0, 1), share=True).low == pytest.approx(found(near, (0, 1)).low, abs=1e-3)
    assert found(np.zeros(8), (0, 1), share=True).high == 0


def test_underpowered_says_how_many_units_would_decide_and_else_the_metric_cannot_tell() -> None:
    few = found(draws(6, 1, 4), (5.0, INFINITY))
    assert few.verdict == "underpowered"
    assert few.needed is not None
    assert few.needed > 4
    assert found(draws(6, 1, few.needed), (5.0, INFINITY)).verdict == "reproduced"
    assert found(draws(6, 1, few.needed - 1), (5.0, INFINITY)).verdict == "underpowered"
    on_the_border = found(draws(5.01, 1, 20), (5.0, INFINITY))
    assert (on_the_border.verdict, on_the_border.needed) == ("metric cannot tell", None)
    assert found(np.array([]), (5.0, INFINITY)).needed == 3


def runs_on_bases(bases: int, seeds: int, between: float, within: float) -> list[dict[str, float]]:
    generator = np.random.default_rng(3)
    effects = 20 + between * generator.normal(size=bases)
    rows = [(b, s, e + within * generator.normal()) for b, e in enumerate(effects) for s in range(seeds)]
    return [{"arm": "a", "base": b, "seed": s, "growth": v} for b, s, v in rows]


def test_the_unit_of_replication_is_the_base_and_seeds_lie_inside() -> None:
    table = runs_on_bases(2, 5, between=1, within=0.1)
    values = number("growth", arm="a")(table)
    assert len(values) == 2
    assert values[0] == pytest.approx(np.mean([row["growth"] for row in table[:5]]))
    statement = Statement("grows", number("growth", arm="a"), (5.0, INFINITY))
    protocol = dataclasses.replace(length_transformer.PROTOCOL, statements=(statement,))
    [two] = findings(protocol, table)
    assert (two.replicates, two.replicate, two.verdict, two.needed) == (2, "base", "underpowered", 5)
    [five] = findings(protocol, runs_on_bases(5, 2, between=1, within=0.1))
    assert (five.replicates, five.verdict) == (5, "reproduced")
    seeds = dataclasses.replace(protocol, statements=(dataclasses.replace(statement, replicate="seed"),))
    [apart] = findings(seeds, table[:5])
    assert (apart.replicates, apart.replicate) == (5, "seed")


def test_growth_is_measured_from_the_base_before_training_and_not_from_the_arm_s_first_steps() -> None:
    """GRPO's first ten steps are longer already, so growth from them is too small."""
    rows = [
        {"condition": "reference", "arm": arm, "base": base, "seed": 0, "incorrect_end": end, "growth": end - start}
        for base in range(5)
        for arm, start, end in (("grpo", 20, 24 + base), ("dr_grpo", 14, 13 + base), (UNTRAINED, 12, 12 + base))
    ]
    statements = {s.text: s for s in main_statements("reference")}
    grows = statements["incorrect answers grow under GRPO"].values
    assert grows(rows) == [12] * 5
    assert statements["they do not under Dr. GRPO"].values(rows) == [1] * 5
    assert statements["length of incorrect answers at the end, GRPO minus Dr. GRPO"].values(rows) == [11] * 5
    assert grows([row for row in rows if row["arm"] != UNTRAINED]) == [4 + base for base in range(5)]


def test_pairs_are_made_within_base_and_seed_and_windows_skip_what_was_not_measured() -> None:
    runs = (("a", 0, 1, 10), ("b", 0, 1, 3), ("a", 1, 0, 20), ("b", 1, 0, 5), ("a", 1, 1, 99))
    table = [dict(zip(("arm", "base", "seed", "growth"), values, strict=True)) for values in runs]
    assert paired(table, "growth", {"arm": "a"}, {"arm": "b"}) == [7, 15]
    assert [row["seed"] for row in chosen(table, arm="a")] == [1, 0, 1]
    assert window([1, float("nan"), 10, 10, 20, 30]) == (1, 25)
    assert np.isnan(window([float("nan")] * 6)).all()
    assert STAYS < GROWS


def test_what_a_number_is_net_of_its_control_stands_beside_it_and_decides_nothing(tmp_path: Path) -> None:
    protocol = random_reward.PROTOCOL
    gains = {("verdict", 0): 0.3, ("verdict", 1): 0.32, ("verdict", 2): 0.34, ("random-reward", 0): 0.1,
             ("random-reward", 1): 0.1, ("random-reward", 2): 0.13}  # fmt: skip
    table = [
        {"arm": arm, "reward": r, "seed": s, "gain": g} for arm in ("grpo", "dr_grpo") for (r, s), g in gains.items()
    ]
    shown = {f.text: f for f in findings(protocol, table)}["dr_grpo: the true reward does"]
    assert shown.net is not None
    assert shown.estimate == pytest.approx(0.32)
    assert shown.net[0] == pytest.approx((0.2 + 0.22 + 0.21) / 3)
    assert shown.net[1] < 0.2 < shown.net[0] < shown.net[2]
    assert judge(protocol.statements[0], [0.0]).net is None
    session = {"quick": True, "seeds": [0, 1, 2], "cells": 12, "date": "", "cores": 1, "seconds": 1, "platform": ""}
    write_results(tmp_path / "laptop" / protocol.id, protocol, table, session)
    assert "<th>net of control</th>" in page(tmp_path)
    text = claim_pages(tmp_path)["C0.md"]
    assert "| role | statement | estimate | interval | replicates | holds in | net of control | verdict |" in text
    assert "| 0.21, 0.185 .. 0.235 |" in text
