"""The set of checks on losses with known answers: every row finds its bias and leaves an unbiased loss alone."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from tools import audit_document

from command import refusal, run
from zerolab.audit import checks
from zerolab.audit.certificate import PASS_RATES, QUESTION_WEIGHTS
from zerolab.audit.checks import Audit, audit, summary
from zerolab.audit.command import KEYS
from zerolab.audit.peers import function
from zerolab.audit.peers.peer import Peer, balanced, measure
from zerolab.audit.targets import find, trl_config
from zerolab.errors import UserError

HERE = Path(__file__).parent
LOSSES = HERE / "losses.py"


@pytest.fixture(scope="module")
def audits() -> dict[str, Audit]:
    names = (
        "biased_loss",
        "grpo",
        "dr_grpo",
        "micro_batch_mean",
        "padded_width",
        "value_loss",
        "masked_truncation",
        "rewards_everyone",
    )
    peers = [peer for name in names for peer in find(f"{LOSSES}:{name}")]
    return dict(zip(names, audit(peers), strict=True))


def test_an_unbiased_loss_passes_every_row_that_can_be_measured(audits: dict[str, Audit]) -> None:
    found = audits["dr_grpo"]
    assert tuple(row.key for row in found.rows) == KEYS == tuple(checks.ROWS)
    assert [row.key for row in found.rows if row.biased is None] == ["ranks", "truncation", "importance"]
    assert not any(row.biased for row in found.rows)
    assert summary(found) == "unbiased in everything that was measured"


def test_a_mean_over_each_response_is_one_over_length(audits: dict[str, Audit]) -> None:
    for name in ("biased_loss", "grpo", "value_loss"):
        row = audits[name].row("length")
        assert row.biased
        assert row.verdict == "1/length"
        assert row.curve == pytest.approx({"4": 1, "8": 1 / 2, "16": 1 / 4, "32": 1 / 8})
        assert audits[name].row("scale").value == pytest.approx(2)


def test_the_standard_deviation_weighs_questions_as_the_law_says(audits: dict[str, Audit]) -> None:
    law = np.array([QUESTION_WEIGHTS["E[1/std]"](p, 8) for p in PASS_RATES])
    assert list(audits["grpo"].row("pass-rate").curve.values()) == pytest.approx(law / law.mean(), rel=1e-5)
    assert audits["grpo"].row("pass-rate").biased
    assert audits["dr_grpo"].row("pass-rate").value == pytest.approx(1)


def test_a_mean_over_a_micro_batch_shows_only_when_the_step_is_cut(audits: dict[str, Audit]) -> None:
    found = audits["micro_batch_mean"]
    assert found.row("length").value == pytest.approx(1)
    assert found.row("split").biased
    assert "0.125" in found.row("split").verdict
    assert found.row("order").biased


def test_a_padded_width_is_caught(audits: dict[str, Audit]) -> None:
    assert not audits["padded_width"].row("length").biased
    assert audits["padded_width"].row("split").biased


def test_masked_truncation_and_rejected_weights_are_caught(audits: dict[str, Audit]) -> None:
    found = audits["masked_truncation"]
    assert found.row("truncation").value == 0
    assert found.row("truncation").biased
    kept = found.row("importance").curve
    # E[w; w < 3] of a log-normal w with mean 1 and deviation s is Phi((log 3 - s^2 / 2) / s)
    for length, weight in kept.items():
        s = 0.02 * int(length) ** 0.5
        assert weight == pytest.approx(checks.NormalDist().cdf((np.log(3) - s**2 / 2) / s), abs=0.03)
    assert "truncation" in summary(found)
    assert "importance" in summary(found)


def test_a_loss_without_baseline_moves_on_equal_rewards(audits: dict[str, Audit]) -> None:
    assert audits["rewards_everyone"].row("zero-variance").biased
    assert audits["grpo"].row("zero-variance").value == 0
    assert audits["grpo"].row("zero-variance").curve["others"] == pytest.approx(4 / 5)


def test_coefficients_are_those_of_the_formula() -> None:
    """micro_batch_mean on one group: A / tokens, whatever the constant."""
    case = balanced([(2, 3)], 8)
    (peer,) = find(f"{LOSSES}:micro_batch_mean")
    _, found = measure([(peer, {"one": case})])[0]
    assert [c.tolist() for c in found["one"]] == [
        pytest.approx([sign * 0.5 / 10] * length) for sign, length in ((1, 2), (1, 3), (-1, 2), (-1, 3))
    ]


def test_noise_has_mean_one_importance_weights() -> None:
    case = checks.noise()
    assert case.mismatch is not None
    sums = np.array([sum(shift) for shift in case.mismatch])
    for length in checks.NOISE_LENGTHS:
        of_length = sums[np.array(case.lengths) == length]
        assert of_length.mean() == pytest.approx(-(checks.NOISE**2) * length / 2, abs=1e-9)
        assert of_length.std() == pytest.approx(checks.NOISE * length**0.5, rel=0.03)


# --- the command -----------------------------------------------------------------------------------------------------


def test_fail_on_decides_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = ["--json", tmp_path / "a.json", "--png", tmp_path / "a.png"]
    assert run("audit", f"{LOSSES}:biased_loss", "--fail-on", "length", *files) == 1
    out = capsys.readouterr().out
    assert "FAILED losses.py:biased_loss: 1/length" in out
    assert run("audit", f"{LOSSES}:biased_loss", "--fail-on", "split,order") == 0
    assert run("audit", f"{LOSSES}:biased_loss") == 0
    assert run("audit", f"{LOSSES}:dr_grpo", "--fail-on", "length,pass-rate,split,order,zero-variance,scale") == 0
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["audits"][0]["rows"][0]["curve"]["32"] == pytest.approx(1 / 8)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_module_on_the_path_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert audit(find("losses:biased_loss"))[0].row("length").biased


BAD = {
    "crashes": ["losses.py:crashes", "the function failed"],
    "strange": ["parameter advantage is unknown", "did you mean advantages?"],
    "nothing": ["either logprobs or values"],
    "no_scalar": ["one scalar tensor"],
    "detached": ["does not depend on logprobs"],
    "infinite": ["not finite"],
    "not_a_function": ["no function not_a_function"],
    "biased_los": ["did you mean biased_loss?"],
}


@pytest.mark.filterwarnings("ignore:Using a non-tuple")
@pytest.mark.parametrize("name", BAD)
def test_a_loss_that_cannot_be_audited_is_one_line(name: str, capsys: pytest.CaptureFixture) -> None:
    line = refusal(capsys, "audit", f"{LOSSES}:{name}")
    assert all(words in line for words in BAD[name]), line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tlr"], "did you mean trl?"),
        (["trl:drgrpo"], "did you mean dr_grpo?"),
        (["none.py:f"], "none.py: no such file"),
        (["no_such_module:f"], "No module named"),
        ([f"{LOSSES}:grpo", "--fail-on", "lenght"], "did you mean length?"),
        ([f"{LOSSES}:grpo", "--fail-on", "ranks"], "not measured: a function runs in one process"),
        ([f"{LOSSES}:grpo", "--json", "/none/a.json"], "its folder does not exist"),
        ([f"{LOSSES}:grpo", "--python", sys.executable], "--python is for trl"),
        (["none.yaml"], "No such file"),
        (["verl:token_mean", "--python", "/none/python"], "give the path of a Python"),
    ],
)
def test_bad_arguments(arguments: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    assert words in refusal(capsys, "audit", *arguments)


# --- an interpreter of its own ---------------------------------------------------------------------------------------


def stand_in(folder: Path, script: str) -> str:
    """An interpreter that is not this one, and says so."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_peer_is_asked_in_the_interpreter_given(tmp_path: Path) -> None:
    """The stand-in leaves a trace and goes on as this interpreter, isolated from its packages' folder of peers."""
    python = stand_in(tmp_path, f'touch "{tmp_path}/asked"\nexec {sys.executable} "$@"')
    options = {"target": f"{LOSSES}:biased_loss"}
    case = balanced([(2, 4)], 8)
    here, there = Peer("here", "function", options), Peer("there", "function", options, python=python)
    (_, expected), (version, found) = measure([(here, {"one": case}), (there, {"one": case})])
    assert (tmp_path / "asked").exists()
    assert version.startswith("torch ")
    assert all(np.array_equal(a, b) for a, b in zip(found["one"], expected["one"], strict=True))


