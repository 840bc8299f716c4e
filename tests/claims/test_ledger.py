"""The ledger as a user meets it: list, show, dry run, run, resume, report."""

import ast
import csv
import dataclasses
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from tools.ledger_tables import claim_pages, headlines, ledger

from command import run
from zerolab.claims.command import run_one
from zerolab.claims.experiments import question_weight
from zerolab.claims.ledger import CLAIMS, MODULES, find, protocols
from zerolab.claims.protocol import LABELS, Cell, Plan, Protocol
from zerolab.claims.results import (
    cell_folder,
    committed_cells,
    judge_again,
    judged,
    load_cell,
    read_table,
    save_cell,
    write_results,
    write_table,
)
from zerolab.claims.runner import missing, run_cells, table
from zerolab.claims.training import laptop_base, run_config
from zerolab.claims.verdict import RULES, findings, overall
from zerolab.config import RunConfig
from zerolab.errors import UserError
from zerolab.worlds.base_model import cache_folder

SOURCE = Path(__file__).resolve().parents[2] / "src" / "zerolab" / "claims" / "experiments"
EXACT = Plan(())  # of L2: the cells without training


def test_protocols_are_short_methods_paragraphs_with_everything_fixed() -> None:
    assert len({p.id for p in protocols()}) == len(MODULES)
    for name in MODULES:
        text = (SOURCE / f"{name}.py").read_text(encoding="utf-8")
        assert text.count("\n") <= 150, f"{name} is no methods paragraph any more"
        assert len(ast.get_docstring(ast.parse(text)) or "") > 300
    for protocol in protocols():
        assert protocol.claim in CLAIMS
        assert protocol.id.startswith(protocol.claim)
        roles = {s.role for s in protocol.statements}
        assert roles >= {"claim", "control"} or (roles == {"check"} and protocol.label == "algebra")
        assert protocol.primary in protocol.statements
        full, quick = (protocol.cells(protocol.plan(quick=q)) for q in (False, True))
        assert len({cell.key for cell in full}) == len(full)
        assert {cell.key for cell in quick} <= {cell.key for cell in full}
        assert all(re.fullmatch(r"[\w=,. +-]+", cell.key) for cell in full)


def test_names_are_found_in_any_case_and_near_ones_offered() -> None:
    assert {p.id for p in find("l1")} == {p.id for p in protocols() if p.claim == "L1"}
    assert [p.id for p in find("L2.weight")] == ["L2.weight"]
    with pytest.raises(UserError, match="did you mean"):
        find("L1.polcy")


