"""L1 without markers: what a transcript tells of a policy; a cell of a transformer is a function of its seeds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zerolab.claims.experiments import length_natural
from zerolab.claims.experiments.length_statements import decisions, measure_step_use, step_use
from zerolab.claims.results import write_table
from zerolab.claims.training import laptop_base
from zerolab.worlds.base_model import pretrain


@pytest.mark.parametrize(
    ("response", "found"),
    [
        (" 7 + 5 = 2 - 8 = 4 \\boxed{4}", [(True, False)]),
        (" 7 + 5 = 3 - 8 = 5 again: 7 + 5 = 2 - 8 = 4 \\boxed{4}", [(False, True), (True, False)]),
        (" 7 + 5 = 2 - 8 = 4 again: 7 + 5 = 2 - 8", [(True, True)]),  # cut off: nothing was decided after the last
        (" 7 + 5 = 2 - 8 = 4 again: again: 7", [(True, True)]),
        ("\\boxed{4} = ", []),
        ("", []),
    ],
)
def test_every_derivation_is_one_decision(response: str, found: list[tuple[bool, bool]]) -> None:
    assert list(decisions(response, "4")) == found


def test_step_use_is_the_difference_between_going_on_after_wrong_and_right_results(tmp_path: Path) -> None:
    right, wrong = " 7 - 3 = 4", " 7 - 3 = 5"
    early = [f"{wrong} again:{right} \\boxed{{4}}", f"{wrong} \\boxed{{5}}", f"{right} again:{right} \\boxed{{4}}"]
    late = [f"{wrong} again:{right} \\boxed{{4}}", f"{right} \\boxed{{4}}"]
    rows = [{"step": 1, "response": r, "answers": ["4"]} for r in early]
    rows += [{"step": 25, "response": wrong, "answers": ["4"]}]  # between the windows
    rows += [{"step": step, "response": r, "answers": ["4"]} for step in (35, 36) for r in late]
    (tmp_path / "transcripts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = measure_step_use(tmp_path)
    assert found["step_use_start"] == pytest.approx(1 / 2 - 1 / 3)
    assert found["derived_right_start"] == pytest.approx(3 / 5)
    assert found["step_use_end"] == 1
    assert np.isnan(step_use([{"response": right + " \\boxed{4}", "answers": ["4"]}])["step_use"])


def test_two_runs_of_a_cell_give_the_same_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole cell at a toy size: base from a recipe, RL, metrics and transcripts, table."""
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    small = laptop_base(0, "laptop/chain-base", longest=2)
    shape = small.architecture.model_copy(update={"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16})
    gate = small.gate.model_copy(update={"responses": 1, "max_new_tokens": 4})
    small = small.model_copy(update={"steps": 12, "architecture": shape, "gate": gate})
    pretrain(small)

    def base(factors: Any) -> Any:
        return small

    monkeypatch.setattr(length_natural, "base", base)
    toy = ("steps=3", "rollout.questions_per_step=2", "rollout.max_new_tokens=12", "questions.options={longest=2}")
    monkeypatch.setattr(length_natural, "TASK", (*length_natural.TASK, *toy))
    factors = {"condition": "reference", "arm": "grpo", "base": 0}
    runs = [
        length_natural.run({**factors, "seed": seed}, tmp_path / name)
        for name, seed in zip("abc", (0, 0, 1), strict=True)
    ]
    for name, numbers in zip("abc", runs, strict=True):
        write_table(tmp_path / f"{name}.csv", [{**factors, **numbers}])
    texts = [(tmp_path / f"{name}.csv").read_text() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]
    assert runs[0]["tokens_start"] > 0