def test_a_missing_library_and_a_crash_are_one_line(tmp_path: Path) -> None:
    options = {"target": "no_such_package.losses:f"}
    case = {"one": balanced([(2, 4)], 8)}
    with pytest.raises(UserError, match="No module named 'no_such_package'"):
        measure([(Peer("x", "function", options, python=sys.executable), case)])
    broken = stand_in(tmp_path, "echo 'Segmentation fault' >&2; exit 139")
    with pytest.raises(UserError, match=r"x: its code failed under .*: Segmentation fault"):
        measure([(Peer("x", "function", options, python=broken), case)])


def test_peer_files_import_nothing_of_zerolab() -> None:
    """They run where zerolab is not installed."""
    for name in ("worker", "function", "trl", "verl", "openrlhf"):
        text = (Path(function.__file__).parent / f"{name}.py").read_text()
        assert "import zerolab" not in text
        assert "from zerolab" not in text


# --- config files and the page ---------------------------------------------------------------------------------------


def test_a_config_decides_micro_batches_and_group_size(tmp_path: Path) -> None:
    path = tmp_path / "grpo.yaml"
    path.write_text(
        "loss_type: bnpo\nper_device_train_batch_size: 1\nnum_generations: 4\nbeta: 0.04\nlearning_rate: 1e-6"
    )
    peer = trl_config(path, sys.executable)
    assert (peer.micro_batches, peer.group_size) == (32, 4)
    assert peer.options["loss_type"] == "bnpo"
    assert "beta" not in peer.options
    assert "not audited: beta = 0.04" in peer.about
    assert peer.unable == {"importance": "the file does not set use_vllm"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "loss_type: [", "not YAML"),
        ("a.yaml", "!!python/object/apply:os.system ['touch /tmp/never']", "not YAML"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[1]", "keys of GRPOConfig"),
        ("a.yaml", "num_generations: many", "whole number"),
        ("a.yaml", "per_device_train_batch_size: 0", "at least 1"),
    ],
)
def test_a_config_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        find(str(tmp_path / name))


