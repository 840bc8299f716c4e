"""The set of checks on the installed TRL; `make test-audit` installs it."""

import itertools
from pathlib import Path

import pytest

from command import refusal, run
from zerolab.audit.checks import Audit, audit
from zerolab.audit.targets import find

pytestmark = pytest.mark.audit

VARIANTS = ("defaults", "grpo", "dr_grpo", "dr_grpo_unscaled", "bnpo", "mask_truncated")


@pytest.fixture(scope="module")
def audits() -> dict[str, Audit]:
    pytest.importorskip("trl", reason="the extra audit is not installed")
    peers = [peer for name in VARIANTS for peer in find(f"trl:{name}")]
    return dict(zip(VARIANTS, audit(peers), strict=True))


def biased(audits: dict[str, Audit], name: str) -> set[str]:
    return {row.key for row in audits[name].rows if row.biased}


def test_what_every_variant_optimises(audits: dict[str, Audit]) -> None:
    assert {name: biased(audits, name) for name in VARIANTS} == {
        "defaults": {"scale", "pass-rate", "importance"},
        "grpo": {"length", "scale", "pass-rate"},
        "dr_grpo": {"pass-rate"},
        "dr_grpo_unscaled": set(),
        "bnpo": {"scale", "pass-rate", "split", "order", "ranks"},
        "mask_truncated": {"scale", "pass-rate", "truncation"},
    }
    assert audits["grpo"].version.startswith("trl ")


def test_the_numbers_behind_it(audits: dict[str, Audit]) -> None:
    assert audits["grpo"].row("length").value == pytest.approx(1 / 8, abs=1e-4)
    assert audits["grpo"].row("pass-rate").value == pytest.approx(1.406, abs=0.002)
    assert audits["defaults"].row("importance").curve["8192"] == pytest.approx(0.38, abs=0.03)
    assert audits["mask_truncated"].row("truncation").value == 0


def test_ranks_were_two_processes(audits: dict[str, Audit]) -> None:
    """A local normaliser shows there, a global one does not."""
    assert audits["bnpo"].row("ranks").value > 0.1
    assert audits["defaults"].row("ranks").value < 1e-3


def test_a_config_is_audited_as_it_would_train(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One response per micro-batch turns bnpo into GRPO, as TRL's documentation says."""
    path = tmp_path / "grpo.yaml"
    path.write_text("loss_type: bnpo\nscale_rewards: false\nper_device_train_batch_size: 1\nlearning_rate: 1.0e-6\n")
    assert run("audit", path, "--fail-on", "pass-rate") == 0
    assert "1/length (in 32 micro-batches)" in " ".join(capsys.readouterr().out.split())


def test_bad_configs_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "grpo.json"
    path.write_text('{"los_type": "grpo"}')
    assert "unknown key los_type; did you mean loss_type?" in refusal(capsys, "audit", path)
    path.write_text('{"loss_type": "grop"}')
    assert "grop" in refusal(capsys, "audit", path)


def test_no_pair_of_neighbours_comes_twice_and_the_vocabulary_stays_small() -> None:
    """That is what makes the coefficient of every token readable, of a real rollout too."""
    pytest.importorskip("trl", reason="the extra audit is not installed")
    from zerolab.audit.peers.trl import Script

    lengths = (1, 2, 3, 128, 128, 77) * 16
    script = Script({"lengths": lengths, "truncated": [n in (128, 1) for n in lengths]})
    rows = [[*prompt, *response] for prompt, response in zip(script.prompts, script.responses, strict=True)]
    pairs = [pair for row in rows for pair in itertools.pairwise(row)]
    assert tuple(map(len, script.responses)) == lengths
    assert len(set(pairs)) == len(pairs)
    assert script.vocabulary < 300