def test_cells_run_once_go_on_after_an_interruption_and_give_the_same_table(tmp_path: Path) -> None:
    protocol, console = question_weight.PROTOCOL, Console(quiet=True)
    works = [tmp_path / "a", tmp_path / "b"]
    for work in works:
        run_cells(protocol, EXACT, work, console)
        assert missing(protocol, EXACT, work) == []
    cells = protocol.cells(EXACT)
    lost, cut_short, kept = (cell_folder(works[0], cell) / "cell.json" for cell in cells[:3])
    lost.unlink()
    cut_short.write_text(cut_short.read_text()[:20])
    before = kept.stat().st_mtime_ns
    assert missing(protocol, EXACT, works[0]) == cells[:2]
    run_cells(protocol, EXACT, works[0], console)
    assert kept.stat().st_mtime_ns == before
    for name, work in zip("ab", works, strict=True):
        write_results(tmp_path / name, protocol, table(protocol, EXACT, work), {"quick": False, "seeds": []})
    assert (tmp_path / "a" / "cells.csv").read_text() == (tmp_path / "b" / "cells.csv").read_text()
    rows = read_table(tmp_path / "a" / "cells.csv")
    assert len(rows) == len(cells)
    half = next(r for r in rows if (r["arm"], r["size"], r["p"]) == ("grpo", 8, 0.5))
    assert half["weight"] == pytest.approx(1.74, abs=0.005)
    record = json.loads((tmp_path / "a" / "verdict.json").read_text())
    exact = [s for s in record["statements"] if "in training" not in s["text"]]
    assert {s["verdict"] for s in exact} == {"passed"}
    assert record["verdict"] == "underpowered"  # the trained part has not run
    assert (tmp_path / "a" / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_another_machine_goes_on_from_the_committed_lines(tmp_path: Path) -> None:
    """The work folder is empty there: only cells whose line is missing or of other inputs are run."""
    protocol, console = question_weight.PROTOCOL, Console(quiet=True)
    run_cells(protocol, EXACT, tmp_path / "a", console)
    rows = table(protocol, EXACT, tmp_path / "a")
    write_results(tmp_path / "results", protocol, rows, {"quick": False, "seeds": []})
    lines = (tmp_path / "results" / "cells.csv").read_text().splitlines(keepends=True)
    text = "".join([*lines[:3], lines[3].replace(rows[2]["fingerprint"], "0" * 16), *lines[5:]])
    (tmp_path / "results" / "cells.csv").write_text(text)
    committed, cells = committed_cells(tmp_path / "results"), protocol.cells(EXACT)
    assert missing(protocol, EXACT, tmp_path / "b") == cells
    assert missing(protocol, EXACT, tmp_path / "b", committed) == cells[2:4]
    assert missing(dataclasses.replace(protocol, version="next"), EXACT, tmp_path / "b", committed) == cells
    run_cells(protocol, EXACT, tmp_path / "b", console, committed)
    assert len(list((tmp_path / "b").glob("*/cell.json"))) == 2
    write_results(tmp_path / "again", protocol, table(protocol, EXACT, tmp_path / "b", committed), {"quick": False})
    assert (tmp_path / "again" / "cells.csv").read_text() == "".join(lines)


def test_lines_of_finished_cells_are_kept_when_a_run_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, results = question_weight.PROTOCOL, tmp_path / "results"

    def stopped(protocol: Protocol, plan: Plan, work: Path, console: Console, committed: Any) -> None:
        for cell in protocol.cells(plan)[:5]:
            save_cell(work, cell, protocol, {"weight": 1.0})
        raise KeyboardInterrupt

    monkeypatch.setattr("zerolab.claims.command.run_cells", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_one(protocol, EXACT, results, tmp_path / "work", Console(quiet=True))
    folder = results / protocol.id
    assert len(read_table(folder / "cells.csv")) == 5
    record = json.loads((folder / "verdict.json").read_text())
    assert (record["cells"], record["planned"]) == (5, 104)
    older = "kind,arm\nexact,grpo\n"  # of a version without fingerprints: the new lines are too few to replace it
    (folder / "cells.csv").write_text(older)
    with pytest.raises(KeyboardInterrupt):
        run_one(protocol, EXACT, results, tmp_path / "work", Console(quiet=True))
    assert (folder / "cells.csv").read_text() == older


def test_the_label_of_an_experiment_says_what_its_verdict_is_worth() -> None:
    labels = {p.id: p.label for p in protocols()}
    assert {name for name, label in labels.items() if label == "planted"} >= {
        *("L1.policy", "L1.transformer", "B1.answering", "B2.exploration", "B3.reflection", "T1.templates")
    }
    assert {name for name, label in labels.items() if label == "designed"} >= {"D1.columns", "D2.columns", "D3.columns"}
    assert {name for name, label in labels.items() if label == "open"} >= {"L1.natural", "C0.random", "B4.accuracy"}
    assert labels["L2.weight"] == "algebra"
    assert all("bias meter" not in s.text or s.role == "check" for p in protocols() for s in p.statements)


def test_old_tables_are_judged_by_the_rules_of_today_and_said_to_be_exploratory(tmp_path: Path) -> None:
    """The first version of L1.transformer: two bases with five seeds, which once counted as ten."""
    protocol = next(p for p in protocols() if p.id == "L1.transformer")
    rows = [
        {"condition": "reference", "arm": arm, "base": base, "seed": seed, "growth": growth + base}
        | {"incorrect_end": growth + 10, "gap_end": growth, "accuracy_end": 0.5, "tokens_per_correct_end": 9}
        | {"normaliser_pressure_end": 0.0, "clipped_gradients_end": 0.0}
        for arm, growth in {"grpo": 40, "dr_grpo": 0, "grpo_std_fix": 40, "grpo_length_fix": 0}.items()
        for base in (0, 1)
        for seed in range(5)
    ]
    folder = tmp_path / "laptop" / protocol.id
    folder.mkdir(parents=True)
    write_table(folder / "cells.csv", rows)
    (folder / "verdict.json").write_text(
        json.dumps({"verdict": "reproduced", "cells": 40, "seeds": [0], "quick": False})
    )
    record = judge_again(folder, protocol)
    assert record is not None
    assert record == json.loads((folder / "verdict.json").read_text())
    assert record["verdict"] == "underpowered"
    assert "exploratory" in record["fixed"]
    assert record["cells"] == 40
    grows = record["statements"][0]
    assert (grows["replicates"], grows["replicate"], grows["verdict"]) == (2, "base", "underpowered")
    new = dict(record, protocol={"version": protocol.version, "rules": RULES})
    (folder / "verdict.json").write_text(json.dumps(new))
    again = judge_again(folder, protocol)
    assert again is not None
    assert again["fixed"] == protocol.fixed


def test_a_cell_of_an_older_protocol_is_run_again(tmp_path: Path) -> None:
    protocol = question_weight.PROTOCOL
    run_cells(protocol, EXACT, tmp_path, Console(quiet=True))
    assert missing(protocol, EXACT, tmp_path) == []
    newer = dataclasses.replace(protocol, version=protocol.version + "b")
    assert missing(newer, EXACT, tmp_path) == protocol.cells(EXACT)


def test_the_command_line_lists_shows_estimates_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("claims", "list") == 0
    listed = capsys.readouterr().out
    assert all(claim in listed for claim in CLAIMS)
    assert all(p.id in listed for p in protocols())
    assert run("claims", "show", "L1.policy") == 0
    shown = capsys.readouterr().out
    assert "refuted by" in shown
    assert "Dr. GRPO" in shown
    assert run("claims", "run", "--all", "--dry-run") == 0
    assert "of one core" in capsys.readouterr().out
    assert run("claims", "run", "L1", "--scale", "paper") == 0
    assert "needs hardware" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run",), "name the claims"),
        (("run", "L1", "--all"), "name the claims"),
        (("run", "L9"), "no claim 'L9'"),
        (("run", "L1", "--scale", "moon"), "laptop, gpu, paper"),
        (("run", "L1", "--seeds", "0"), "--seeds must be 1 or more"),
        (("report",), "holds no results"),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("claims", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_page_and_the_document_hold_what_was_measured_and_nothing_of_a_hostile_file_runs(tmp_path: Path) -> None:
    from zerolab.claims.report import write

    protocol = question_weight.PROTOCOL
    work, results = tmp_path / "work", tmp_path / "results"
    run_cells(protocol, EXACT, work, Console(quiet=True))
    session = {
        "quick": True, "seeds": [], "cells": 104, "date": "2026-01-01", "cores": 2, "seconds": 3,
        "platform": "<script>alert(1)</script>",
    }  # fmt: skip
    write_results(results / "laptop" / protocol.id, protocol, table(protocol, EXACT, work), session)
    page = write(results, tmp_path / "claims.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert "data:image/png;base64," in page
    assert "1.41" in page
    assert "zerolab train paper/qwen2.5-1.5b-r1" in page
    assert all(word in page for word in ("if one fails", "what the paper says", "needs hardware: "))
    rows = {re.sub(r"\| \[(.*?)\].*", r"\1", row): row for row in ledger(results).split("\n\n")[0].splitlines()[2:]}
    assert rows.keys() == {p.id for p in protocols()}
    assert rows["L2.weight"].endswith("| underpowered (quick, 1 seed would decide) |")
    assert rows["L1.natural"].endswith("| not run |")
    assert rows["R1.minimalist"].endswith("| needs hardware: 675 GPU h in 6 runs |")
    assert len(headlines(results).splitlines()) == 3, "the README shows what has run"
    assert "results/laptop/L2.weight/figure-dark.png" in claim_pages(results)["L2.md"]
    assert "GRPO, G = 64" in claim_pages(results)["L2.md"]


def test_the_readme_shows_eight_rows_at_most_and_open_questions_first() -> None:
    rows = headlines(Path(__file__).resolve().parents[2] / "results").splitlines()[2:]
    labels = [row.split(" | ")[1] for row in rows]
    assert len(rows) <= 8
    assert labels == sorted(labels, key=list(LABELS).index)
    assert labels[0] == "open"


def test_a_headline_is_the_primary_statement_of_its_experiment() -> None:
    root = Path(__file__).resolve().parents[2]
    for row in headlines(root / "results").splitlines()[2:]:
        name, _, text, *_, verdict = (cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1])
        if name.startswith("["):
            record = json.loads((root / "results" / "laptop" / name[1:].split("]")[0] / "verdict.json").read_text())
            [protocol] = find(record["id"])
            assert text == protocol.primary.text
            assert verdict.startswith(record["verdict"])


def test_committed_results_are_those_of_today_s_protocols() -> None:
    """A verdict in the repository follows from its table by the rule as it is now."""
    root = Path(__file__).resolve().parents[2] / "results" / "laptop"
    for protocol in protocols():
        folder = root / protocol.id
        if not folder.is_dir():
            continue
        record = json.loads((folder / "verdict.json").read_text())
        found = findings(protocol, read_table(folder / "cells.csv"))
        assert overall(found) == record["verdict"], protocol.id
        assert [f.verdict for f in found] == [s["verdict"] for s in record["statements"]], protocol.id
        again = judged(protocol, read_table(folder / "cells.csv"), record)[1]
        assert again == record, "`zerolab claims report`"
        with (folder / "cells.csv").open() as file:
            assert len(list(csv.DictReader(file))) == record["cells"]


@pytest.mark.parametrize("option", ["--results", "--work"])
def test_a_place_that_cannot_be_written_is_one_line_before_anything_runs(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert run("claims", "run", "L1.policy", "--quick", option, "file/below") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot write file/below" in error
    assert not list(tmp_path.rglob("cell.json"))


def smoke_base_protocol(folder: Path) -> Protocol:
    """An experiment of one cell on a base whose folder exists and holds weights."""
    base = laptop_base(0, "laptop/smoke-base")
    model = cache_folder(base)
    model.mkdir(parents=True)
    (model / "gate.json").touch()
    save_file({"w": torch.zeros(3)}, model / "model.safetensors")
    return dataclasses.replace(
        question_weight.PROTOCOL,
        cells=lambda plan: [Cell({"seed": 0}, 1)],
        recipe=lambda factors: run_config("laptop/smoke", base, ["seed=0"]),
        base=lambda factors: base,
    )


def test_a_cell_is_used_again_if_its_inputs_are_the_same_wherever_its_code_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    protocol = smoke_base_protocol(tmp_path)
    [cell] = protocol.cells(Plan((0,)))
    recipe = protocol.recipe(cell.factors)
    save_cell(tmp_path, cell, protocol, {"steps": recipe.steps, "weight": 1.0})
    model = cache_folder(protocol.base({}))

    def kept(**changes: Any) -> bool:
        return load_cell(tmp_path, cell, dataclasses.replace(protocol, **changes)) is not None

    def with_(config: RunConfig, **changes: Any) -> dict[str, Any]:
        return {"recipe": lambda factors: config.model_copy(update=changes)}

    def renamed(factors: Any, folder: Path) -> dict[str, float]:
        raise AssertionError

    renamed.__module__ = "zerolab.claims.of_another_name"
    assert kept()
    assert kept(run=renamed)
    assert kept(**with_(recipe, name="another name", out="elsewhere", threads=2))
    assert not kept(version="next")
    assert not kept(**with_(recipe, seed=1))
    assert not kept(**with_(recipe, questions=recipe.questions.model_copy(update={"shuffle_answers": True})))
    with monkeypatch.context() as patch:
        patch.setattr("zerolab.claims.results.GRADER_VERSION", "next")
        assert not kept()
    save_file({"w": torch.ones(3)}, model / "model.safetensors")
    os.utime(model / "model.safetensors", ns=(1, 1))
    assert not kept(), "the base has other weights"
    shutil.rmtree(model)
    assert kept(), "a finished cell does not need its base in the cache"


def test_a_fresh_verdict_is_that_of_its_table(tmp_path: Path) -> None:
    """The table has ten digits; from more digits another last digit would be computed."""
    protocol = question_weight.PROTOCOL
    rows = [{**cell.factors, "weight": math.sqrt(2 + k)} for k, cell in enumerate(protocol.cells(EXACT))]
    write_results(tmp_path, protocol, rows, {"quick": False})
    fresh = (tmp_path / "verdict.json").read_text()
    judge_again(tmp_path, protocol)
    assert (tmp_path / "verdict.json").read_text() == fresh