def test_the_page_lists_the_inputs_as_they_are() -> None:
    page = (HERE.parent.parent / "docs" / "audit.md").read_text(encoding="utf-8")
    lines = [f"| `{name}` | {text} |" for name, text in function.INPUTS.items()]
    assert "\n".join(lines) in page
    assert all(f"| `{key}` |" in page for key in KEYS)


def test_a_table_is_written_between_the_markers(tmp_path: Path, audits: dict[str, Audit]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{audit_document.BEGIN}\nold\n{audit_document.END}\nafter\n")
    one = audits["biased_loss"].record()
    audit_document.write(page, [{"date": "2026-11-23", "audits": [one]}])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| `losses.py:biased_loss` | policy loss | **0.125** | not measured | 0 |" in text
    page.write_text("no markers")
    with pytest.raises(UserError, match="has no"):
        audit_document.write(page, [])


@pytest.mark.audit
@pytest.mark.parametrize("library", ["verl", "openrlhf"])
def test_other_libraries_where_an_interpreter_is_given(library: str) -> None:
    """ZEROLAB_VERL_PYTHON and ZEROLAB_OPENRLHF_PYTHON name interpreters that have them."""
    python = os.environ.get(f"ZEROLAB_{library.upper()}_PYTHON")
    if not python:
        pytest.skip(f"no interpreter with {library} at hand")
    found = {one.name.partition(":")[2]: one for one in audit(find(library, python))}
    assert found["seq_mean_token_mean"].row("length").verdict == "1/length"
    assert not any(found["token_mean"].row(key).biased for key in ("length", "split", "order"))
    assert not any(found["value_token_mean"].row(key).biased for key in ("length", "split", "order"))
